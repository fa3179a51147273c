//! The numbers in which models write boxes.

use anatomix::PixelBox;
use anatomix::parts::geometry::{Letterbox, PROMPT_GRID};

/// The part of an image that coordinates are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The image, each axis by itself.
    Image,
    /// The image, padded to a square.
    Square,
    /// The square in the middle of the image: the model does not see what lies outside. Corners are whole pixels.
    Crop,
}

/// How a coordinate is rounded when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest hundredth.
    Hundredths,
    /// To the nearest integer.
    Nearest,
    /// Down to an integer.
    Down,
    /// To one of as many bins as the scale says; a bin is read as its middle.
    Bins,
}

/// A convention for the four numbers of a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Convention {
    /// What the numbers are relative to.
    pub frame: Frame,
    /// The number at the frame's right and bottom edge; that at the left and top edge is 0.
    pub scale: f64,
    /// How numbers are rounded.
    pub rounding: Rounding,
    /// Whether y comes before x in each corner.
    pub rows_first: bool,
}

impl Convention {
    /// Integers 0..=1024 over the padded square: AnatomiX.
    pub const GRID: Self = Self { frame: Frame::Square, scale: PROMPT_GRID as f64, rounding: Rounding::Down, rows_first: false };
    /// Fractions of width and height with two decimals: RadVLM.
    pub const FRACTIONS: Self = Self { frame: Frame::Image, scale: 1.0, rounding: Rounding::Hundredths, rows_first: false };
    /// One of 100 bins of the central square: MAIRA-2.
    pub const BINS: Self = Self { frame: Frame::Crop, scale: 100.0, rounding: Rounding::Bins, rows_first: false };
    /// Integers 0..=100 over width and height: CheXagent.
    pub const PERCENT: Self = Self { frame: Frame::Image, scale: 100.0, rounding: Rounding::Nearest, rows_first: false };
    /// Integers 0..=1000 over the padded square, y first: MedGemma.
    pub const THOUSANDTHS: Self = Self { frame: Frame::Square, scale: 1000.0, rounding: Rounding::Nearest, rows_first: true };

    /// The box in pixels of the image, inside it, with `x0 <= x1` and `y0 <= y1` whichever corners were written. `None` if a number is
    /// outside of the convention's range.
    pub fn read(self, numbers: [f64; 4], letterbox: &Letterbox) -> Option<PixelBox> {
        let (middle, last) = if self.rounding == Rounding::Bins { (0.5, self.scale - 1.0) } else { (0.0, self.scale) };
        if numbers.iter().any(|number| !(0.0..=last).contains(number)) {
            return None;
        }
        let [a, b, c, d] = numbers.map(|number| (number + middle) / self.scale);
        let [xs, ys] = if self.rows_first { [[b, d], [a, c]] } else { [[a, c], [b, d]] };
        let (left, top, width, height) = self.area(letterbox);
        let edges = |[a, b]: [f64; 2], start: f64, length: f64, size: u32| {
            let at = |fraction: f64| {
                let pixel = fraction * length + start;
                (if self.frame == Frame::Crop { pixel.trunc() } else { pixel }).clamp(0.0, f64::from(size)) as f32
            };
            (at(a.min(b)), at(a.max(b)))
        };
        let ((x0, x1), (y0, y1)) = (edges(xs, left, width, letterbox.width), edges(ys, top, height, letterbox.height));
        Some(PixelBox::new(x0, y0, x1, y1))
    }

    /// The numbers of a box. A box that reaches out of the frame ends at its edge.
    pub fn write(self, bounds: &PixelBox, letterbox: &Letterbox) -> [f64; 4] {
        let (left, top, width, height) = self.area(letterbox);
        let number = |pixel: f32, start: f64, length: f64| {
            let number = ((f64::from(pixel) - start) / length).clamp(0.0, 1.0) * self.scale;
            match self.rounding {
                Rounding::Hundredths => (number * 100.0).round() / 100.0,
                Rounding::Nearest => number.round(),
                Rounding::Down => number.floor(),
                Rounding::Bins => number.floor().min(self.scale - 1.0),
            }
        };
        let [x0, x1] = [bounds.x0, bounds.x1].map(|x| number(x, left, width));
        let [y0, y1] = [bounds.y0, bounds.y1].map(|y| number(y, top, height));
        if self.rows_first { [y0, x0, y1, x1] } else { [x0, y0, x1, y1] }
    }

