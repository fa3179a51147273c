//! Plots as SVG.

use crate::metrics::calibration::Bin;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Width and height of a plot in pixels.
const SIZE: (u32, u32) = (640, 320);
/// Height of a bar with its name.
const BAR: u32 = 18;

/// Curves over optimiser steps. Values that are not finite are left out.
///
/// # Errors
/// If it cannot be drawn.
pub fn curves(title: &str, curves: &[(&str, Vec<(f64, f64)>)]) -> Result<String> {
    let mut svg = String::new();
    let points = || curves.iter().flat_map(|(_, points)| points.iter().copied()).filter(finite);
    let range = |of: fn((f64, f64)) -> f64| {
        let (low, high) = points().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low > high { 0.0..1.0 } else { low..high.max(low + 1e-9) }
    };
    let (steps, values) = (range(|(step, _)| step), range(|(_, value)| value));
    let margin = 0.05 * (values.end - values.start);
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(56)
            .build_cartesian_2d(steps, values.start - margin..values.end + margin)
            .map_err(failed)?;
        chart.configure_mesh().x_desc("step").light_line_style(WHITE).draw().map_err(failed)?;
        for (index, (name, points)) in curves.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let points = points.iter().copied().filter(finite);
            let drawn = chart.draw_series(LineSeries::new(points, color.stroke_width(2))).map_err(failed)?;
            drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        if curves.len() > 1 {
            chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw().map_err(failed)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Horizontal bars of values 0..1, the first at the top.
///
/// # Errors
/// If it cannot be drawn.
pub fn bars(title: &str, bars: &[(&str, f64)]) -> Result<String> {
    let mut svg = String::new();
    let count = bars.len() as i32;
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, 60 + BAR * bars.len() as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(260)
            .build_cartesian_2d(0.0..1.0, (0..count).into_segmented())
            .map_err(failed)?;
        let name = |at: &SegmentValue<i32>| match at {
            SegmentValue::CenterOf(row) => bars.get((count - 1 - row) as usize).map_or_else(String::new, |(name, _)| name.to_string()),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(WHITE)
            .y_labels(bars.len())
            .y_label_formatter(&name)
            .draw()
            .map_err(failed)?;
        chart
            .draw_series(bars.iter().enumerate().filter(|(_, (_, value))| value.is_finite()).map(|(index, (_, value))| {
                let row = count - 1 - index as i32;
                let corners = [(0.0, SegmentValue::Exact(row)), (value.clamp(0.0, 1.0), SegmentValue::Exact(row + 1))];
                let mut bar = Rectangle::new(corners, Palette99::pick(0).filled());
                bar.set_margin(2, 2, 0, 0);
                bar
            }))
            .map_err(failed)?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// A reliability diagram: for each bin the share of cases that apply over their mean probability, as large as the bin has cases, beside the
/// diagonal on which all bins of calibrated probabilities lie.
///
/// # Errors
/// If it cannot be drawn.
pub fn reliability(title: &str, bins: &[Bin]) -> Result<String> {
    let mut svg = String::new();
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1) as f64;
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, SIZE.0)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 14))
            .margin(16)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)
            .map_err(failed)?;
        chart.configure_mesh().x_desc("mean probability").y_desc("share that applies").light_line_style(WHITE).draw().map_err(failed)?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4).stroke_width(1))).map_err(failed)?;
        let point = |bin: &Bin| {
            let (at, share) = (bin.sum / bin.count as f64, bin.applies as f64 / bin.count as f64);
            // The area is proportional to the number of cases.
            let radius = 2 + (12.0 * (bin.count as f64 / most).sqrt()) as i32;
            Circle::new((at, share), radius, Palette99::pick(0).mix(0.6).filled())
        };
        chart.draw_series(bins.iter().map(point)).map_err(failed)?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

fn finite(&(step, value): &(f64, f64)) -> bool {
    step.is_finite() && value.is_finite()
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_curves_and_names() {
        let falling = (0..50).map(|step| (f64::from(step), 1.0 / f64::from(step + 1))).chain([(50.0, f64::NAN)]).collect();
        let svg = curves("loss of <apm>", &[("loss", falling), ("l1", vec![(0.0, 2.0), (49.0, 0.5)])]).unwrap();
        assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() >= 2 && !svg.contains("NaN"), "{svg}");
        assert!(svg.contains("loss of &lt;apm&gt;") && svg.contains("l1"), "{svg}");
        assert!(curves("empty", &[("nothing", vec![])]).unwrap().contains("empty"));
    }

    #[test]
    fn a_bin_is_a_point_as_large_as_it_has_cases() {
        let bins = [Bin { count: 100, sum: 10.0, applies: 20 }, Bin { count: 1, sum: 0.9, applies: 1 }];
        let svg = reliability("labels", &bins).unwrap();
        let radii: Vec<&str> = svg.split("<circle").skip(1).filter_map(|own| own.split(" r=\"").nth(1)?.split('"').next()).collect();
        assert_eq!(radii, ["14", "3"], "{svg}");
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg = bars("IoU", &[("Left lung", 1.0), ("Trachea", 0.25), ("unknown", f64::NAN)]).unwrap();
        let attribute =
            |line: &str, name: &str| -> Option<f64> { line.split(&format!("{name}=\"")).nth(1)?.split('"').next()?.parse().ok() };
        // The first rectangle is the background.
        let widths: Vec<f64> =
            svg.lines().filter(|line| line.contains("<rect")).skip(1).filter_map(|line| attribute(line, "width")).collect();
        assert_eq!(widths.len(), 2, "{svg}");
        assert!((widths[1] / widths[0] - 0.25).abs() < 0.02, "{widths:?}");
        assert!(svg.contains("Left lung") && svg.contains("Trachea"));
    }
}
