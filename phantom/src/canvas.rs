//! Drawing in world units: a [`Layer`] with the [`Frame`] that maps points to it, stroke profiles, and smooth curves.

use crate::frame::{Frame, Point};
use crate::layer::Layer;

/// A layer with the frame that maps world points to its pixels.
pub(crate) struct Canvas<'a> {
    pub layer: Layer,
    pub frame: &'a Frame,
}

impl<'a> Canvas<'a> {
    pub fn new(frame: &'a Frame) -> Self {
        Self { layer: Layer::new(frame.width, frame.height), frame }
    }

    pub fn fill(&mut self, points: &[Point], value: f32) {
        self.layer.fill(&self.frame.map_all(points), value);
    }

    /// Adds a polygon that is blurred by `softness` world units.
    pub fn fill_soft(&mut self, points: &[Point], value: f32, softness: f32) {
        let mut layer = Layer::new(self.frame.width, self.frame.height);
        layer.fill(&self.frame.map_all(points), value);
        layer.blur(softness * self.frame.pixels());
        self.layer.add(&layer, 1.0);
    }

    pub fn blob(&mut self, center: Point, radii: Point, value: f32, power: f32) {
        let scale = self.frame.pixels();
        self.layer.blob(self.frame.map(center), [radii[0] * scale, radii[1] * scale], 0.0, value, power);
    }

    pub fn stroke(&mut self, line: &[Point], radius: impl Fn(f32) -> f32, profile: impl Fn(f32) -> f32) {
        let scale = self.frame.pixels();
        self.layer.stroke(&self.frame.map_all(line), |t| radius(t) * scale, profile);
    }
}

/// Stroke profile of a solid rod.
pub(crate) fn rod(value: f32) -> impl Fn(f32) -> f32 {
    move |r| value * (1.0 - r * r).max(0.0).sqrt()
}

/// Stroke profile of a bone: bright cortex, darker marrow.
pub(crate) fn tube(value: f32, cortex: f32) -> impl Fn(f32) -> f32 {
    move |r| {
        let outer = (1.0 - r * r).max(0.0).sqrt();
        let inner = (0.64 - r * r).max(0.0).sqrt();
        value * (outer - (1.0 - cortex) * inner)
    }
}

/// A smooth curve through control points (Catmull-Rom), with `steps` points for each span.
pub(crate) fn spline(points: &[Point], steps: usize, closed: bool) -> Vec<Point> {
    let count = points.len();
    let at = |i: isize| {
        if closed { points[i.rem_euclid(count as isize) as usize] } else { points[i.clamp(0, count as isize - 1) as usize] }
    };
    let spans = if closed { count } else { count - 1 };
    let mut out = Vec::with_capacity(spans * steps + 1);
    for span in 0..spans as isize {
        let (p0, p1, p2, p3) = (at(span - 1), at(span), at(span + 1), at(span + 2));
        for step in 0..steps {
            let t = step as f32 / steps as f32;
            out.push([0, 1].map(|k| {
                let (a, b, c, d) = (p0[k], p1[k], p2[k], p3[k]);
                0.5 * (2.0 * b + (c - a) * t + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t + (3.0 * b - a - 3.0 * c + d) * t * t * t)
            }));
        }
    }
    if !closed {
        out.push(points[count - 1]);
    }
    out
}
