//! Drawing of a scene: attenuation of all tissues is added up, then acquisition follows.
//!
//! Attenuation is in arbitrary units, in which the soft tissue of a chest has about 1.

use crate::acquisition;
use crate::anatomy::{Anatomy, Lung};
use crate::canvas::{Canvas, rod, spline, tube};
use crate::frame::Point;
use crate::layer::Layer;
use crate::scene::Scene;
use crate::{devices, lesions};
use libm::{cosf, powf, sinf};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

impl Scene {
    /// Draws the radiograph, with values 0..1: bone is bright, air is dark.
    pub fn render(&self) -> Layer {
        render(self)
    }
}

fn render(scene: &Scene) -> Layer {
    // Drawing has a random stream of its own, so that changes to it do not change geometry and findings.
    let mut rng = ChaCha8Rng::seed_from_u64(scene.seed ^ 0x5eed_0f1a_b5e5_0000);
    let (frame, anatomy) = (&scene.frame, &scene.anatomy);
    let mut canvas = Canvas::new(frame);
    let body = body(&mut canvas, &mut rng);
    let lungs = lungs(&mut canvas, anatomy, &mut rng);
    abdomen(&mut canvas, anatomy, &mut rng);
    mediastinum(&mut canvas, anatomy, &mut rng);
    spine(&mut canvas, anatomy, &mut rng);
    ribs(&mut canvas, anatomy, &mut rng);
    shoulders(&mut canvas, anatomy, &mut rng);
    for lung in [&anatomy.right, &anatomy.left] {
        vessels(&mut canvas, lung, &mut rng);
    }
    lesions::draw(&mut canvas, scene, &lungs, &mut rng);
    let mut picture = canvas.layer;
    picture.multiply(&body);
    let mut overlay = Canvas::new(frame);
    devices::draw(&mut overlay, scene, &mut rng);
    picture.add(&overlay.layer, 1.0);
    acquisition::expose(picture, scene, &mut rng)
}

/// Draws neck, shoulders, arms and trunk. Returns the body's mask, outside of which the picture is dark.
fn body(canvas: &mut Canvas, rng: &mut impl Rng) -> Layer {
    let fat = rng.random_range(1.06..1.34);
    let neck = rng.random_range(0.26..0.42);
    let shoulder = rng.random_range(-0.18..0.12);
    let arm = rng.random_range(0.0..1.0);
    let half = |sign: f32| -> Vec<Point> {
        vec![
            [sign * neck, -1.2],
            [sign * neck, -0.40],
            [sign * (neck + 0.14), shoulder - 0.12],
            [sign * 0.95, shoulder],
            [sign * 1.45, shoulder + 0.16],
            [sign * 1.75, shoulder + 0.5],
            [sign * (1.55 + 0.3 * arm), 1.0],
            [sign * (1.24 + 0.1 * arm), 0.72],
            [sign * fat, 0.85],
            [sign * (fat - 0.02), 1.4],
            [sign * (fat + 0.03), 2.0],
            [sign * (fat + 0.06), 5.0],
        ]
    };
    let mut outline = half(1.0);
    outline.extend(half(-1.0).into_iter().rev());
    let outline = spline(&outline, 5, true);
    let mut mask = Layer::new(canvas.frame.width, canvas.frame.height);
    mask.fill(&canvas.frame.map_all(&outline), 1.0);
    let mut depth = mask.clone();
    depth.blur(0.16 * canvas.frame.pixels());
    let amount = rng.random_range(0.75..1.15);
    canvas.layer.add(&mask, 0.35 * amount);
    canvas.layer.add(&depth, 0.65 * amount);
    // Skin folds and fat make the trunk uneven.
    let mut uneven = Layer::noise(mask.width, mask.height, canvas.frame.pixels() * 0.8, 2, rng);
    uneven.map(|v| 1.0 + 0.07 * v);
    canvas.layer.multiply(&uneven);
    if rng.random_bool(0.45) {
        let (y, size) = (rng.random_range(1.15..1.65), rng.random_range(0.30..0.55));
        for sign in [-1.0, 1.0] {
            canvas.blob([sign * rng.random_range(0.50..0.70), y], [size * 1.1, size], rng.random_range(0.10..0.34), 0.5);
        }
    }
    mask.blur(0.6);
    mask
}

