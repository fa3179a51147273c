//! JPEGs that are whole, cut, or have a hole.

use super::*;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

const SIDES: [u32; 2] = [173, 140];

/// A picture without empty areas, in every form that the encoder supports.
fn encoded() -> Vec<(String, bool, Vec<u8>)> {
    let pixels = (SIDES[0] * SIDES[1]) as usize;
    let values: Vec<u8> = (0..3 * pixels as u64).map(|i| (i / 7 % 90 + i * i * 7919 % 97) as u8).collect();
    let mut files = Vec::new();
    for (color, channels) in [(ColorType::Luma, 1), (ColorType::Rgb, 3), (ColorType::Cmyk, 4)] {
        for sampling in [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_0, SamplingFactor::R_4_1_1] {
            for (progressive, optimized, interval) in [
                (false, false, 0),
                (false, true, 0),
                (false, false, 1),
                (false, false, 5),
                (true, false, 0),
                (true, true, 0),
                (true, false, 7),
            ] {
                let mut bytes = Vec::new();
                let mut encoder = Encoder::new(&mut bytes, 85);
                encoder.set_sampling_factor(sampling);
                encoder.set_progressive(progressive);
                encoder.set_optimized_huffman_tables(optimized);
                encoder.set_restart_interval(interval);
                let values: Vec<u8> = values.iter().cycle().take(channels * pixels).copied().collect();
                encoder.encode(&values, SIDES[0] as u16, SIDES[1] as u16, color).unwrap();
                files.push((format!("{color:?} {sampling:?} {progressive} {optimized} {interval}"), progressive, bytes));
            }
        }
    }
    files
}

fn is_whole(bytes: &[u8]) -> bool {
    matches!(check(bytes, SIDES), Ok(Checked { doubt: None, .. }))
}

#[test]
fn whole_pictures_pass() {
    for (name, progressive, bytes) in encoded() {
        let checked = check(&bytes, SIDES).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert_eq!(checked.doubt, None, "{name}");
        assert!(checked.in_scans || !progressive, "{name}");
        // A comment that holds an end marker, fill bytes, and bytes after the end.
        let [head, rest] = [&bytes[..2], &bytes[2..]];
        let (scan, end) = rest.split_at(rest.len() - 2);
        assert!(is_whole(&[head, &[0xFF, 0xFE, 0, 4, 0xFF, 0xD9], scan, &[0xFF, 0xFF], end, &[0; 3]].concat()), "{name}");
        assert!(check(&bytes, [SIDES[0] + 1, SIDES[1]]).unwrap_err().contains("different sizes"));
    }
}

#[test]
fn what_is_cut_or_has_a_hole_is_noticed() {
    let (mut holes, mut missed) = (0, 0);
    for (name, progressive, bytes) in encoded() {
        let scan = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap() + 12;
        let data = bytes.len() - 2 - scan;
        for part in 1..20 {
            let at = scan + data * part / 20;
            let cut = check(&bytes[..at], SIDES);
            assert!(cut.is_err(), "{name} cut at {at} without an end: {cut:?}");
            assert!(!is_whole(&[&bytes[..at], &[0xFF, 0xD9]].concat()), "{name} cut at {at}");
            let (start, end) = (at, (at + data / 40).min(bytes.len() - 2));
            let mut zeros = bytes.clone();
            zeros[start..end].fill(0);
            let removed = [&bytes[..start], &bytes[end..]].concat();
            // Bits that refine coefficients have no codes, so that zeros in their place contradict nothing.
            for hole in [Some(removed), (!progressive).then_some(zeros)].into_iter().flatten() {
                holes += 1;
                missed += usize::from(is_whole(&hole));
            }
        }
    }
    // After a hole, codes are read at wrong positions until they are in step again. By chance this gives as many blocks as were lost.
    assert!(missed * 33 < holes, "{missed} of {holes} holes were not noticed");
}

#[test]
fn lossless_pictures_are_counted_sample_by_sample() {
    let file = |bits: usize| {
        let table = [&[0xFF, 0xC4, 0, 20, 0, 1][..], &[0; 15], &[0]].concat();
        let frame = [0xFF, 0xC3, 0, 11, 16, 0, 40, 0, 40, 1, 1, 0x11, 0];
        let scan = [0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0];
        [&[0xFF, 0xD8][..], &table, &frame, &scan, &vec![0; bits / 8], &[0xFF, 0xD9]].concat()
    };
    let checked = |bits| check(&file(bits), [40, 40]);
    assert_eq!(checked(1600).unwrap().doubt, None);
    assert!(checked(1592).unwrap_err().contains("missing"));
    assert!(checked(1632).unwrap().doubt.unwrap().contains("4 bytes of data"));
    assert!(check(&file(1600)[..60], [40, 40]).unwrap_err().contains("missing"));
}

#[test]
fn contradictions_are_errors_and_nothing_panics() {
    let mut state = 9u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    for (_, _, bytes) in encoded() {
        for _ in 0..100 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + random() % 3 {
                let at = random() % bytes.len().min(if random() % 2 == 0 { 700 } else { usize::MAX });
                bytes[at] = random() as u8;
            }
            bytes.truncate(bytes.len() - random() % 2 * (random() % bytes.len()));
            let _ = check(&bytes, SIDES);
        }
    }
    for bytes in [&[][..], b"\xFF\xD8", b"\xFF\xD8\xFF\xD9", b"\xFF\xD8\xFF\xC4\x00\x02\xFF\xDA\x00\x03\x00\xFF\xD9"] {
        assert!(check(bytes, SIDES).is_err());
    }
}
