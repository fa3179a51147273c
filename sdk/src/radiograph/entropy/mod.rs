//! Checks that a JPEG holds its whole picture.
//!
//! Decoders fill what is missing with grey and report nothing. So before one is called, the entropy-coded data are read here from the first
//! block to the last: each code is looked up and its bits are skipped, but no coefficient is computed.
//!
//! Markers, and sections in parentheses, are those of ITU-T T.81.

mod checker;
mod codes;
mod frame;
mod huffman;
mod reader;

use checker::Checker;
use frame::{BLOCK, Frame, Process, Scan};

/// Most scans. Encoders write far fewer, but each scan visits every block, however few bytes it has.
const MAX_SCANS: usize = 100;

/// The coefficients of a scan as the scan header of a sequential picture gives them: first, last, and bits (B.2.3).
pub(super) const WHOLE_BAND: [u8; 3] = [0, BLOCK as u8 - 1, 0];

/// What is known of a JPEG whose picture is complete.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Checked {
    /// Number of colour components.
    pub components: usize,
    /// Whether the picture comes in several scans, so that a decoder keeps the coefficients of all of it.
    pub in_scans: bool,
    /// Why the picture may be damaged although it is complete.
    pub doubt: Option<String>,
    /// Bytes that follow its end.
    pub after: usize,
    /// Where in the bytes a scan header of a sequential picture has other values than [`WHOLE_BAND`]. Decoders differ in what they make of
    /// them.
    pub odd_bands: Vec<usize>,
}

/// Checks the JPEG in `bytes`, whose picture has these sides (width and height).
///
/// # Errors
/// If a part of the picture is missing or contradicts itself. The text continues "it is damaged:".
pub(super) fn check(bytes: &[u8], sides: [u32; 2]) -> Result<Checked, String> {
    let mut checker = Checker::new(bytes);
    if checker.marker()? != 0xD8 {
        return Err("it does not begin with the start marker of a JPEG".into());
    }
    let mut frame: Option<Frame> = None;
    let mut scans = 0;
    let mut odd_bands = Vec::new();
    loop {
        match checker.marker()? {
            // End of image.
            0xD9 => break,
            0xD8 => return Err("a second picture begins inside it".into()),
            // Markers without a segment. A restart marker may follow the last interval.
            0x01 | 0xD0..=0xD7 => {}
            0xC4 => checker.huffman_tables()?,
            0xDD => checker.restart_interval()?,
            marker @ 0xC0..=0xC3 if frame.is_none() => frame = Some(Frame::read(marker, checker.segment()?, sides)?),
            0xC0..=0xC3 => return Err("it has two frame headers".into()),
            // Arithmetic coding and differential frames: the decoders do not support them and report it.
            0xC5..=0xC7 | 0xC9..=0xCF => return Ok(Checked::default()),
            0xDA => {
                let frame = frame.as_mut().ok_or("its picture has no frame header")?;
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(format!("its picture has more than {MAX_SCANS} scans"));
                }
                let header = checker.segment()?;
                let scan = Scan::read(header, frame)?;
                let band = 1 + 2 * scan.components.len();
                if frame.process == Process::Sequential && !header[band..].starts_with(&WHOLE_BAND) {
                    checker.doubt("a scan header names some of the coefficients, but a sequential picture has all of them in a scan");
                    odd_bands.push(bytes.len() - checker.rest().len() - header.len() + band);
                }
                checker.scan(frame, &scan)?;
            }
            // Segments that do not matter here.
            _ => _ = checker.segment()?,
        }
    }
    let frame = frame.ok_or("its picture has no frame header")?;
    if frame.components.iter().any(|component| !component.scanned) {
        return Err("it ends before its picture does".into());
    }
    if frame.process == Process::Progressive && frame.components.iter().any(|component| component.missing != [0; BLOCK]) {
        checker.doubt("its last scans, which hold the finest detail, are missing");
    }
    let in_scans = frame.process == Process::Progressive || scans > 1;
    let after = checker.rest().len();
    Ok(Checked { components: frame.components.len(), in_scans, doubt: checker.into_doubt(), after, odd_bands })
}

#[cfg(test)]
mod tests;
