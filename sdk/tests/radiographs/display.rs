//! The display chain, from stored values to intensities.

use super::file::*;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;

#[test]
fn the_whole_range_is_stretched_without_a_window() {
    check(&File::new().open(), |i| (i * 3) as f64 / LAST);
    check(&File::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1").open(), |i| 1.0 - (i * 3) as f64 / LAST);
}

#[test]
fn polarity_is_turned_once() {
    let inverse = |file: File| file.text(tags::PRESENTATION_LUT_SHAPE, VR::CS, "INVERSE").open();
    check(&inverse(File::new()), |i| 1.0 - (i * 3) as f64 / LAST);
    let both = File::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
    check(&inverse(both), |i| 1.0 - (i * 3) as f64 / LAST);
}

#[test]
fn every_depth_and_sign() {
    let eight: Vec<u8> = (0..PIXELS).map(|i| (i % 256) as u8).collect();
    let bytes = || DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(eight.clone().into()));
    check(&File::new().bits(8, 8, 7, false).put(bytes()).open(), |i| (i % 256) as f64 / 255.0);
    check(&File::new().bits(8, 8, 7, true).put(bytes()).open(), |i| f64::from(i32::from((i % 256) as u8 as i8) + 128) / 255.0);
    let wide: Vec<u16> = (0..PIXELS).map(|i| if i == 0 { 0 } else { 65535 - i as u16 }).collect();
    check(&File::new().bits(16, 16, 15, false).pixels(&wide).open(), |i| if i == 0 { 0.0 } else { (65535 - i) as f64 / 65534.0 });
    // Values have 12 bits in two's complement in the high bits of a word; the low bits hold an overlay.
    let shifted: Vec<u16> = (0..PIXELS).map(|i| ((i as u16).wrapping_sub(600) << 4) | 0b1010).collect();
    check(&File::new().bits(16, 12, 15, true).pixels(&shifted).open(), |i| i as f64 / (PIXELS - 1) as f64);
}

#[test]
fn every_window_function() {
    let value = |i: usize| (i * 3) as f64;
    check(&File::new().window("2000", "1000", "").open(), |i| ((value(i) - 1999.5) / 999.0 + 0.5).clamp(0.0, 1.0));
    check(&File::new().window("2000\\5", "1000\\7", "LINEAR").open(), |i| ((value(i) - 1999.5) / 999.0 + 0.5).clamp(0.0, 1.0));
    check(&File::new().window("2000", "1000", "LINEAR_EXACT").open(), |i| ((value(i) - 2000.0) / 1000.0 + 0.5).clamp(0.0, 1.0));
    check(&File::new().window("2000", "1000", "SIGMOID").open(), |i| 1.0 / (1.0 + (-4.0 * (value(i) - 2000.0) / 1000.0).exp()));
    let rescaled = File::new().text(tags::RESCALE_SLOPE, VR::DS, "-2").text(tags::RESCALE_INTERCEPT, VR::DS, "1e3");
    check(&rescaled.window("0", "1000", "LINEAR_EXACT").open(), |i| ((1000.0 - 2.0 * value(i)) / 1000.0 + 0.5).clamp(0.0, 1.0));
}

#[test]
fn tables_of_modality_and_interest() {
    // The table descends by 2 per entry, and its first entry is for the value 100.
    let down: Vec<u16> = (0..1000u16).map(|i| 2000 - 2 * i).collect();
    let modality = || table(tags::MODALITY_LUT_SEQUENCE, &[1000, 100, 12], &down);
    let after = |i: usize| (2000 - 2 * (i as i32 * 3 - 100).clamp(0, 999)) as f64;
    check(&File::new().put(modality()).open(), |i| (after(i) - after(PIXELS - 1)) / (2000.0 - after(PIXELS - 1)));
    // The table has one byte per entry, two in each word, and takes precedence over the window.
    let packed: Vec<u16> = (0..128u16).map(|i| (2 * i) | ((2 * i + 1) << 8)).collect();
    let interest = || table(tags::VOILUT_SEQUENCE, &[256, 1000, 8], &packed);
    let share = |value: f64| (value - 1000.0).clamp(0.0, 255.0) / 255.0;
    check(&File::new().put(interest()).window("0", "0", "").open(), |i| share((i * 3) as f64));
    check(&File::new().put(modality()).put(interest()).open(), |i| share(after(i)));
}

#[test]
fn padding_is_black() {
    let mut values: Vec<u16> = (0..PIXELS).map(|i| 1000 + i as u16).collect();
    values[..100].fill(0);
    values[100..200].fill(4095);
    let padded = |from, to| File::new().pixels(&values).word(tags::PIXEL_PADDING_VALUE, from).word(tags::PIXEL_PADDING_RANGE_LIMIT, to);
    let level = |i: usize| (i as f64 - 200.0) / (4095.0 - 1200.0);
    check(&padded(0, 999).open(), |i| {
        if i < 100 {
            0.0
        } else if i < 200 {
            1.0
        } else {
            level(i)
        }
    });
    let inverted = padded(0, 999).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1").open();
    check(&inverted, |i| if i < 200 { 0.0 } else { 1.0 - level(i) });
    // Pixel Padding Range Limit may be the lower end of the range.
    check(&padded(4095, 4000).open(), |i| if i < 200 { 0.0 } else { (1000 + i) as f64 / (999 + PIXELS) as f64 });
}
