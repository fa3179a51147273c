//! Images in memory as grey pixels.

use super::*;
use std::ffi::c_void;

fn pixels<T>(width: u32, height: u32, values: &[T]) -> anx_pixels {
    let (values, size): (*const c_void, _) = (values.as_ptr().cast(), size_of_val(values));
    let (struct_size, bits_allocated) = (size_of::<anx_pixels>(), 8 * size_of::<T>() as u32);
    anx_pixels { struct_size, values, size, stride: 0, width, height, bits_allocated, bits_stored: 0, photometric: 0 }
}

/// What a study sees in pixels: a bounding box and a sentence, which depend on every pixel, and the hash of the pixels.
fn seen(engine: &Engine, pixels: &anx_pixels) -> (anx_box, String, String) {
    let (mut study, mut error) = (null_mut(), null_mut());
    // SAFETY: valid pointers; a live handle, freed once.
    unsafe {
        check(anx_study_from_pixels(engine.0, pixels, null(), &mut study, &mut error), error);
        assert_eq!((anx_study_width(study), anx_study_height(study)), (pixels.width, pixels.height));
        let lung = *anx_study_structure(study, 11);
        let hash = text((*anx_study_provenance(study)).input_sha256).to_string();
        let seen = (lung.bounds, text(lung.sentence).to_string(), hash);
        anx_study_free(study);
        seen
    }
}

/// The phantom as pixels of 16 bits, bright where the patient is dense.
fn phantom() -> (u32, u32, Vec<u16>) {
    let radiograph = anatomix::Radiograph::open(file("examples/phantom.dcm").to_str().unwrap()).unwrap();
    let values = radiograph.intensities().unwrap().iter().map(|v| (v * 65535.0) as u16).collect();
    (radiograph.width(), radiograph.height(), values)
}

#[test]
fn every_description_of_the_same_image_gives_the_same_study() {
    let engine = engine();
    let (width, height, values) = phantom();
    // 12 bits, so that all descriptions can express each value exactly.
    let values: Vec<u16> = values.iter().map(|value| value >> 4).collect();
    let full: Vec<u16> = values.iter().map(|&value| (u32::from(value) * 65535 / 4095) as u16).collect();
    let expected = seen(&engine, &pixels(width, height, &full));

    let twelve = anx_pixels { bits_stored: 12, ..pixels(width, height, &values) };
    assert_eq!(seen(&engine, &twelve), expected);
    assert_ne!(seen(&engine, &pixels(width, height, &values)), expected, "bits_stored is not used");

    let photometric = anx_photometric::ANX_PHOTOMETRIC_MONOCHROME1 as usize;
    let inverted: Vec<u16> = full.iter().map(|value| 65535 - value).collect();
    let bright = seen(&engine, &anx_pixels { photometric, ..pixels(width, height, &inverted) });
    assert_eq!((bright.0, bright.1), (expected.0, expected.1.clone()));
    assert_ne!(seen(&engine, &pixels(width, height, &inverted)).0, expected.0, "the photometric interpretation is not used");

    // Rows with a gap of 3 pixels, with and without the last one.
    let mut gaps: Vec<u16> = values.chunks(width as usize).flat_map(|row| row.iter().copied().chain([4095, 0, 4095])).collect();
    for cut in [0, 3] {
        gaps.truncate(gaps.len() - cut);
        let stride = 2 * (width as usize + 3);
        assert_eq!(seen(&engine, &anx_pixels { stride, bits_stored: 12, ..pixels(width, height, &gaps) }), expected);
    }
}

#[test]
fn pixels_of_both_depths_agree() {
    let engine = engine();
    let narrow: Vec<u8> = (0..256 * 200).map(|i| ((i % 256) ^ (i / 256)) as u8).collect();
    let wide: Vec<u16> = narrow.iter().map(|&v| u16::from(v) * 257).collect();
    let ((left, ..), (right, ..)) = (seen(&engine, &pixels(256, 200, &narrow)), seen(&engine, &pixels(256, 200, &wide)));
    assert!((left.x0 - right.x0).abs() < 0.5 && (left.y1 - right.y1).abs() < 0.5, "{left:?} {right:?}");
    let eighth: Vec<u8> = narrow.iter().map(|v| v >> 1).collect();
    let (fewer, ..) = seen(&engine, &anx_pixels { bits_stored: 7, ..pixels(256, 200, &eighth) });
    assert!((left.x0 - fewer.x0).abs() < 2.0, "{left:?} {fewer:?}");
}