/// Draws the air in the lungs. Returns the mask of both lungs.
fn lungs(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut impl Rng) -> Layer {
    let frame = canvas.frame;
    let mut mask = Layer::new(frame.width, frame.height);
    let air = rng.random_range(0.50..0.72);
    for lung in [&anatomy.right, &anatomy.left] {
        let mut own = Layer::new(frame.width, frame.height);
        own.fill(&frame.map_all(&lung.outline), 1.0);
        let mut depth = own.clone();
        depth.blur(0.13 * frame.pixels());
        depth.multiply(&own);
        let amount = air * rng.random_range(0.92..1.08);
        canvas.layer.add(&own, -0.42 * amount);
        canvas.layer.add(&depth, -0.58 * amount);
        mask.add(&own, 1.0);
    }
    mask.map(|v| v.clamp(0.0, 1.0));
    // The parenchyma has a fine, irregular texture.
    let mut texture = Layer::noise(frame.width, frame.height, frame.pixels() * 0.10, 3, rng);
    texture.multiply(&mask);
    canvas.layer.add(&texture, rng.random_range(0.008..0.03));
    mask
}

/// Draws liver, spleen, gastric bubble and bowel gas below the domes; the posterior lung bases remain visible through them.
fn abdomen(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut impl Rng) {
    for lung in [&anatomy.right, &anatomy.left] {
        let mut organ: Vec<Point> = lung.outline.iter().copied().filter(|p| p[1] > lung.dome - 0.01 && p[0] * lung.sign < 0.99).collect();
        organ.sort_by(|a, b| (a[0] * lung.sign).total_cmp(&(b[0] * lung.sign)));
        organ.insert(0, [0.0, lung.dome + 0.2]);
        organ.extend([[lung.sign * 1.02, lung.recess[1] + 0.1], [lung.sign * 1.02, 5.0], [0.0, 5.0]]);
        let amount = if lung.sign < 0.0 { rng.random_range(0.10..0.34) } else { rng.random_range(0.04..0.26) };
        canvas.fill_soft(&organ, amount, 0.012);
    }
    if rng.random_bool(0.85) {
        let dome = anatomy.left.dome_top;
        let size = rng.random_range(0.10..0.32);
        let center = [dome[0] * rng.random_range(0.55..1.0), dome[1] + size * 0.75 + rng.random_range(0.04..0.1)];
        canvas.blob(center, [size * rng.random_range(1.0..1.5), size * 0.75], -rng.random_range(0.15..0.50), 0.35);
    }
    for _ in 0..rng.random_range(0..5) {
        let at = [rng.random_range(-0.7..0.8), rng.random_range(2.0..2.5)];
        let size = rng.random_range(0.05..0.18);
        canvas.blob(at, [size * 1.3, size], -rng.random_range(0.05..0.3), 0.4);
    }
}

fn mediastinum(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut impl Rng) {
    let m = anatomy.mediastinum;
    let soft = rng.random_range(0.010..0.022);
    let amount = rng.random_range(0.16..0.32);
    let top = anatomy.heart_top;
    let trunk = spline(
        &[
            [-m * 0.9, -0.15],
            [-m * 0.98, 0.25],
            [-m, 0.5],
            [-m * 0.95, top + 0.05],
            [-m * 0.5, top + 0.40],
            [m * 0.5, top + 0.40],
            [m * 0.85, top + 0.05],
            [m * 0.95, 0.6],
            [m * 0.92, 0.25],
            [m * 0.8, -0.15],
            [0.0, -0.3],
        ],
        6,
        true,
    );
    canvas.fill_soft(&trunk, amount * 0.6, soft);
    canvas.fill_soft(&trunk, amount * 0.4, soft * 5.0);
    canvas.blob(anatomy.arch, [anatomy.arch_radius; 2], rng.random_range(0.16..0.32), 0.5);
    // The descending aorta runs behind the heart; its left edge is often visible.
    let line =
        [[anatomy.arch[0], anatomy.arch[1]], [anatomy.arch[0] + 0.01, 0.95], [anatomy.arch[0] * 0.7, 1.4], [0.08, anatomy.left.dome + 0.1]];
    canvas.stroke(&spline(&line, 8, false), |_| anatomy.arch_radius * 0.85, rod(rng.random_range(0.06..0.18)));
    canvas.fill_soft(&anatomy.heart, rng.random_range(0.28..0.50), soft);
    let [right, left] = anatomy.heart_edges;
    let center = [(right + left) / 2.0 + 0.05, (anatomy.heart_top + anatomy.heart_bottom) / 2.0 + 0.1];
    canvas.blob(center, [(left - right) * 0.45, 0.38], rng.random_range(0.05..0.2), 1.0);
    for lung in [&anatomy.right, &anatomy.left] {
        for _ in 0..rng.random_range(3..7) {
            let at = [lung.hilum[0] + rng.random_range(-0.08..0.05) * lung.sign, lung.hilum[1] + rng.random_range(-0.12..0.14)];
            canvas.blob(at, [rng.random_range(0.04..0.09), rng.random_range(0.05..0.11)], rng.random_range(0.05..0.14), 0.8);
        }
    }
    // The trachea and the main bronchi contain air.
    let depth = rng.random_range(0.10..0.24);
    let [cx, cy] = anatomy.carina;
    let bend = rng.random_range(-0.03..0.04);
    let trachea = spline(&[[bend, -0.9], [bend, -0.2], [cx + bend * 0.5, cy * 0.5], [cx, cy]], 6, false);
    let radius = rng.random_range(0.055..0.08);
    canvas.stroke(&trachea, |_| radius, rod(-depth));
    for (x, y, r) in [(-0.21, 0.20, 0.8), (0.25, 0.22, 0.65)] {
        canvas.stroke(
            &spline(&[[cx, cy - 0.03], [cx + x * 0.5, cy + y * 0.45], [cx + x, cy + y]], 5, false),
            |t| radius * r * (1.0 - 0.3 * t),
            rod(-depth * 0.8),
        );
    }
}

