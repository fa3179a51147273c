//! Elements of a data set.

use crate::geometry::PixelBox;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use std::fmt::{Display, LowerExp};

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

/// An element with a decimal number. What was read from a decimal string of a header is written with the same value.
pub(super) fn decimal(tag: Tag, value: f64) -> InMemElement {
    text(tag, VR::DS, &decimal_string(value))
}

/// A finite number as a decimal string, of at most 16 characters (DICOM PS3.5, 6.2): a text that is read as the same number if one fits,
/// else with as many digits as fit.
pub(super) fn decimal_string(value: impl LowerExp + Display) -> String {
    let rounded = |digits| format!("{value:.digits$e}").parse::<f64>().ok().filter(|value| value.is_finite()).and_then(fitting);
    fitting(&value).or_else(|| (0..16).rev().find_map(rounded)).unwrap_or_default()
}

/// The first of four ways to write a number that has at most 16 characters.
fn fitting(value: impl LowerExp + Display) -> Option<String> {
    let (plain, scientific) = (value.to_string(), format!("{value:e}"));
    // A zero before the point may be left out, and so may the point.
    let bare = plain.replacen("0.", ".", usize::from(plain.starts_with("0.") || plain.starts_with("-0.")));
    let whole = scientific.split_once('e').and_then(|(digits, exponent)| {
        let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len() as i32);
        Some(format!("{}e{}", digits.replace('.', ""), exponent.parse::<i32>().ok()? - decimals))
    });
    [Some(plain), Some(bare), Some(scientific), whole].into_iter().flatten().find(|text| text.len() <= 16)
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
    use super::{decimal_string, line, lines};
    use proptest::prelude::*;

    #[test]
    fn words_stay_apart() {
        assert_eq!(lines("left\tlung\u{7}right\r\nlung\\"), "left lung right\r\nlung\\");
        assert_eq!(line(" left lung\nright\tlung\\both? ", 99), "left lung right lung/both?");
        assert_eq!(line("éééé", 3), "ééé");
    }

    #[test]
    fn decimal_numbers_fit() {
        let written = [30000.0, -0.5, -0.123_456_789_012_34, 1e-9, 1.234_567_890_12e106, 0.1 + 0.2, 1.0 / 3.0].map(decimal_string);
        let expected = ["30000", "-0.5", "-.12345678901234", "0.000000001", "123456789012e95", "0.3", ".333333333333333"];
        assert_eq!(written.each_ref().map(String::as_str), expected);
        for value in [f64::MIN, f64::MAX, f64::MIN_POSITIVE, -1.234_567_890_123e-300] {
            let text = decimal_string(value);
            assert!(text.len() <= 16 && (text.parse::<f64>().unwrap() / value - 1.0).abs() < 1e-8, "{text}");
        }
    }

    /// Decimal strings that a header may hold: with a point, with an exponent, with both.
    const DECIMAL: &str = concat!(
        r"[+-]?([0-9]{1,15}|[0-9]{0,7}\.[0-9]{1,7}|\.[0-9]{1,14}|",
        r"[0-9]{1,5}\.[0-9]{1,5}e[+-]?[0-9]{1,2}|[0-9]{1,11}e-[0-9]{1,2})"
    );

    proptest! {
        #[test]
        fn numbers_are_read_as_they_were(single in any::<f32>(), text in DECIMAL) {
            prop_assume!(single.is_finite());
            let written = decimal_string(single);
            prop_assert!(written.len() <= 16 && written.parse() == Ok(single), "{single}: {written}");
            let value: f64 = text.parse().unwrap();
            let written = decimal_string(value);
            prop_assert!(text.len() <= 16 && written.len() <= 16 && written.parse() == Ok(value), "{text}: {written}");
        }
    }
}
