//! Boxes of data sets: checked, clipped to the image, and scaled if the image is a smaller or larger copy of the one they are for.

use super::skipped::{At, Reason, Skipped};
use anatomix::PixelBox;

/// The part of a box inside an image. A box that is not a number, is empty or lies outside is noted and `None`; clipping is noted, too.
pub fn inside(corners: [f64; 4], (width, height): (u32, u32), at: At, skipped: &mut Skipped) -> Option<PixelBox> {
    let [x0, y0, x1, y1] = corners;
    let shown = || format!("({x0},{y0})-({x1},{y1}) in {width} x {height} pixels");
    if !corners.iter().all(|v| v.is_finite()) || x1 <= x0 || y1 <= y0 {
        skipped.note(Reason::BoxInvalid, at, format!("the box {} is empty or not a number", shown()));
        return None;
    }
    let (w, h) = (f64::from(width), f64::from(height));
    let clipped = [x0.clamp(0.0, w), y0.clamp(0.0, h), x1.clamp(0.0, w), y1.clamp(0.0, h)];
    if clipped[2] <= clipped[0] || clipped[3] <= clipped[1] {
        skipped.note(Reason::BoxInvalid, at, format!("the box {} lies outside", shown()));
        return None;
    }
    // Half a pixel is rounding.
    if clipped.iter().zip(corners).any(|(a, b)| (a - b).abs() > 0.5) {
        skipped.note(Reason::BoxClipped, at, format!("the box {}", shown()));
    }
    Some(clipped.map(|v| v as f32).into())
}

/// The factors from pixels of the annotated image to pixels of the file, which may be a copy of another size. `None`, and noted, if its
/// proportions differ.
pub fn scale(annotated: (f64, f64), (width, height): (u32, u32), at: At, skipped: &mut Skipped) -> Option<[f64; 2]> {
    let factors = [f64::from(width) / annotated.0, f64::from(height) / annotated.1];
    let [x, y] = factors;
    // A copy's shorter side is rounded to a pixel.
    let rounding = 1.0 / f64::from(width.min(height).max(1));
    if !(x.is_finite() && y.is_finite() && x > 0.0 && (x / y - 1.0).abs() <= 0.005 + rounding) {
        let (w, h) = annotated;
        skipped.note(Reason::ImageOther, at, format!("the annotations are for {w} x {h} pixels, the image has {width} x {height}"));
        return None;
    }
    Some(factors)
}

/// Merges boxes until no two have an IoU above 0.1: such two are replaced by their hull.
pub fn merge(mut boxes: Vec<PixelBox>) -> Vec<PixelBox> {
    const OVERLAP: f32 = 0.1;
    loop {
        let overlap = (0..boxes.len()).flat_map(|b| (0..b).map(move |a| (a, b))).find(|&(a, b)| boxes[a].iou(&boxes[b]) > OVERLAP);
        let Some((a, b)) = overlap else { return boxes };
        let other = boxes.remove(b);
        let one = &mut boxes[a];
        *one = PixelBox::new(one.x0.min(other.x0), one.y0.min(other.y0), one.x1.max(other.x1), one.y1.max(other.y1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn boxes_are_checked_and_clipped() {
        let mut skipped = Skipped::default();
        let at = At::file(Path::new("f"));
        let mut check = |corners| inside(corners, (100, 50), at, &mut skipped);
        assert_eq!(check([1.0, 2.0, 30.0, 40.0]), Some(PixelBox::new(1.0, 2.0, 30.0, 40.0)));
        assert_eq!(check([-9.0, 2.0, 30.0, 90.0]), Some(PixelBox::new(0.0, 2.0, 30.0, 50.0)));
        for bad in [
            [f64::NAN, 0.0, 9.0, 9.0],
            [5.0, 5.0, 5.0, 9.0],
            [9.0, 5.0, 5.0, 9.0],
            [120.0, 0.0, 130.0, 9.0],
            [0.0, 0.0, f64::INFINITY, 9.0],
        ] {
            assert_eq!(check(bad), None, "{bad:?}");
        }
        assert_eq!((skipped.count(Reason::BoxInvalid), skipped.count(Reason::BoxClipped)), (5, 1));
    }

    #[test]
    fn copies_of_another_size_are_scaled() {
        let mut skipped = Skipped::default();
        let at = At::file(Path::new("f"));
        let mut factors = |annotated, size| scale(annotated, size, at, &mut skipped);
        assert_eq!(factors((2544.0, 3056.0), (2544, 3056)), Some([1.0, 1.0]));
        assert!(factors((2544.0, 3056.0), (426, 512)).is_some());
        for (annotated, size) in [((2544.0, 3056.0), (512, 512)), ((0.0, 0.0), (5, 5)), ((f64::NAN, 1.0), (5, 5)), ((-4.0, -4.0), (4, 4))] {
            assert_eq!(factors(annotated, size), None, "{annotated:?}");
        }
        assert_eq!(skipped.count(Reason::ImageOther), 4);
    }

    #[test]
    fn same_class_boxes_merge_to_their_hull() {
        let b = PixelBox::new;
        // The hull of the first two overlaps with the third.
        let boxes = vec![b(0.0, 0.0, 10.0, 10.0), b(5.0, 5.0, 15.0, 15.0), b(12.0, 0.0, 18.0, 12.0), b(50.0, 50.0, 60.0, 60.0)];
        assert_eq!(merge(boxes), [b(0.0, 0.0, 18.0, 15.0), b(50.0, 50.0, 60.0, 60.0)]);
        let apart = vec![b(0.0, 0.0, 10.0, 10.0), b(9.0, 0.0, 19.0, 10.0)];
        assert_eq!(merge(apart.clone()), apart);
    }
}