fn spine(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut impl Rng) {
    let half = anatomy.spine_half_width;
    let amount = rng.random_range(0.08..0.24);
    let step = rng.random_range(0.155..0.20);
    // All vertebral bodies are on one layer, which is blurred once.
    let mut bodies = Canvas::new(canvas.frame);
    let mut y: f32 = -0.6 + rng.random_range(0.0..0.15);
    while y < 4.5 {
        let body = half * (0.82 + 0.08 * y).clamp(0.7, 1.0);
        let points = [
            [-body, y],
            [-body * 0.92, y + step * 0.42],
            [-body, y + step * 0.84],
            [body, y + step * 0.84],
            [body * 0.92, y + step * 0.42],
            [body, y],
        ];
        bodies.fill(&points, amount);
        for sign in [-1.0, 1.0] {
            canvas.blob([sign * body * 0.62, y + step * 0.32], [0.028, 0.036], amount * 0.6, 0.5);
            canvas.stroke(&[[sign * body, y + step * 0.25], [sign * (body + 0.09), y + step * 0.12]], |_| 0.028, rod(amount * 0.6));
        }
        canvas.stroke(&[[0.0, y + step * 0.4], [rng.random_range(-0.01..0.01), y + step]], |_| 0.02, rod(amount * 0.7));
        y += step;
    }
    bodies.layer.blur(0.008 * canvas.frame.pixels());
    canvas.layer.add(&bodies.layer, 1.0);
}

fn ribs(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut impl Rng) {
    let amount = if rng.random_bool(0.85) { rng.random_range(0.07..0.20) } else { rng.random_range(0.02..0.07) };
    let cortex = rng.random_range(0.25..0.6);
    let slope = rng.random_range(0.16..0.42);
    let spacing = rng.random_range(0.165..0.205);
    let radius = rng.random_range(0.038..0.056);
    let start = rng.random_range(-0.10..0.0);
    for lung in [&anatomy.right, &anatomy.left] {
        let sign = lung.sign;
        for i in 0..11 {
            let y0 = start + spacing * i as f32;
            let level = i as f32 / 10.0;
            let drop = slope * (0.75 + 0.6 * level);
            let wall = (lung.wall(y0 + drop * 0.8) + 0.035).min(1.04);
            // The posterior part goes out from the spine, up a little, then down along the chest wall.
            let posterior: Vec<Point> = (0..=14)
                .map(|k| {
                    let t = k as f32 / 14.0;
                    let x = 0.13 + (wall - 0.13) * powf(sinf(t * std::f32::consts::FRAC_PI_2), 0.85);
                    [sign * x, y0 - 0.05 * sinf(t * 3.0) + drop * powf(t, 2.4)]
                })
                .collect();
            canvas.stroke(&posterior, |t| radius * (1.0 - 0.15 * t), tube(amount, cortex));
            // The anterior part goes down from the chest wall towards the sternum. It is wider and fainter, and ends in cartilage.
            if i < 8 {
                let y1 = y0 + drop;
                let end = 0.36 + 0.05 * (i as f32 - 3.0).abs();
                let fall = (0.30 + 0.22 * level) * rng.random_range(0.9..1.1);
                let anterior: Vec<Point> = (0..=12)
                    .map(|k| {
                        let t = k as f32 / 12.0;
                        [sign * (wall + (end - wall) * t), y1 + fall * (1.0 - (1.0 - t) * (1.0 - t)) * 0.8]
                    })
                    .collect();
                let fade = amount * rng.random_range(0.45..0.8);
                canvas.stroke(&anterior, |t| radius * (1.0 + 0.35 * t), tube(fade, cortex * 0.8));
            }
        }
    }
}

