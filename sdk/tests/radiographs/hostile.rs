//! Files that cannot be used: each error names the file and the cause, and nothing panics.

use super::file::*;
use anatomix::Radiograph;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use image::{GrayImage, ImageFormat};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[test]
fn what_is_wrong_is_said() {
    let jpeg_bytes = jpeg().1;
    let (twice, native) = (ramp().repeat(2), vec![0; 2 * PIXELS]);
    let cases = [
        (File::new().without(tags::PIXEL_DATA), "no pixels"),
        (File::new().text(tags::NUMBER_OF_FRAMES, VR::IS, "7"), "7 frames"),
        (File::new().text(tags::NUMBER_OF_FRAMES, VR::IS, "many"), "\"many\""),
        (File::new().pixels(&twice), "2 frames"),
        (File::new().pixels(&twice).text(tags::NUMBER_OF_FRAMES, VR::IS, "1"), "2 frames"),
        (File::new().pixels(&twice).text(tags::NUMBER_OF_FRAMES, VR::IS, "0"), "2 frames"),
        (File::new().pixels(&twice).text(tags::NUMBER_OF_FRAMES, VR::IS, "-3"), "2 frames"),
        (File::new().packed(uids::RLE_LOSSLESS, vec![run_lengths(&ramp()); 3]), "3 frames"),
        (File::new().bits(8, 8, 7, false).packed(uids::JPEG_BASELINE8_BIT, vec![jpeg_bytes.clone(); 2]), "2 frames"),
        (File::new().packed(uids::JPEG2000_LOSSLESS, vec![JPEG_2000.to_vec(); 2]), "2 frames"),
        (File::new().packed(uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN, vec![native.clone(); 2]), "2 frames"),
        (File::new().pieces(uids::RLE_LOSSLESS, vec![0, 400], vec![run_lengths(&ramp()), vec![0; 64]]), "2 frames"),
        (File::new().word(tags::SAMPLES_PER_PIXEL, 3).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB"), "RGB"),
        (File::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR"), "PALETTE COLOR"),
        (File::new().without(tags::PHOTOMETRIC_INTERPRETATION), "no Photometric Interpretation"),
        (File::new().word(tags::BITS_ALLOCATED, 32), "in 32"),
        (File::new().word(tags::BITS_STORED, 7), "7 bits"),
        (File::new().word(tags::BITS_STORED, 0).without(tags::HIGH_BIT), "0 bits"),
        (File::new().word(tags::BITS_STORED, 17), "17 bits"),
        (File::new().word(tags::HIGH_BIT, 3), "high bit 3"),
        (File::new().word(tags::HIGH_BIT, 65535), "high bit 65535"),
        (File::new().without(tags::BITS_ALLOCATED), "Bits Allocated is missing"),
        (File::new().without(tags::ROWS), "Rows is missing"),
        (File::new().without(tags::COLUMNS), "Columns is missing"),
        (File::new().word(tags::ROWS, 1).word(tags::COLUMNS, 1), "1x1"),
        (File::new().word(tags::ROWS, 65535).word(tags::COLUMNS, 65535), "65535x65535"),
        (File::new().word(tags::ROWS, 20000).word(tags::COLUMNS, 20000), "20000x20000"),
        (File::new().word(tags::ROWS, 9000).word(tags::COLUMNS, 9000), "162000000"),
        (File::new().window("100", "0", ""), "Window Width is 0"),
        (File::new().window("100", "-5", "SIGMOID"), "Window Width is -5"),
        (File::new().window("100", "NaN", ""), "\"NaN\""),
        (File::new().window("wide", "5", ""), "\"wide\""),
        (File::new().window("100", "5", "CUBIC"), "CUBIC"),
        (File::new().text(tags::RESCALE_SLOPE, VR::DS, "0"), "Rescale Slope is 0"),
        (File::new().text(tags::RESCALE_INTERCEPT, VR::DS, "1e999"), "Rescale Intercept"),
        (File::new().put(table(tags::MODALITY_LUT_SEQUENCE, &[16, 0], &[0; 16])), "descriptor of its Modality LUT has 2"),
        (File::new().put(table(tags::MODALITY_LUT_SEQUENCE, &[16, 0, 32], &[0; 16])), "32 bits"),
        (File::new().put(table(tags::VOILUT_SEQUENCE, &[16, 0, 12], &[0; 15])), "has 15 of the 16 entries"),
        (File::new().put(table(tags::VOILUT_SEQUENCE, &[0, 0, 16], &[0; 15])), "has 15 of the 65536 entries"),
        (File::new().put(table(tags::VOILUT_SEQUENCE, &[], &[])), "has 0 numbers"),
        (File::new().packed(uids::JPEGLS_LOSSLESS, vec![vec![0; 64]]), "no readable header"),
        (File::new().packed(uids::MPEG4HP41, vec![vec![0; 64]]), "(1.2.840.10008.1.2.4.102)"),
        (File::new().packed(uids::MPEG2MPML, vec![vec![0; 64]]), "1.2.840.10008.1.2.4.100"),
        (File::new().packed(uids::RLE_LOSSLESS, vec![vec![0; 64]]), "run-length"),
        (File::new().packed(uids::RLE_LOSSLESS, vec![]), "run-length"),
        (File::new().packed(uids::RLE_LOSSLESS, vec![vec![0; 2]; 70_000]), "too many fragments"),
        (File::new().packed(uids::JPEG_BASELINE8_BIT, vec![vec![1; 64]]), "no readable header"),
        (File::new().packed(uids::JPEG2000, vec![vec![1; 64]]), "no readable header"),
        (File::new().packed(uids::JPEG_BASELINE8_BIT, vec![jpeg_bytes.clone()]).word(tags::ROWS, 33), "40x32, but its header says 40x33"),
        (File::new().packed(uids::JPEG_BASELINE8_BIT, vec![jpeg_bytes[..jpeg_bytes.len() / 4].to_vec()]), "damaged"),
        (File::new().packed(uids::EXPLICIT_VR_LITTLE_ENDIAN, vec![vec![0; 4 * PIXELS]]), "not encoded as"),
    ];
    for (file, expected) in cases {
        let message = file.refused();
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
    }
    let mut unknown = File::new().bytes();
    let syntax = uids::EXPLICIT_VR_LITTLE_ENDIAN.as_bytes();
    let at = unknown.windows(syntax.len()).position(|window| window == syntax).unwrap();
    unknown[at..at + syntax.len()].copy_from_slice(b"1.2.3.4.5.6.7.8.9.1");
    assert!(refused(&unknown).contains("an unknown transfer syntax (1.2.3.4.5.6.7.8.9.1)"));
}

#[test]
fn hostile_structure_is_refused_cheaply() {
    let whole = File::new().without(tags::PIXEL_DATA).bytes();
    let with = |tail: &[u8]| [&whole[..], tail].concat();
    // A text, a sequence and pixels have lengths of 4 GB; then a delimiter is misplaced, and sequences have a million levels.
    let huge = |tag: [u8; 4], vr: &[u8; 2]| [&tag[..], vr, &[0, 0], &0xFFFF_FFF0u32.to_le_bytes()].concat();
    refused(&with(&huge([0x28, 0, 0, 0x30], b"UT")));
    refused(&with(&huge([0x28, 0, 0, 0x30], b"SQ")));
    assert!(refused(&with(&huge([0xE0, 0x7F, 0x10, 0], b"OW"))).contains("too early"));
    let item = [0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF];
    let end = [0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0];
    let sequence = [&[0x28, 0, 0, 0x30], &b"SQ"[..], &[0, 0], &[0xFF; 4]].concat();
    refused(&with(&[&sequence[..], &end, &item].concat()));
    refused(&with(&end));
    let level = [&sequence[..], &item].concat();
    assert!(refused(&with(&level.repeat(1_000_000))).contains("nested"));
}

#[test]
fn no_truncation_and_no_noise_panics() {
    let files = [
        File::new().put(table(tags::VOILUT_SEQUENCE, &[256, 0, 8], &[7; 256])).window("9", "9", "SIGMOID").bytes(),
        File { syntax: uids::IMPLICIT_VR_LITTLE_ENDIAN, ..File::new() }.bytes(),
        File { syntax: BIG_ENDIAN, ..File::new() }.bytes(),
        File::new().packed(uids::RLE_LOSSLESS, vec![run_lengths(&ramp())]).bytes(),
        File::new().bits(8, 8, 7, false).packed(uids::JPEG_BASELINE8_BIT, vec![jpeg().1]).bytes(),
        File::new().packed(uids::JPEG2000_LOSSLESS, vec![JPEG_2000.to_vec()]).bytes(),
        jpeg().1,
        encoded(&jpeg().0.into(), ImageFormat::Png),
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for whole in &files {
        let mut opened = 0;
        for length in (1..whole.len()).step_by(7) {
            match Radiograph::from_bytes(&whole[..length], NAME) {
                Ok(_) => opened += 1,
                Err(error) => assert!(error.to_string().contains(NAME)),
            }
        }
        // A file is accepted only if nothing but data after the pixels is missing.
        assert!(opened <= 3, "{opened} truncated files were opened");
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random() % 4 {
                let at = if random() % 2 == 0 { random() % bytes.len() } else { random() % bytes.len().min(600) };
                bytes[at] = random() as u8;
            }
            if let Err(error) = Radiograph::from_bytes(&bytes, NAME) {
                assert!(error.to_string().contains(NAME));
            }
        }
    }
    for length in 0..600 {
        let noise: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        refused(&noise);
        let mut after_magic = noise.clone();
        if length >= 132 {
            after_magic[128..132].copy_from_slice(b"DICM");
            refused(&after_magic);
        }
    }
}

#[test]
fn other_files_are_refused_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let small = GrayImage::new(1, 1);
    std::fs::write(path("small.png"), encoded(&small.clone().into(), ImageFormat::Png)).unwrap();
    std::fs::write(path("small.jpg"), encoded(&small.into(), ImageFormat::Jpeg)).unwrap();
    std::fs::write(path("empty.dcm"), []).unwrap();
    std::fs::write(path("notes.txt"), "No acute findings.").unwrap();
    let message = |name: &str| {
        let message = Radiograph::open(path(name)).unwrap_err().to_string();
        assert!(message.contains(&path(name).display().to_string()), "{message}");
        message
    };
    assert!(message("small.png").contains("1x1"));
    assert!(message("small.jpg").contains("1x1"));
    assert!(message("empty.dcm").contains("empty"));
    assert!(message("notes.txt").contains("not a DICOM, PNG or JPEG"));
    assert!(message("missing.dcm").contains("check the path"));
    assert!(message("").contains("folder"));
}

#[test]
fn only_regular_files_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe, "/dev/zero".into(), "/dev/null".into()] {
        let (send, receive) = mpsc::channel();
        let opening = path.clone();
        // Opening a pipe that nothing is written to would wait for ever.
        thread::spawn(move || send.send(Radiograph::open(opening).map(|_| ())));
        let outcome = receive.recv_timeout(Duration::from_secs(600)).unwrap_or_else(|_| panic!("{} was still being read", path.display()));
        let message = anatomix::Error::from(outcome.unwrap_err()).full_message();
        assert!(message.contains(&path.display().to_string()) && message.contains("not a regular file"), "{message}");
    }
}

#[test]
fn one_frame_may_be_said_in_any_way() {
    for frames in ["", "0", "-1", "1"] {
        check(&File::new().text(tags::NUMBER_OF_FRAMES, VR::IS, frames).open(), |i| (i * 3) as f64 / LAST);
    }
    // Less than a frame behind the pixels is padding, and an offset table of one entry is one frame in pieces.
    check(&File::new().pixels(&[ramp(), vec![9; PIXELS - 1]].concat()).open(), |i| (i * 3) as f64 / LAST);
    let pieces = run_lengths(&ramp()).chunks(512).map(<[u8]>::to_vec).collect();
    check(&File::new().pieces(uids::RLE_LOSSLESS, vec![0], pieces).open(), |i| (i * 3) as f64 / LAST);
}
