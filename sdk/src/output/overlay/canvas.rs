//! Drawing of rectangles, lines and text; shapes are antialiased by their signed distance.

use ab_glyph::{Font, FontRef, PxScale};
use image::{Rgb, RgbImage};

/// The font DejaVu Sans, reduced to Latin letters; its licence is in `sdk/assets/`.
pub const FONT: &[u8] = include_bytes!("../../../assets/DejaVuSans.ttf");

/// A rectangle in pixels of the canvas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub x0: f32,
    pub y0: f32,
    pub x1: f32,
    pub y1: f32,
}

impl Area {
    pub fn new(x0: f32, y0: f32, x1: f32, y1: f32) -> Self {
        Self { x0, y0, x1, y1 }
    }

    pub fn width(&self) -> f32 {
        self.x1 - self.x0
    }

    pub fn height(&self) -> f32 {
        self.y1 - self.y0
    }

    pub fn center(&self) -> [f32; 2] {
        [(self.x0 + self.x1) / 2.0, (self.y0 + self.y1) / 2.0]
    }

    fn grown(&self, by: f32) -> Self {
        Self::new(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)
    }

    /// Signed distance to the edge of this rectangle with rounded corners; negative inside.
    fn distance(&self, x: f32, y: f32, radius: f32) -> f32 {
        let [cx, cy] = self.center();
        let radius = radius.min(self.width() / 2.0).min(self.height() / 2.0);
        let dx = (x - cx).abs() - self.width() / 2.0 + radius;
        let dy = (y - cy).abs() - self.height() / 2.0 + radius;
        length(dx.max(0.0), dy.max(0.0)) + dx.max(dy).min(0.0) - radius
    }
}

/// Length of a vector in pixels. `f32::hypot` would make the library need glibc 2.35.
fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// A colour with its opacity, 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Paint {
    pub color: [u8; 3],
    pub opacity: f32,
}

impl Paint {
    pub const fn new(color: [u8; 3], opacity: f32) -> Self {
        Self { color, opacity }
    }
}

pub(super) struct Canvas {
    pub image: RgbImage,
    font: FontRef<'static>,
}

impl Canvas {
    pub fn new(width: u32, height: u32, color: [u8; 3]) -> Self {
        Self { image: RgbImage::from_pixel(width, height, Rgb(color)), font: font() }
    }

    /// Blends a paint into the pixels that `within` touches; `coverage` gives 0..1 for the centre of each pixel.
    fn blend(&mut self, within: Area, paint: Paint, coverage: impl Fn(f32, f32) -> f32) {
        let limit = |v: f32, max: u32| v.clamp(0.0, max as f32) as u32;
        let (width, height) = self.image.dimensions();
        let (left, right) = (limit(within.x0.floor(), width), limit(within.x1.ceil(), width));
        let (top, bottom) = (limit(within.y0.floor(), height), limit(within.y1.ceil(), height));
        for y in top..bottom {
            for x in left..right {
                let share = coverage(x as f32 + 0.5, y as f32 + 0.5) * paint.opacity;
                if share > 0.0 {
                    let Rgb(pixel) = self.image.get_pixel_mut(x, y);
                    for (below, above) in pixel.iter_mut().zip(paint.color) {
                        *below = (f32::from(*below) + (f32::from(above) - f32::from(*below)) * share).round() as u8;
                    }
                }
            }
        }
    }

    /// Fills a rectangle with rounded corners.
    pub fn fill(&mut self, area: Area, radius: f32, paint: Paint) {
        self.blend(area, paint, |x, y| (0.5 - area.distance(x, y, radius)).clamp(0.0, 1.0));
    }

    /// Draws the outline of a rectangle with rounded corners; the line is centred on the edge.
    pub fn outline(&mut self, area: Area, radius: f32, width: f32, paint: Paint) {
        let line = |x, y| (width / 2.0 + 0.5 - area.distance(x, y, radius).abs()).clamp(0.0, 1.0);
        self.blend(area.grown(width / 2.0 + 1.0), paint, line);
    }

    /// Draws a straight line with round ends.
    pub fn line(&mut self, from: [f32; 2], to: [f32; 2], width: f32, paint: Paint) {
        let [ax, ay] = from;
        let (dx, dy) = (to[0] - ax, to[1] - ay);
        let squared = (dx * dx + dy * dy).max(f32::EPSILON);
        let bounds = Area::new(ax.min(to[0]), ay.min(to[1]), ax.max(to[0]), ay.max(to[1])).grown(width / 2.0 + 1.0);
        self.blend(bounds, paint, |x, y| {
            let along = (((x - ax) * dx + (y - ay) * dy) / squared).clamp(0.0, 1.0);
            let distance = length(x - ax - along * dx, y - ay - along * dy);
            (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0)
        });
    }

