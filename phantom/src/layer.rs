//! A floating-point picture and its drawing operations.

use crate::frame::Point;
use rand::{Rng, RngExt};

/// A picture of `f32` values, row by row.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height` values.
    pub data: Vec<f32>,
}

impl Layer {
    /// Makes a picture of zeros.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, data: vec![0.0; width as usize * height as usize] }
    }

    /// Adds `scale` times another picture of the same size.
    pub fn add(&mut self, other: &Self, scale: f32) {
        for (a, b) in self.data.iter_mut().zip(&other.data) {
            *a += scale * b;
        }
    }

    /// Multiplies by another picture of the same size.
    pub fn multiply(&mut self, other: &Self) {
        for (a, b) in self.data.iter_mut().zip(&other.data) {
            *a *= b;
        }
    }

    /// Applies a function to every value.
    pub fn map(&mut self, f: impl Fn(f32) -> f32) {
        for value in &mut self.data {
            *value = f(*value);
        }
    }

    fn row(&mut self, y: usize) -> &mut [f32] {
        let width = self.width as usize;
        &mut self.data[y * width..(y + 1) * width]
    }

    /// Adds an antialiased filled polygon in pixel coordinates; the last point is connected to the first.
    pub fn fill(&mut self, polygon: &[Point], value: f32) {
        const SUB: usize = 3;
        let top = polygon.iter().map(|p| p[1]).fold(f32::MAX, f32::min).max(0.0) as usize;
        let bottom = polygon.iter().map(|p| p[1]).fold(f32::MIN, f32::max).clamp(0.0, self.height as f32);
        let width = self.width as f32;
        let mut crossings = Vec::new();
        for y in top..(bottom.ceil() as usize).min(self.height as usize) {
            for sub in 0..SUB {
                let scan = y as f32 + (sub as f32 + 0.5) / SUB as f32;
                crossings.clear();
                for (i, a) in polygon.iter().enumerate() {
                    let b = polygon[(i + 1) % polygon.len()];
                    if (a[1] <= scan) != (b[1] <= scan) {
                        crossings.push(a[0] + (scan - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
                    }
                }
                crossings.sort_by(f32::total_cmp);
                let row = self.row(y);
                for pair in crossings.chunks_exact(2) {
                    let (from, to) = (pair[0].clamp(0.0, width), pair[1].clamp(0.0, width));
                    let (first, last) = (from as usize, (to.ceil() as usize).min(row.len()));
                    for (x, out) in row[first.min(last)..last].iter_mut().enumerate() {
                        let left = (first + x) as f32;
                        *out += value / SUB as f32 * ((left + 1.0).min(to) - left.max(from)).clamp(0.0, 1.0);
                    }
                }
            }
        }
    }

    /// Adds a stroke along a polyline. `radius` gives pixels for a position along the line, 0..1; `profile` gives the value for a relative
    /// distance from the axis (0) to the edge (1).
    pub fn stroke(&mut self, line: &[Point], radius: impl Fn(f32) -> f32, profile: impl Fn(f32) -> f32) {
        if line.len() < 2 {
            return;
        }
        let widest = (0..=8).map(|i| radius(i as f32 / 8.0)).fold(0.0, f32::max) + 1.0;
        let bound = |axis: usize, size: u32| {
            let low = line.iter().map(|p| p[axis]).fold(f32::MAX, f32::min) - widest;
            let high = line.iter().map(|p| p[axis]).fold(f32::MIN, f32::max) + widest;
            (low.clamp(0.0, size as f32) as usize, high.ceil().clamp(0.0, size as f32) as usize)
        };
        let ((left, right), (top, bottom)) = (bound(0, self.width), bound(1, self.height));
        if left >= right || top >= bottom {
            return;
        }
        let width = right - left;
        let mut nearest = vec![f32::MAX; width * (bottom - top)];
        let count = (line.len() - 1) as f32;
        for (i, pair) in line.windows(2).enumerate() {
            let (a, b) = (pair[0], pair[1]);
            let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
            let length = (dx * dx + dy * dy).max(1e-6);
            let reach = radius(i as f32 / count).max(radius((i + 1) as f32 / count)) + 1.0;
            let span = |p: f32, q: f32, low: usize, high: usize| {
                let from = (p.min(q) - reach).floor().clamp(low as f32, high as f32) as usize;
                (from, (p.max(q) + reach).ceil().clamp(low as f32, high as f32) as usize)
            };
            let ((x0, x1), (y0, y1)) = (span(a[0], b[0], left, right), span(a[1], b[1], top, bottom));
            for y in y0..y1 {
                for x in x0..x1 {
                    let (px, py) = (x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]);
                    let t = ((px * dx + py * dy) / length).clamp(0.0, 1.0);
                    let (ex, ey) = (px - t * dx, py - t * dy);
                    let r = radius((i as f32 + t) / count).max(0.3);
                    let distance = (ex * ex + ey * ey).sqrt() / r;
                    let slot = &mut nearest[(y - top) * width + x - left];
                    *slot = slot.min(distance);
                }
            }
        }
        for y in top..bottom {
            let from = (y - top) * width;
            let row = &mut self.row(y)[left..right];
            for (out, &distance) in row.iter_mut().zip(&nearest[from..from + width]) {
                if distance < 1.0 {
                    *out += profile(distance);
                }
            }
        }
    }

    /// Adds an ellipse with the value `value * (1 - r^2)^power` at the relative radius `r`, 0..1; `angle` is in radians.
    pub fn blob(&mut self, center: Point, radii: Point, angle: f32, value: f32, power: f32) {
        let reach = radii[0].max(radii[1]);
        let (sin, cos) = libm::sincosf(angle);
        let span = |c: f32, size: u32| ((c - reach).clamp(0.0, size as f32) as usize, (c + reach).ceil().clamp(0.0, size as f32) as usize);
        let ((x0, x1), (y0, y1)) = (span(center[0], self.width), span(center[1], self.height));
        for y in y0..y1 {
            let row = self.row(y);
            for (x, out) in row.iter_mut().enumerate().take(x1).skip(x0) {
                let (dx, dy) = (x as f32 + 0.5 - center[0], y as f32 + 0.5 - center[1]);
                let (u, v) = ((dx * cos + dy * sin) / radii[0], (dy * cos - dx * sin) / radii[1]);
                let inside = 1.0 - u * u - v * v;
                if inside > 0.0 {
                    *out += value * libm::powf(inside, power);
                }
            }
        }
    }

    /// Gaussian blur, approximated by three box blurs; `sigma` is in pixels. The approximation is good for 0.6 pixels and more.
    pub fn blur(&mut self, sigma: f32) {
        let radius = (((4.0 * sigma * sigma + 1.0).sqrt() - 1.0) / 2.0).round() as usize;
        if radius == 0 {
            if sigma > 0.25 {
                self.soften((sigma / 1.2).min(0.5));
            }
            return;
        }
        let (width, height) = (self.width as usize, self.height as usize);
        let mut line = vec![0.0; width.max(height)];
        for _ in 0..3 {
            for y in 0..height {
                box_blur(&mut self.data[y * width..(y + 1) * width], 1, width, radius, &mut line);
            }
            for x in 0..width {
                box_blur(&mut self.data[x..], width, height, radius, &mut line);
            }
        }
    }

    /// Blurs with the four neighbours, which have the weight `amount`, 0..0.5, together.
    fn soften(&mut self, amount: f32) {
        let (width, height) = (self.width as usize, self.height as usize);
        let source = self.data.clone();
        for y in 0..height {
            for x in 0..width {
                let at = |x: usize, y: usize| source[y * width + x];
                let around = at(x.saturating_sub(1), y)
                    + at((x + 1).min(width - 1), y)
                    + at(x, y.saturating_sub(1))
                    + at(x, (y + 1).min(height - 1));
                self.data[y * width + x] = (1.0 - amount) * at(x, y) + amount * around / 4.0;
            }
        }
    }

    /// Smooth noise with zero mean, about -1..1: random values on a grid of `cell` pixels, interpolated. Each further octave has half the
    /// cell size and half the amplitude.
    pub fn noise(width: u32, height: u32, cell: f32, octaves: u32, rng: &mut impl Rng) -> Self {
        let mut out = Self::new(width, height);
        let mut amplitude = 1.0;
        let mut cell = cell.max(1.5);
        for _ in 0..octaves {
            let columns = (width as f32 / cell) as usize + 2;
            let rows = (height as f32 / cell) as usize + 2;
            let grid: Vec<f32> = (0..columns * rows).map(|_| rng.random_range(-1.0..1.0)).collect();
            for y in 0..height as usize {
                let v = y as f32 / cell;
                let (j, fy) = (v as usize, smooth(v.fract()));
                let row = out.row(y);
                for (x, value) in row.iter_mut().enumerate() {
                    let u = x as f32 / cell;
                    let (i, fx) = (u as usize, smooth(u.fract()));
                    let at = |di: usize, dj: usize| grid[(j + dj) * columns + i + di];
                    let upper = at(0, 0) + fx * (at(1, 0) - at(0, 0));
                    let lower = at(0, 1) + fx * (at(1, 1) - at(0, 1));
                    *value += amplitude * (upper + fy * (lower - upper));
                }
            }
            amplitude *= 0.5;
            cell = (cell / 2.0).max(1.5);
        }
        out
    }
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

fn box_blur(data: &mut [f32], stride: usize, count: usize, radius: usize, line: &mut [f32]) {
    for (i, value) in line.iter_mut().enumerate().take(count) {
        *value = data[i * stride];
    }
    let last = count - 1;
    let scale = 1.0 / (2 * radius + 1) as f32;
    let mut sum: f32 = line[0] * radius as f32;
    sum += (0..=radius).map(|i| line[i.min(last)]).sum::<f32>();
    for i in 0..count {
        data[i * stride] = sum * scale;
        sum += line[(i + radius + 1).min(last)] - line[i.saturating_sub(radius)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polygon_area_is_exact() {
        let mut layer = Layer::new(40, 40);
        layer.fill(&[[5.0, 5.0], [25.5, 5.0], [25.5, 25.0], [5.0, 25.0]], 2.0);
        let sum: f32 = layer.data.iter().sum();
        assert!((sum - 2.0 * 20.5 * 20.0).abs() < 1.0, "{sum}");
    }

    #[test]
    fn blur_keeps_the_sum() {
        let mut layer = Layer::new(64, 64);
        layer.blob([32.0, 32.0], [6.0, 6.0], 0.0, 1.0, 1.0);
        let before: f32 = layer.data.iter().sum();
        layer.blur(3.0);
        let after: f32 = layer.data.iter().sum();
        assert!((before - after).abs() < 0.01 * before, "{before} {after}");
    }
}