#[test]
fn several_images_are_what_they_are_alone() {
    let engine = engine();
    let (width, height, fine) = phantom();
    let coarse: Vec<u8> = fine.iter().map(|value| (value >> 8) as u8).collect();
    let images = [pixels(width, height, &coarse), pixels(width, height, &fine)];
    let open = |images: &[*const anx_pixels], studies: &mut [*mut anx_study], error| {
        // SAFETY: valid pointers, as many as are said.
        unsafe { anx_studies_from_pixels(engine.0, images.as_ptr(), images.len(), null(), studies.as_mut_ptr(), null_mut(), error) }
    };
    let (mut studies, mut error) = ([null_mut(); 2], null_mut());
    let status = open(&images.each_ref().map(|image| &raw const *image), &mut studies, &mut error);
    check(status, error);
    let (bounds, sentence, _) = seen(&engine, &images[1]);
    // SAFETY: live handles, freed once.
    unsafe {
        let together = *anx_study_structure(studies[1], 11);
        assert_eq!((text(together.sentence), together.bounds.x0.round()), (sentence.as_str(), bounds.x0.round()));
        studies.into_iter().for_each(|study| anx_study_free(study));
    }
    // An image of the wrong size fails alone.
    let few = anx_pixels { size: images[1].size - 2, ..images[1] };
    let (status, message, _) = failure(|error| open(&[&images[0], &few], &mut studies, error));
    assert_eq!((status, studies.map(|study| study.is_null())), (anx_status::ANX_RADIOGRAPH_SIZE, [false, true]), "{message}");
    // SAFETY: a live handle, freed once.
    unsafe { anx_study_free(studies[0]) };
    // So does one whose pixels have more bits than it says: only an argument is invalid for all images.
    let bits = anx_pixels { bits_stored: 3, ..images[0] };
    let (status, message, _) = failure(|error| open(&[&images[1], &bits], &mut studies, error));
    assert_eq!((status, studies.map(|study| study.is_null())), (anx_status::ANX_RADIOGRAPH, [false, true]), "{message}");
    // SAFETY: a live handle, freed once.
    unsafe { anx_study_free(studies[0]) };
    // One that cannot be read is an invalid call.
    let (status, message, _) = failure(|error| open(&[&images[0], null()], &mut studies, error));
    assert_eq!((status, studies.map(|study| study.is_null())), (anx_status::ANX_INVALID_ARGUMENT, [true, true]), "{message}");
}

#[test]
fn pixels_that_cannot_be_used() {
    use anx_status::*;
    let engine = engine();
    let words = vec![5000u16; 64 * 64];
    let whole = pixels(64, 64, &words);
    let cases = [
        (anx_pixels { struct_size: 0, ..whole }, ANX_INVALID_ARGUMENT, "sizeof(anx_pixels)"),
        (anx_pixels { values: null(), ..whole }, ANX_INVALID_ARGUMENT, "pixels.values is NULL"),
        (anx_pixels { values: whole.values.wrapping_byte_add(1), ..whole }, ANX_INVALID_ARGUMENT, "pixels.values is not aligned"),
        (anx_pixels { size: usize::MAX, ..whole }, ANX_INVALID_ARGUMENT, "pixels.values cannot hold"),
        (anx_pixels { bits_allocated: 12, ..whole }, ANX_INVALID_ARGUMENT, "bits_allocated is 12"),
        (anx_pixels { bits_stored: 17, ..whole }, ANX_INVALID_ARGUMENT, "bits_stored is 17"),
        (anx_pixels { bits_stored: 12, ..whole }, ANX_RADIOGRAPH, "bits_stored is 12, but a pixel is 5000"),
        (anx_pixels { photometric: 2, ..whole }, ANX_INVALID_ARGUMENT, "photometric is 2"),
        (anx_pixels { stride: 129, ..whole }, ANX_INVALID_ARGUMENT, "stride is 129"),
        (anx_pixels { stride: 126, ..whole }, ANX_RADIOGRAPH_SIZE, "in rows of 126 bytes"),
        (anx_pixels { stride: 1 << 63, ..whole }, ANX_RADIOGRAPH_SIZE, "64 x 64 pixels"),
        (anx_pixels { height: 65, ..whole }, ANX_RADIOGRAPH_SIZE, "64 x 65 pixels"),
        (anx_pixels { height: 0, ..whole }, ANX_RADIOGRAPH_SIZE, "has 64x0 pixels"),
        (anx_pixels { width: u32::MAX, height: u32::MAX, ..whole }, ANX_RADIOGRAPH_SIZE, "4294967295x4294967295 pixels, but sides"),
        (anx_pixels { width: 8, height: 8, size: 128, ..whole }, ANX_RADIOGRAPH_SIZE, "8x8"),
    ];
    for (pixels, expected, part) in cases {
        let mut study = std::ptr::dangling_mut();
        // SAFETY: valid pointers; what is wrong is refused before it is used.
        let (status, message, _) = failure(|error| unsafe { anx_study_from_pixels(engine.0, &pixels, null(), &mut study, error) });
        assert!(status == expected && message.contains(part) && study.is_null(), "{status:?} {message}");
    }
}
