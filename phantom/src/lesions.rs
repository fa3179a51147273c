//! Drawing of abnormal tissue.

use crate::canvas::{Canvas, rod, spline};
use crate::findings::{Finding, Kind};
use crate::frame::Point;
use crate::layer::Layer;
use crate::scene::Scene;
use libm::{cosf, sinf};
use rand::{Rng, RngExt};

pub(crate) fn draw(canvas: &mut Canvas, scene: &Scene, lungs: &Layer, rng: &mut impl Rng) {
    for finding in &scene.findings {
        match finding.kind {
            Kind::Consolidation => opacity(canvas, finding, lungs, false, rng),
            Kind::Pneumonia => opacity(canvas, finding, lungs, true, rng),
            Kind::Atelectasis => atelectasis(canvas, finding, rng),
            Kind::LungLesion => lesion(canvas, finding, rng),
            Kind::Edema => edema(canvas, scene, finding, lungs, rng),
            Kind::PleuralEffusion => effusion(canvas, scene, finding, lungs),
            Kind::Pneumothorax => pneumothorax(canvas, scene, finding, lungs),
            Kind::PleuralThickening => thickening(canvas, scene, finding, lungs),
            _ => {}
        }
    }
}

/// Draws an airspace opacity: dense and even for a consolidation, patchy with air bronchograms for a pneumonia.
fn opacity(canvas: &mut Canvas, finding: &Finding, lungs: &Layer, patchy: bool, rng: &mut impl Rng) {
    let frame = canvas.frame;
    let mut own = Canvas::new(frame);
    let [rx, ry] = finding.radii;
    let strength = 0.24 + 0.16 * finding.strength;
    if patchy {
        for _ in 0..16 {
            let (a, d) = (rng.random_range(0.0..std::f32::consts::TAU), rng.random_range(0.15..0.85f32));
            let at = [finding.center[0] + cosf(a) * d * rx, finding.center[1] + sinf(a) * d * ry];
            let size = rng.random_range(0.18..0.34);
            own.blob(at, [rx * size, ry * size], strength * rng.random_range(0.5..1.0), 0.6);
        }
        own.blob(finding.center, [rx, ry], strength * 0.35, 0.7);
        for _ in 0..5 {
            let a = rng.random_range(0.0..std::f32::consts::TAU);
            let start = [finding.center[0] - cosf(a) * rx * 0.5, finding.center[1] - sinf(a) * ry * 0.5];
            let end = [finding.center[0] + cosf(a) * rx * 0.6, finding.center[1] + sinf(a) * ry * 0.6];
            own.stroke(&[start, end], |_| 0.016, rod(-strength * 0.8));
        }
    } else {
        own.blob(finding.center, [rx, ry], strength * 1.15, 0.33);
        let mut texture = Layer::noise(frame.width, frame.height, frame.pixels() * 0.08, 2, rng);
        texture.multiply(&own.layer);
        own.layer.add(&texture, 0.2);
    }
    own.layer.blur(0.010 * frame.pixels());
    own.layer.multiply(lungs);
    canvas.layer.add(&own.layer, 1.0);
}

/// Draws plate atelectases: thin, nearly horizontal bands. The raised dome is part of the anatomy.
fn atelectasis(canvas: &mut Canvas, finding: &Finding, rng: &mut impl Rng) {
    let [rx, ry] = finding.radii;
    let strength = 0.22 + 0.14 * finding.strength;
    for row in [-0.75f32, -0.05, 0.7] {
        let tilt = rng.random_range(-0.25..0.25);
        let line: Vec<Point> = (0..=8)
            .map(|k| {
                let t = k as f32 / 4.0 - 1.0;
                [finding.center[0] + t * rx, finding.center[1] + ry * (row + tilt * t)]
            })
            .collect();
        canvas.stroke(&line, |t| 0.030 * (1.0 - fourth(2.0 * t - 1.0) * 0.7), rod(strength));
    }
    canvas.blob(finding.center, [rx, ry], strength * 0.35, 0.6);
}

fn lesion(canvas: &mut Canvas, finding: &Finding, rng: &mut impl Rng) {
    let strength = 0.26 + 0.2 * finding.strength;
    let [rx, ry] = finding.radii;
    canvas.blob(finding.center, [rx, ry], strength, 0.5);
    if rng.random_bool(0.4) {
        for _ in 0..9 {
            let a = rng.random_range(0.0..std::f32::consts::TAU);
            let at = |d: f32| [finding.center[0] + cosf(a) * rx * d, finding.center[1] + sinf(a) * ry * d];
            canvas.stroke(&[at(0.7), at(1.15)], |t| 0.012 * (1.0 - 0.8 * t), rod(strength * 0.6));
        }
    }
}

