//! Elements of a data set.

use crate::geometry::PixelBox;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

/// An element with a text. An empty one has no value, as elements of type 2 may.
pub(super) fn text(tag: Tag, vr: VR, value: &str) -> InMemElement {
    let value = if value.is_empty() { PrimitiveValue::Empty } else { PrimitiveValue::from(value) };
    DataElement::new(tag, vr, value)
}

/// An element with single-precision numbers.
pub(super) fn floats(tag: Tag, values: &[f32]) -> InMemElement {
    DataElement::new(tag, VR::FL, PrimitiveValue::F32(values.into()))
}

/// An element with words of 16 bits. Those of `VR::SS` are in two's complement.
pub(super) fn words(tag: Tag, vr: VR, values: &[u16]) -> InMemElement {
    let value = match vr {
        VR::SS => PrimitiveValue::I16(values.iter().map(|&word| word as i16).collect()),
        _ => PrimitiveValue::U16(values.into()),
    };
    DataElement::new(tag, vr, value)
}

/// An element with whole numbers of 32 bits.
pub(super) fn integers(tag: Tag, values: &[i32]) -> InMemElement {
    DataElement::new(tag, VR::SL, PrimitiveValue::I32(values.into()))
}

/// An element with a decimal number, rounded to the nine digits that always fit.
pub(super) fn decimal(tag: Tag, value: f64) -> InMemElement {
    let rounded = format!("{value:.8e}");
    let plain = rounded.parse().map_or_else(|_| String::new(), |value: f64| value.to_string());
    text(tag, VR::DS, if plain.len() <= 16 { &plain } else { &rounded })
}

/// The closed polygon with the corners of a box.
pub(super) fn corners(&PixelBox { x0, y0, x1, y1 }: &PixelBox) -> [f32; 10] {
    [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0]
}

/// A text of several lines. Control characters other than ends of lines become spaces.
pub(super) fn lines(text: &str) -> String {
    text.lines().map(without_controls).collect::<Vec<_>>().join("\r\n")
}

/// A text of one line, of at most this many characters. A backslash would separate values.
pub(super) fn line(text: &str, most: usize) -> String {
    without_controls(text.trim()).replace('\\', "/").chars().take(most).collect()
}

fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A sequence.
pub(super) fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> InMemElement {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

/// An item of a sequence.
pub(super) fn item<const N: usize>(elements: [InMemElement; N]) -> InMemDicomObject {
    InMemDicomObject::from_element_iter(elements)
}

#[cfg(test)]
mod tests {
    use super::{decimal, line, lines};
    use dicom_dictionary_std::tags;

    #[test]
    fn words_stay_apart() {
        assert_eq!(lines("left\tlung\u{7}right\r\nlung\\"), "left lung right\r\nlung\\");
        assert_eq!(line(" left lung\nright\tlung\\both? ", 99), "left lung right lung/both?");
        assert_eq!(line("éééé", 3), "ééé");
    }

    #[test]
    fn decimal_numbers_fit() {
        let written = |value| decimal(tags::WINDOW_WIDTH, value).to_str().unwrap().into_owned();
        assert_eq!([30000.0, -0.5, 0.1 + 0.2].map(written).each_ref().map(String::as_str), ["30000", "-0.5", "0.3"]);
        for value in [f64::MIN, f64::MAX, f64::MIN_POSITIVE, -1.234_567_890_123e-300, 1.0 / 3.0] {
            let text = written(value);
            assert!(text.len() <= 16 && (text.parse::<f64>().unwrap() / value - 1.0).abs() < 1e-8, "{text}");
        }
    }
}
