//! The geometry of one patient in world units, and the outline of each of the 36 structures.

use crate::canvas::spline;
use crate::frame::Point;
use anatomix::{STRUCTURE_COUNT, Side};
use rand::{Rng, RngExt};

/// The outline and landmarks of one lung.
#[derive(Clone, Debug)]
pub(crate) struct Lung {
    /// Sign of x: -1 for the patient's right, 1 for the left.
    pub sign: f32,
    pub outline: Vec<Point>,
    /// y of the apex.
    pub apex: f32,
    /// y of the hemidiaphragm's dome.
    pub dome: f32,
    /// Costodiaphragmatic corner.
    pub recess: Point,
    /// Cardiophrenic corner.
    pub sulcus: Point,
    /// Highest point of the dome.
    pub dome_top: Point,
    pub hilum: Point,
}

#[derive(Clone, Debug)]
pub(crate) struct Anatomy {
    pub right: Lung,
    pub left: Lung,
    pub heart: Vec<Point>,
    pub carina: Point,
    pub trachea_top: f32,
    pub arch: Point,
    pub arch_radius: f32,
    pub mediastinum: f32,
    pub clavicles: [Vec<Point>; 2],
    pub spine_half_width: f32,
    pub heart_edges: [f32; 2],
    pub heart_top: f32,
    pub heart_bottom: f32,
}

/// Findings that change the shape of the anatomy. The others are drawn over it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Build {
    pub cardiomegaly: bool,
    pub wide_mediastinum: bool,
    pub fractured_clavicle: Option<Side>,
    pub collapsed_base: Option<Side>,
}

impl Lung {
    fn sample(rng: &mut impl Rng, sign: f32, width: f32, base: f32, collapsed: bool) -> Self {
        let mut j = |center: f32, spread: f32| center + rng.random_range(-spread..spread);
        let apex = j(0.0, 0.05);
        let raised = if collapsed { 0.17 } else { 0.0 };
        let dome = j(base, 0.05) - raised;
        let corner = (dome + j(0.30, 0.10) + raised * 0.4).max(dome + 0.12);
        let w = width * j(1.0, 0.04);
        let medial = j(0.17, 0.03);
        let points = [
            [j(0.40, 0.05) * w, apex],
            [j(0.60, 0.04) * w, apex + 0.07],
            [j(0.78, 0.04) * w, j(0.25, 0.03)],
            [j(0.90, 0.03) * w, j(0.55, 0.04)],
            [j(0.97, 0.02) * w, j(0.95, 0.05)],
            [w, (dome - 0.25).max(1.15)],
            [j(0.985, 0.015) * w, corner],
            [j(0.80, 0.04) * w, dome + j(0.09, 0.03)],
            [j(0.55, 0.06) * w, dome],
            [j(0.34, 0.04) * w, dome + j(0.07, 0.03)],
            [medial + 0.06, dome + j(0.13, 0.03)],
            [medial, dome - 0.25],
            [medial, j(1.0, 0.05)],
            [medial - 0.02, j(0.55, 0.05)],
            [medial + 0.03, apex + 0.17],
            [medial + 0.11, apex + 0.04],
        ];
        let outline = spline(&points, 6, true).into_iter().map(|[x, y]| [sign * x, y]).collect();
        let side = |p: Point| [sign * p[0], p[1]];
        Self {
            sign,
            outline,
            apex,
            dome,
            recess: side(points[6]),
            sulcus: side(points[10]),
            dome_top: side(points[8]),
            hilum: [sign * j(0.29, 0.03), j(0.84, 0.04) - if sign > 0.0 { 0.05 } else { 0.0 }],
        }
    }

    /// Distance of the lateral wall from the midline at the height `y`.
    pub fn wall(&self, y: f32) -> f32 {
        let near = self.outline.iter().filter(|p| (p[1] - y).abs() < 0.12).map(|p| p[0] * self.sign);
        near.fold(0.35, f32::max)
    }

    /// The points of the outline between two heights, with its intersections with both.
    pub fn band(&self, from: f32, to: f32) -> Vec<Point> {
        let mut band = Vec::new();
        for (i, &a) in self.outline.iter().enumerate() {
            let b = self.outline[(i + 1) % self.outline.len()];
            if (from..=to).contains(&a[1]) {
                band.push(a);
            }
            for level in [from, to] {
                if (a[1] < level) != (b[1] < level) {
                    let t = (level - a[1]) / (b[1] - a[1]);
                    band.push([a[0] + t * (b[0] - a[0]), level]);
                }
            }
        }
        band
    }