fn edema(canvas: &mut Canvas, scene: &Scene, finding: &Finding, lungs: &Layer, rng: &mut impl Rng) {
    let frame = canvas.frame;
    let mut own = Canvas::new(frame);
    let strength = 0.20 + 0.12 * finding.strength;
    for lung in [&scene.anatomy.right, &scene.anatomy.left] {
        let center = [lung.hilum[0] + lung.sign * 0.16, lung.hilum[1] + 0.16];
        own.blob(center, [0.46, 0.62], strength, 0.7);
        for _ in 0..10 {
            let at = [center[0] + rng.random_range(-0.25..0.25), center[1] + rng.random_range(-0.40..0.40)];
            own.blob(at, [0.10, 0.10], strength * 0.5, 0.8);
        }
        // Kerley B lines are short and horizontal, at the lung base.
        for k in 0..6 {
            let y = lung.dome - 0.40 + 0.06 * k as f32;
            let wall = lung.wall(y) - 0.03;
            own.stroke(&[[lung.sign * wall, y], [lung.sign * (wall - 0.11), y + 0.005]], |_| 0.010, rod(strength * 0.7));
        }
    }
    let mut texture = Layer::noise(frame.width, frame.height, frame.pixels() * 0.12, 3, rng);
    texture.map(|v| 1.0 + 0.3 * v);
    own.layer.multiply(&texture);
    own.layer.multiply(lungs);
    canvas.layer.add(&own.layer, 1.0);
}

/// Draws fluid below a meniscus that rises along the lateral wall.
fn effusion(canvas: &mut Canvas, scene: &Scene, finding: &Finding, lungs: &Layer) {
    let lung = scene.anatomy.lung(finding.side.unwrap_or(anatomix::Side::Right));
    let top = finding.center[1];
    let wall = lung.wall(top) + 0.1;
    let mut points: Vec<Point> = spline(
        &[[wall, top - 0.02], [wall * 0.88, top + 0.10], [wall * 0.62, top + 0.22], [wall * 0.35, top + 0.26], [0.05, top + 0.20]],
        5,
        false,
    );
    points.extend([[0.05, 2.6], [wall, 2.6]]);
    let points: Vec<Point> = points.into_iter().map(|[x, y]| [x * lung.sign, y]).collect();
    let mut own = Canvas::new(canvas.frame);
    own.fill_soft(&points, 0.42 + 0.12 * finding.strength, 0.014);
    own.layer.multiply(lungs);
    canvas.layer.add(&own.layer, 1.0);
}

/// Draws the visceral pleural line of a collapsed lung, and air without vessels outside of it.
fn pneumothorax(canvas: &mut Canvas, scene: &Scene, finding: &Finding, lungs: &Layer) {
    let lung = scene.anatomy.lung(finding.side.unwrap_or(anatomix::Side::Right));
    let (base, gap) = (finding.center[1], finding.radii[0]);
    let line: Vec<Point> = (0..=20)
        .map(|k| {
            let t = k as f32 / 20.0;
            let y = lung.apex + gap * 0.9 + (base - lung.apex - gap * 0.9) * t;
            let inner = gap * (1.0 - 0.85 * t * t);
            // The line closes over the apex towards the mediastinum.
            let x = (lung.wall(y) - inner) * if t < 0.25 { 0.5 + 0.5 * (t / 0.25).sqrt() } else { 1.0 };
            [lung.sign * x, y]
        })
        .collect();
    let mut outside = line.clone();
    outside.extend([
        [lung.sign * 1.3, base],
        [lung.sign * 1.3, lung.apex - 0.3],
        [lung.sign * 0.15, lung.apex - 0.3],
        [lung.sign * 0.15, lung.apex + gap * 0.9],
    ]);
    let mut own = Canvas::new(canvas.frame);
    own.fill_soft(&outside, -(0.13 + 0.08 * finding.strength), 0.006);
    own.layer.multiply(lungs);
    // Vessels end at the line, so that the drawing outside of it is blurred.
    let mut beyond = Canvas::new(canvas.frame);
    beyond.fill(&outside, 1.0);
    beyond.layer.multiply(lungs);
    let mut smooth = canvas.layer.clone();
    smooth.blur(0.05 * canvas.frame.pixels());
    for ((value, even), part) in canvas.layer.data.iter_mut().zip(&smooth.data).zip(&beyond.layer.data) {
        *value += 0.6 * part * (even - *value);
    }
    canvas.layer.add(&own.layer, 1.0);
    canvas.stroke(&line, |_| 0.012, rod(0.16));
}

/// Draws a dense apical cap with an irregular lower border.
fn thickening(canvas: &mut Canvas, scene: &Scene, finding: &Finding, lungs: &Layer) {
    let lung = scene.anatomy.lung(finding.side.unwrap_or(anatomix::Side::Right));
    let mut rim = Canvas::new(canvas.frame);
    let line: Vec<Point> = lung.outline.iter().copied().filter(|p| p[1] < finding.center[1] && p[0] * lung.sign > 0.22).collect();
    let mut line = line;
    line.sort_by(|a, b| (a[0] * lung.sign).total_cmp(&(b[0] * lung.sign)));
    let value = 0.34 + 0.14 * finding.strength;
    rim.stroke(&line, |t| finding.radii[0] * (1.0 + 0.3 * sinf(t * 9.0)), move |r| value * (1.0 - fourth(r)));
    rim.layer.blur(0.012 * canvas.frame.pixels());
    rim.layer.multiply(lungs);
    canvas.layer.add(&rim.layer, 1.0);
}

/// `powi` may multiply in another order when it is compiled differently.
fn fourth(x: f32) -> f32 {
    x * x * (x * x)
}
