//! Drawing of devices: tubes, catheters, pacemakers, electrodes and sternal wires.

use crate::canvas::{Canvas, rod, spline};
use crate::findings::Kind;
use crate::frame::Point;
use crate::scene::Scene;
use anatomix::Side;
use rand::{Rng, RngExt};

pub(crate) fn draw(canvas: &mut Canvas, scene: &Scene, rng: &mut impl Rng) {
    let anatomy = &scene.anatomy;
    for finding in &scene.findings {
        let value = 0.30 + 0.2 * finding.strength;
        match finding.kind {
            Kind::EndotrachealTube => {
                let tip = [anatomy.carina[0], anatomy.carina[1] - 0.16];
                canvas.stroke(&spline(&[[0.03, -0.9], [0.0, -0.3], tip], 6, false), |_| 0.034, wall(value));
                canvas.stroke(&[[0.05, -0.9], [0.02, -0.3], [tip[0] + 0.02, tip[1]]], |_| 0.010, rod(value));
            }
            Kind::CentralLine => {
                let m = anatomy.mediastinum;
                let points = [[-0.62, -0.30], [-0.40, 0.05], [-m * 0.85, 0.28], [-m * 0.9, 0.65], [-m * 0.8, anatomy.heart_top + 0.05]];
                canvas.stroke(&spline(&points, 8, false), |_| 0.016, rod(value));
            }
            Kind::EntericTube => {
                let dome = anatomy.left.dome;
                let points = [[0.05, -0.9], [0.03, 0.4], [0.04, 1.2], [0.14, dome + 0.05], [0.40, dome + 0.28], [0.50, dome + 0.32]];
                canvas.stroke(&spline(&points, 8, false), |_| 0.020, rod(value));
            }
            Kind::Pacemaker => {
                let sign = if finding.side == Some(Side::Left) { 1.0 } else { -1.0 };
                let ([x, y], [rx, ry]) = (finding.center, finding.radii);
                canvas.blob([x, y], [rx, ry], value * 2.2, 0.18);
                let [right, left] = anatomy.heart_edges;
                let tip = [right + (left - right) * 0.62, anatomy.heart_bottom - 0.14];
                let lead = [
                    [x, y - ry],
                    [sign * 0.5, 0.12],
                    [-0.10, 0.35],
                    [-0.16, anatomy.heart_top + 0.1],
                    [-0.08, anatomy.heart_bottom - 0.3],
                    tip,
                ];
                canvas.stroke(&spline(&lead, 8, false), |_| 0.013, rod(value * 1.2));
            }
            _ => {}
        }
    }
    // Electrodes and their leads occur with any patient and are not findings.
    if rng.random_bool(0.22) {
        for _ in 0..rng.random_range(1..4) {
            let at: Point = [rng.random_range(-0.95..0.95), rng.random_range(0.05..1.9)];
            let to: Point = [rng.random_range(-1.2..1.2), rng.random_range(1.6..2.5)];
            let middle = [(at[0] + to[0]) / 2.0 + rng.random_range(-0.3..0.3), (at[1] + to[1]) / 2.0];
            canvas.blob(at, [0.045, 0.045], 0.25, 0.3);
            canvas.stroke(&spline(&[at, middle, to], 8, false), |_| 0.008, rod(rng.random_range(0.08..0.22)));
        }
    }
    if rng.random_bool(0.05) {
        for k in 0..5 {
            let y = 0.45 + 0.24 * k as f32;
            canvas.stroke(&[[-0.05, y], [0.05, y + 0.02], [-0.02, y + 0.05]], |_| 0.010, rod(0.35));
        }
    }
}

/// Stroke profile of a hollow tube, whose walls are bright.
fn wall(value: f32) -> impl Fn(f32) -> f32 {
    move |r| if r > 0.6 { value } else { value * 0.25 }
}
