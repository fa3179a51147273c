//! The display chain, from stored values to intensities.

use super::file::*;
use anatomix::{Radiograph, ReadOptions};
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

#[test]
fn a_window_can_be_chosen() {
    let value = |i: usize| (i * 3) as f64;
    let several = || File::new().window("2000\\1000\\5", "1000\\500\\7\\9", "LINEAR_EXACT");
    let read = |file: File, window: usize| Radiograph::from_bytes_with(&file.bytes(), NAME, &ReadOptions::new().window(window));
    let level = |center: f64, width: f64| move |i: usize| ((value(i) - center) / width + 0.5).clamp(0.0, 1.0);
    check(&several().open(), level(2000.0, 1000.0));
    for (window, center, width) in [(1, 2000.0, 1000.0), (2, 1000.0, 500.0), (3, 5.0, 7.0)] {
        let opened = read(several(), window).unwrap();
        check(&opened, level(center, width));
        assert_eq!(opened.header().history.window, window.to_string());
    }
    // Tables come first.
    let ramp: Vec<u16> = (0..256).collect();
    let turned: Vec<u16> = ramp.iter().map(|entry| 255 - entry).collect();
    let tables = || several().put(tables(tags::VOILUT_SEQUENCE, &[(&[256, 1000, 8], &ramp), (&[256, 1000, 8], &turned)]));
    let share = |i: usize| (value(i) - 1000.0).clamp(0.0, 255.0) / 255.0;
    check(&tables().open(), share);
    check(&read(tables(), 2).unwrap(), |i| 1.0 - share(i));
    check(&read(tables(), 4).unwrap(), level(1000.0, 500.0));
    let refused = |file: File, window| read(file, window).unwrap_err().to_string();
    for (file, window, advice) in [
        (several(), 4, "it has 3; choose 1 to 3"),
        (several(), 0, "choose 1 to 3"),
        (tables(), 6, "it has 5"),
        (File::new().window("1", "2", ""), 2, "it has one; choose 1"),
        (File::new(), 2, "it has no windows; leave the option out"),
        (File::new(), usize::MAX, "it has no windows"),
    ] {
        let message = refused(file, window);
        assert!(message.contains(&format!("window {window} was chosen")) && message.contains(advice), "{message}");
    }
    check(&read(File::new(), 1).unwrap(), |i| value(i) / LAST);
    assert_eq!(File::new().open().header().history.window, "");
    let picture = encoded(&jpeg().0.into(), image::ImageFormat::Png);
    let message = Radiograph::from_bytes_with(&picture, NAME, &ReadOptions::new().window(2)).unwrap_err().to_string();
    assert!(message.contains("only DICOM files have windows"), "{message}");
}

#[test]
fn only_known_shapes_of_the_presentation_are_displayed() {
    let shape = |shape: &str| File::new().text(tags::PRESENTATION_LUT_SHAPE, VR::CS, shape);
    check(&shape("IDENTITY").open(), |i| (i * 3) as f64 / LAST);
    let message = shape("LIN OD").refused();
    assert!(message.contains("Presentation LUT Shape is LIN OD") && message.contains("export it with IDENTITY"), "{message}");
}
