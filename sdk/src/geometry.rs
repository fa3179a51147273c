//! Bounding boxes in pixels of the image and in the letterboxed square, and the conversion between the two.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest coordinate in the prompt, which writes coordinates as integers over the letterboxed square (paper, figure S1).
pub const PROMPT_GRID: u32 = 1024;

/// A box in pixels of the original image: origin at its top-left corner, x right, y down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct PixelBox {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

/// A box in the letterboxed square, coordinates 0..1 (x right, y down).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct NormalizedBox {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

macro_rules! corners {
    ($box:ident) => {
        impl $box {
            /// Makes a box from its corners.
            pub fn new(x0: f32, y0: f32, x1: f32, y1: f32) -> Self {
                Self { x0, y0, x1, y1 }
            }

            /// Width times height; 0 if `x1 < x0` or `y1 < y0`.
            pub fn area(&self) -> f32 {
                (self.x1 - self.x0).max(0.0) * (self.y1 - self.y0).max(0.0)
            }

            /// Intersection over union, 0..1.
            pub fn iou(&self, other: &Self) -> f32 {
                let width = self.x1.min(other.x1) - self.x0.max(other.x0);
                let height = self.y1.min(other.y1) - self.y0.max(other.y0);
                let intersection = width.max(0.0) * height.max(0.0);
                let union = self.area() + other.area() - intersection;
                if union > 0.0 { intersection / union } else { 0.0 }
            }
        }

        impl From<[f32; 4]> for $box {
            fn from([x0, y0, x1, y1]: [f32; 4]) -> Self {
                Self { x0, y0, x1, y1 }
            }
        }

        impl From<$box> for [f32; 4] {
            fn from(b: $box) -> Self {
                [b.x0, b.y0, b.x1, b.y1]
            }
        }
    };
}
corners!(PixelBox);
corners!(NormalizedBox);

impl fmt::Display for PixelBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:.0},{:.0})-({:.0},{:.0})", self.x0, self.y0, self.x1, self.y1)
    }
}

impl NormalizedBox {
    /// Makes a box from its centre and size, the form of the boxes from `apm.onnx`. The box is clamped to the square.
    pub fn from_center(cx: f32, cy: f32, w: f32, h: f32) -> Self {
        let edge = |v: f32| v.clamp(0.0, 1.0);
        Self::new(edge(cx - w / 2.0), edge(cy - h / 2.0), edge(cx + w / 2.0), edge(cy + h / 2.0))
    }

    /// Returns centre and size: `[cx, cy, w, h]`.
    pub fn to_center(&self) -> [f32; 4] {
        [(self.x0 + self.x1) / 2.0, (self.y0 + self.y1) / 2.0, self.x1 - self.x0, self.y1 - self.y0]
    }

    /// Converts to the prompt's grid: integers 0..=1024, truncated.
    pub fn to_grid(&self) -> [u32; 4] {
        <[f32; 4]>::from(*self).map(|v| (v.clamp(0.0, 1.0) * PROMPT_GRID as f32) as u32)
    }

    /// Converts from the prompt's grid; integers above 1024 count as 1024.
    pub fn from_grid(grid: [u32; 4]) -> Self {
        grid.map(|v| v.min(PROMPT_GRID) as f32 / PROMPT_GRID as f32).into()
    }
}

/// Conversion of boxes between an image and the square that it is zero-padded to. `floor(difference / 2)` of the padding is on the left
/// or top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letterbox {
    /// Width of the original image in pixels.
    pub width: u32,
    /// Height of the original image in pixels.
    pub height: u32,
}

impl Letterbox {
    /// Makes the letterbox of an image of this size in pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Side of the square in pixels of the original image.
    pub fn side(&self) -> u32 {
        self.width.max(self.height)
    }

    /// Position `(x, y)` of the image's top-left pixel in the square.
    pub fn offset(&self) -> (u32, u32) {
        ((self.side() - self.width) / 2, (self.side() - self.height) / 2)
    }

    /// Converts a box to the square.
    pub fn normalize(&self, b: &PixelBox) -> NormalizedBox {
        let (x, y) = self.offset();
        let (x, y, side) = (x as f32, y as f32, self.side() as f32);
        NormalizedBox::new((b.x0 + x) / side, (b.y0 + y) / side, (b.x1 + x) / side, (b.y1 + y) / side)
    }

    /// Converts a box back to the original image and clamps it to the image.
    pub fn restore(&self, b: &NormalizedBox) -> PixelBox {
        let (x, y) = self.offset();
        let side = self.side() as f32;
        let along_x = |v: f32| (v * side - x as f32).clamp(0.0, self.width as f32);
        let along_y = |v: f32| (v * side - y as f32).clamp(0.0, self.height as f32);
        PixelBox::new(along_x(b.x0), along_y(b.y0), along_x(b.x1), along_y(b.y1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn letterbox_inverts(width in 1u32..5000, height in 1u32..5000, a in 0f32..1.0, b in 0f32..1.0, c in 0f32..1.0, d in 0f32..1.0) {
            let letterbox = Letterbox::new(width, height);
            let (w, h) = (width as f32, height as f32);
            let original = PixelBox::new(a.min(b) * w, c.min(d) * h, a.max(b) * w, c.max(d) * h);
            let back = letterbox.restore(&letterbox.normalize(&original));
            for (x, y) in <[f32; 4]>::from(original).into_iter().zip(<[f32; 4]>::from(back)) {
                prop_assert!((x - y).abs() < 0.01);
            }
        }
    }

    #[test]
    fn iou_of_halves() {
        let a = PixelBox::new(0.0, 0.0, 2.0, 2.0);
        assert_eq!(a.iou(&PixelBox::new(1.0, 0.0, 2.0, 2.0)), 0.5);
        assert_eq!(a.iou(&PixelBox::new(3.0, 3.0, 2.0, 2.0)), 0.0);
        assert_eq!(NormalizedBox::from_grid([0, 512, 1024, 9999]).to_grid(), [0, 512, 1024, 1024]);
    }
}