    /// Fills a circle.
    pub fn dot(&mut self, center: [f32; 2], radius: f32, paint: Paint) {
        let [x, y] = center;
        self.fill(Area::new(x - radius, y - radius, x + radius, y + radius), radius, paint);
    }

    /// Draws one line of text; `y` is the middle of its capital letters.
    pub fn text(&mut self, x: f32, y: f32, size: f32, color: [u8; 3], text: &str) {
        // In this font, capitals extend from 0.15 to 0.78 of the line's height.
        let top = y - 0.47 * size;
        let text = self.printable(text);
        let position = (x.round() as i32, top.round() as i32);
        imageproc::drawing::draw_text_mut(&mut self.image, Rgb(color), position.0, position.1, PxScale::from(size), &self.font, &text);
    }

    /// Width of a line of text in pixels.
    pub fn text_width(&self, size: f32, text: &str) -> f32 {
        imageproc::drawing::text_size(PxScale::from(size), &self.font, &self.printable(text)).0 as f32
    }

    /// Returns the text, cut and with an ellipsis if it is wider than `width` pixels.
    pub fn shorten(&self, text: &str, size: f32, width: f32) -> String {
        if self.text_width(size, text) <= width {
            return text.into();
        }
        let mut kept: Vec<char> = text.chars().collect();
        while kept.pop().is_some() {
            let line = format!("{}…", kept.iter().collect::<String>().trim_end());
            if self.text_width(size, &line) <= width {
                return line;
            }
        }
        String::new()
    }

    /// Breaks the text into at most `max_lines` lines of at most `width` pixels; lines that are still too wide are shortened.
    pub fn wrap(&self, text: &str, size: f32, width: f32, max_lines: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.text_width(size, &format!("{line} {word}")) > width => lines.push(word.into()),
                Some(line) => {
                    line.push(' ');
                    line.push_str(word);
                }
                None => lines.push(word.into()),
            }
        }
        if lines.len() > max_lines {
            let rest = lines.split_off(max_lines.saturating_sub(1)).join(" ");
            lines.push(rest);
        }
        lines.iter().map(|line| self.shorten(line, size, width)).collect()
    }

    /// Replaces characters that the font lacks by question marks, and cuts the text after 400 characters to bound the time.
    fn printable(&self, text: &str) -> String {
        let known = |c: char| if self.font.glyph_id(c).0 == 0 { '?' } else { c };
        text.chars().take(400).map(known).collect()
    }
}

fn font() -> FontRef<'static> {
    FontRef::try_from_slice(FONT).unwrap_or_else(|_| unreachable!("the font is part of this library and a test reads it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Paint = Paint::new([255; 3], 1.0);

    #[test]
    fn shapes_stay_on_the_canvas() {
        let mut canvas = Canvas::new(20, 10, [0; 3]);
        canvas.fill(Area::new(-50.0, -50.0, 500.0, 500.0), 4.0, WHITE);
        canvas.outline(Area::new(-5.0, -5.0, 50.0, 5.0), 3.0, 2.0, WHITE);
        canvas.line([-10.0, -10.0], [100.0, 100.0], 3.0, WHITE);
        canvas.text(-5.0, 9.0, 16.0, [255; 3], "out of it");
        assert!(canvas.image.pixels().all(|p| p.0 == [255; 3]));
    }

    #[test]
    fn a_half_covered_pixel_is_half_bright() {
        let mut canvas = Canvas::new(4, 4, [0; 3]);
        canvas.fill(Area::new(1.0, -9.0, 2.5, 9.0), 0.0, WHITE);
        let row: Vec<u8> = (0..4).map(|x| canvas.image.get_pixel(x, 2).0[0]).collect();
        assert_eq!(row, [0, 255, 128, 0]);
    }

    #[test]
    fn long_texts_are_shortened() {
        let canvas = Canvas::new(1, 1, [0; 3]);
        let short = canvas.shorten("a name that is much too long", 16.0, 80.0);
        assert!(short.ends_with('…') && canvas.text_width(16.0, &short) <= 80.0, "{short}");
        assert_eq!(canvas.shorten("short", 16.0, 80.0), "short");
        assert_eq!(canvas.shorten("none of it", 16.0, 0.0), "");
        let lines = canvas.wrap("consolidation, lung opacity and pleural effusion", 16.0, 150.0, 2);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| canvas.text_width(16.0, line) <= 150.0), "{lines:?}");
        assert_eq!(canvas.printable("흉부 x"), "?? x");
    }
}