    /// Left and top edge, width and height of the frame in pixels of the image.
    fn area(self, letterbox: &Letterbox) -> (f64, f64, f64, f64) {
        let (width, height) = (letterbox.width.max(1), letterbox.height.max(1));
        match self.frame {
            Frame::Image => (0.0, 0.0, f64::from(width), f64::from(height)),
            Frame::Square => {
                let ((x, y), side) = (letterbox.offset(), f64::from(letterbox.side().max(1)));
                (-f64::from(x), -f64::from(y), side, side)
            }
            Frame::Crop => {
                let side = width.min(height);
                (f64::from((width - side) / 2), f64::from((height - side) / 2), f64::from(side), f64::from(side))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Letterbox = Letterbox { width: 2000, height: 1000 };

    #[test]
    fn numbers_are_relative_to_the_frame() {
        // A box that covers a tenth of the width and a fifth of the height.
        let bounds = PixelBox::new(900.0, 400.0, 1100.0, 600.0);
        for (convention, numbers) in [
            // The square's side is 2000, with 500 above the image.
            (Convention::GRID, [460.0, 460.0, 563.0, 563.0]),
            (Convention::FRACTIONS, [0.45, 0.4, 0.55, 0.6]),
            // The central square begins at 500 and is 1000 wide.
            (Convention::BINS, [40.0, 40.0, 60.0, 60.0]),
            (Convention::PERCENT, [45.0, 40.0, 55.0, 60.0]),
            (Convention::THOUSANDTHS, [450.0, 450.0, 550.0, 550.0]),
        ] {
            assert_eq!(convention.write(&bounds, &WIDE), numbers, "{convention:?}");
            let read = convention.read(numbers, &WIDE).unwrap();
            // A bin is 10 pixels wide, and a box may be shifted by half of one.
            assert!(read.iou(&bounds) > 0.9, "{convention:?} {read}");
        }
        // Rows come first.
        let tall = PixelBox::new(0.0, 0.0, 200.0, 1000.0);
        assert_eq!(Convention::THOUSANDTHS.write(&tall, &WIDE), [250.0, 0.0, 750.0, 100.0]);
        assert_eq!(Convention::THOUSANDTHS.read([250.0, 0.0, 750.0, 100.0], &WIDE), Some(tall));
        // A bin is read as its middle, and corners are whole pixels: (0.555 * 1000 + 500, 0.455 * 1000).
        let read = Convention::BINS.read([55.0, 45.0, 70.0, 56.0], &WIDE);
        assert_eq!(read, Some(PixelBox::new(1055.0, 455.0, 1205.0, 565.0)));
    }

    #[test]
    fn corners_in_any_order_are_read_and_wrong_numbers_are_not() {
        let read = |numbers| Convention::PERCENT.read(numbers, &WIDE);
        assert_eq!(read([50.0, 60.0, 10.0, 20.0]), Some(PixelBox::new(200.0, 200.0, 1000.0, 600.0)));
        for wrong in [[0.0, 0.0, 101.0, 1.0], [-1.0, 0.0, 1.0, 1.0], [f64::NAN, 0.0, 1.0, 1.0], [0.0, f64::INFINITY, 1.0, 1.0]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(
            (Convention::BINS.read([0.0, 0.0, 100.0, 9.0], &WIDE), Convention::FRACTIONS.read([0.0, 0.0, 1.01, 1.0], &WIDE)),
            (None, None)
        );
        // An image without pixels does not divide by zero.
        assert!(Convention::GRID.write(&PixelBox::default(), &Letterbox::new(0, 0)).iter().all(|number| number.is_finite()));
    }

    #[test]
    fn what_is_outside_of_the_frame_ends_at_its_edge() {
        let bounds = PixelBox::new(0.0, 0.0, 700.0, 1000.0);
        assert_eq!(Convention::BINS.write(&bounds, &WIDE), [0.0, 0.0, 20.0, 99.0]);
        // Padding is not part of the image.
        assert_eq!(Convention::GRID.read([0.0, 0.0, 1024.0, 1024.0], &WIDE), Some(PixelBox::new(0.0, 0.0, 2000.0, 1000.0)));
    }
}