    /// Lower ends of the apical, upper and mid zone, and of the lung, as y.
    pub fn levels(&self) -> [f32; 4] {
        let height = self.dome - self.apex;
        [0.17, 0.40, 0.69]
            .map(|f| self.apex + f * height)
            .into_iter()
            .chain([self.recess[1]])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_default()
    }
}

impl Anatomy {
    pub fn sample(rng: &mut impl Rng, build: Build) -> Self {
        let base = if rng.random_bool(0.8) { rng.random_range(1.52..1.82) } else { rng.random_range(1.30..1.60) };
        let collapsed = |side| build.collapsed_base == Some(side);
        let right = Lung::sample(rng, -1.0, 1.0, base - 0.05, collapsed(Side::Right));
        let left = Lung::sample(rng, 1.0, 1.0, base + 0.03, collapsed(Side::Left));

        // The cardiothoracic ratio has a visible gap between normal and enlarged hearts.
        let ratio: f32 = if build.cardiomegaly { rng.random_range(0.57..0.68) } else { rng.random_range(0.36..0.485) };
        let width = 2.0 * ratio;
        let right_part = rng.random_range(0.30..0.38);
        let (r, l) = (width * right_part, width * (1.0 - right_part));
        let top = rng.random_range(0.82..0.96);
        let bottom = left.dome.max(right.dome) + rng.random_range(0.04..0.12);
        let at = |f: f32| top + f * (bottom - top);
        let heart = spline(
            &[
                [-0.02, top],
                [-0.55 * r - 0.02, at(0.08)],
                [-0.86 * r, at(0.30)],
                [-r, at(0.58)],
                [-0.88 * r, at(0.86)],
                [-0.45 * r, at(0.99)],
                [0.30 * l, at(1.0)],
                [0.74 * l, at(0.98)],
                [0.98 * l, at(0.86)],
                [0.96 * l, at(0.68)],
                [0.74 * l, at(0.42)],
                [0.50 * l, at(0.20)],
                [0.30 * l, at(0.05)],
            ],
            6,
            true,
        );
        let wide = if build.wide_mediastinum { rng.random_range(0.40..0.52) } else { rng.random_range(0.17..0.25) };
        let arch_radius = rng.random_range(0.09..0.14);
        let clavicles = [Side::Right, Side::Left].map(|side| {
            let sign = if side == Side::Left { 1.0 } else { -1.0 };
            let tilt: f32 = rng.random_range(-0.28..0.06);
            let inner = rng.random_range(0.14..0.24);
            let height = rng.random_range(0.10..0.30);
            let length = rng.random_range(0.80..0.98);
            let curve = rng.random_range(0.03..0.08);
            let points: Vec<Point> = [0.0f32, 0.2, 0.45, 0.7, 1.0]
                .iter()
                .zip([0.0, 0.6, 0.2, -0.9, -0.6])
                .map(|(t, bow)| [sign * (inner + t * length), height + tilt * t + curve * bow])
                .collect();
            let mut line = spline(&points, 8, false);
            if build.fractured_clavicle == Some(side) {
                // The lateral fragment is displaced downwards and overlaps the medial one.
                let cut = line.len() / 2;
                let (drop, over) = (rng.random_range(0.11..0.18), rng.random_range(0.03..0.09));
                for p in &mut line[cut..] {
                    *p = [p[0] - sign * over, p[1] + drop];
                }
            }
            line
        });
        Self {
            carina: [rng.random_range(-0.03..0.03), rng.random_range(0.66..0.78)],
            trachea_top: rng.random_range(-0.45..-0.3),
            arch: [wide * 0.75 + rng.random_range(0.0..0.04), rng.random_range(0.50..0.62)],
            arch_radius,
            mediastinum: wide,
            heart_edges: [-r, l],
            heart_top: top,
            heart_bottom: bottom,
            heart,
            clavicles,
            spine_half_width: rng.random_range(0.12..0.155),
            right,
            left,
        }
    }

    pub fn lung(&self, side: Side) -> &Lung {
        if side == Side::Left { &self.left } else { &self.right }
    }

    pub fn clavicle(&self, side: Side) -> &[Point] {
        &self.clavicles[usize::from(side == Side::Left)]
    }