fn shoulders(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut impl Rng) {
    let amount = rng.random_range(0.12..0.28);
    for line in &anatomy.clavicles {
        let radius = rng.random_range(0.038..0.052);
        // At a fracture the line has a jump; its fragments are drawn one by one.
        let jump = line.windows(2).position(|p| (p[1][1] - p[0][1]).abs() > 0.07).map_or(line.len(), |i| i + 1);
        for part in [&line[..jump], &line[jump..]] {
            canvas.stroke(part, |t| radius * (1.15 - 0.5 * t * (1.0 - t)), tube(amount, 0.5));
        }
    }
    let blade = rng.random_range(0.02..0.14);
    let (inner, top, rotation) = (rng.random_range(0.80..1.12), rng.random_range(-0.05..0.18), rng.random_range(-0.1..0.1));
    for sign in [-1.0f32, 1.0] {
        let points = [
            [sign * inner, top + 0.10],
            [sign * (inner + 0.18), top],
            [sign * (inner + 0.42), top + 0.10],
            [sign * (inner + 0.30), top + 0.35],
            [sign * (inner + 0.12 + rotation), top + 0.95],
            [sign * (inner + 0.02 + rotation), top + 0.85],
            [sign * (inner - 0.03), top + 0.45],
        ];
        let outline = spline(&points, 5, true);
        canvas.fill_soft(&outline, blade, 0.01);
        canvas.stroke(&outline[..20], |_| 0.02, rod(blade));
        let head = [sign * (inner + 0.50), top + 0.10];
        canvas.blob(head, [0.17, 0.17], amount * 1.2, 0.4);
        canvas.stroke(&[head, [sign * (inner + 0.62), top + 1.2]], |_| 0.09, tube(amount, 0.5));
        // The muscle fold over the apex has a bright border.
        if rng.random_bool(0.5) {
            canvas.blob([sign * 0.62, -0.12], [0.5, 0.2], rng.random_range(0.04..0.15), 0.7);
        }
    }
}

/// Draws vessels that branch from the hilum outwards and become thinner at each fork.
fn vessels(canvas: &mut Canvas, lung: &Lung, rng: &mut impl Rng) {
    let amount = rng.random_range(0.05..0.15);
    let mut open: Vec<(Point, f32, f32, f32)> = Vec::new();
    for i in 0..9 {
        let angle = -1.35 + i as f32 * 0.36 + rng.random_range(-0.15..0.15);
        let root = [lung.hilum[0] + rng.random_range(-0.07..0.07), lung.hilum[1] + 0.10 * sinf(angle) + rng.random_range(-0.06..0.06)];
        open.push((root, angle, rng.random_range(0.020..0.032), rng.random_range(0.20..0.34)));
    }
    while let Some((from, angle, radius, length)) = open.pop() {
        if radius < 0.0055 {
            continue;
        }
        let turn = rng.random_range(-0.35..0.35);
        let step = |p: Point, a: f32, d: f32| [p[0] + lung.sign * cosf(a) * d, p[1] + sinf(a) * d];
        let middle = step(from, angle, length * 0.5);
        let end = step(middle, angle + turn, length * 0.5);
        if end[0] * lung.sign > lung.wall(end[1]) - 0.05 || end[1] > lung.dome + 0.22 || end[1] < lung.apex + 0.12 {
            continue;
        }
        canvas.stroke(&spline(&[from, middle, end], 4, false), |t| radius * (1.0 - 0.3 * t), rod(amount * (radius / 0.03).sqrt()));
        for side in [-1.0, 1.0] {
            let fork = angle + turn + side * rng.random_range(0.2..0.6);
            open.push((end, fork, radius * rng.random_range(0.55..0.75), length * rng.random_range(0.6..0.9)));
        }
    }
}