    /// For each structure, in index order, world points whose bounding box is the structure's box.
    pub fn regions(&self) -> [Vec<Point>; STRUCTURE_COUNT] {
        let [heart_right, heart_left] = self.heart_edges;
        let (top, bottom) = (self.heart_top, self.heart_bottom);
        let media = self.mediastinum;
        let floor = 2.35;
        let around = |c: Point, rx: f32, ry: f32| rounded(c[0] - rx, c[1] - ry, c[0] + rx, c[1] + ry);
        let zone = |lung: &Lung, from: usize| {
            let levels = lung.levels();
            lung.band(if from == 0 { lung.apex - 0.1 } else { levels[from] }, levels[from + 1])
        };
        let apical = |lung: &Lung| lung.band(lung.apex - 0.1, lung.levels()[0]);
        let dome = |lung: &Lung| {
            let inner = lung.sulcus[0] * lung.sign;
            let outer = lung.recess[0] * lung.sign;
            let (a, b) = (lung.sign * inner, lung.sign * outer);
            rounded(a.min(b), lung.dome, a.max(b), lung.dome + 0.30)
        };
        let clavicle = |side| {
            let line = self.clavicle(side);
            line.iter().flat_map(|p| [[p[0], p[1] - 0.05], [p[0], p[1] + 0.05]]).collect::<Vec<_>>()
        };
        let trunk = rounded(-media - 0.03, -0.05, media + self.arch_radius, 0.62);
        let mut mediastinum = trunk.clone();
        mediastinum.extend(&self.heart);
        let (l, r) = (&self.left, &self.right);
        let quadrant = |lung: &Lung| {
            let edge = lung.sign * 0.98;
            rounded(edge.min(0.0), lung.dome, edge.max(0.0), floor)
        };
        [
            rounded(-0.98, l.dome.min(r.dome), 0.98, floor),
            around(self.arch, self.arch_radius + 0.05, self.arch_radius + 0.06),
            apical(l),
            apical(r),
            self.heart.clone(),
            rounded(0.02, self.arch[1], self.arch[0] + self.arch_radius, l.dome + 0.08),
            around(l.hilum, 0.15, 0.19),
            around(r.hilum, 0.15, 0.19),
            clavicle(Side::Left),
            dome(l),
            zone(l, 2),
            l.outline.clone(),
            zone(l, 1),
            zone(l, 0),
            mediastinum,
            rounded(heart_right, top + 0.22 * (bottom - top), -0.02, bottom - 0.12 * (bottom - top)),
            rounded(heart_right - 0.05, top + 0.10 * (bottom - top), heart_right + 0.20, bottom - 0.05),
            clavicle(Side::Right),
            dome(r),
            zone(r, 2),
            r.outline.clone(),
            zone(r, 1),
            zone(r, 0),
            around(self.carina, 0.12, 0.11),
            rounded(heart_left * 0.45, top, heart_left + 0.05, bottom - 0.05),
            quadrant(l),
            quadrant(r),
            trunk,
            rounded(-media - 0.04, 0.42, -media + 0.16, top + 0.08),
            rounded(self.carina[0] - 0.22, self.trachea_top, self.carina[0] + 0.24, self.carina[1] + 0.22),
            rounded(-self.spine_half_width, -0.45, self.spine_half_width, floor),
            around([heart_right.max(-0.30) + 0.04, top + 0.10], 0.12, 0.12),
            around([heart_left + 0.02, bottom - 0.06], 0.13, 0.12),
            around([l.recess[0] - 0.08, l.recess[1] - 0.07], 0.13, 0.15),
            around([heart_right - 0.02, bottom - 0.06], 0.13, 0.12),
            around([r.recess[0] + 0.08, r.recess[1] - 0.07], 0.13, 0.15),
        ]
    }
}

/// A rectangle with cut corners, whose bounding box hardly grows under rotation.
pub(crate) fn rounded(x0: f32, y0: f32, x1: f32, y1: f32) -> Vec<Point> {
    let (cx, cy) = ((x1 - x0) * 0.15, (y1 - y0) * 0.15);
    vec![[x0 + cx, y0], [x1 - cx, y0], [x1, y0 + cy], [x1, y1 - cy], [x1 - cx, y1], [x0 + cx, y1], [x0, y1 - cy], [x0, y0 + cy]]
}
