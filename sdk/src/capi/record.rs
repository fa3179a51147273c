//! What studies and answers have in common: boxes, flags, provenance, timing.

use super::strings::Strings;
use crate::geometry::PixelBox;
use crate::perception::flags::{Flag, Severity};
use crate::provenance::{Provenance, Timing};
use crate::text::escaped;
use std::ffi::c_char;
use std::ptr::{from_ref, null};

/// A box in pixels of the original image: origin at its top-left corner, x right, y down. x0 <= x1 and y0 <= y1 unless
/// the study carries a flag on degenerate boxes. This struct never grows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct anx_box {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl From<PixelBox> for anx_box {
    fn from(b: PixelBox) -> Self {
        Self { x0: b.x0, y0: b.y0, x1: b.x1, y1: b.y1 }
    }
}

/// How severe a flag is. Later versions may add values.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_severity {
    /// For information.
    ANX_SEVERITY_INFO = 0,
    /// Look at the image before the result is relied on.
    ANX_SEVERITY_WARNING = 1,
}

/// A reason not to trust a result.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_flag {
    /// A stable name: "mirrored", "near_constant", "degenerate_boxes", "low_margin", "not_frontal", "not_chest",
    /// "for_processing", "colour", "damaged_pixels"; later versions may add some.
    pub code: *const c_char,
    /// How severe it is.
    pub severity: anx_severity,
    /// A sentence for a person.
    pub message: *const c_char,
}

/// The time of a step.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_timing {
    /// The step: "preprocess", "perceive", "retrieve" of a study; "prefill", "decode", "total" of an answer.
    pub step: *const c_char,
    /// Wall-clock time in milliseconds.
    pub milliseconds: f64,
}

/// Versions, settings and hashes that a result depends on; keep it with the result.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_provenance {
    /// Version of the library.
    pub sdk: *const c_char,
    /// The bundle's name.
    pub bundle: *const c_char,
    /// SHA-256 of the bundle's manifest, which holds those of all its files; hexadecimal.
    pub bundle_sha256: *const c_char,
    /// Where graphs were computed, such as "cpu" or "cuda:0".
    pub provider: *const c_char,
    /// How weights are stored.
    pub precision: *const c_char,
    /// SHA-256 of the input file, in hexadecimal. If there was no file, that of a line of text, "pixels WIDTH x HEIGHT x BITS" and a line
    /// feed, and of the pixels after it: row by row without gaps, 8 or 16 bits each, scaled so that the largest value has all bits set,
    /// little-endian. For ANX_PHOTOMETRIC_MONOCHROME1 it is that of a line of text, "inverted HASH" and a line feed, with the hash of the
    /// same pixels.
    pub input_sha256: *const c_char,
    /// The options that the answer was decoded with: how tokens were chosen, the form of the answer, the largest number of its tokens, stop
    /// texts and deadline if there were any, and whether prompt look-up was on, for example
    /// "greedy, grounded, max_tokens 512, look_up on". A study has those of a question with default options.
    pub decoding: *const c_char,
    /// How scores and similarities may be interpreted: "uncalibrated".
    pub scores: *const c_char,
    /// Intended use of the results: "research use, not a medical device".
    pub intended_use: *const c_char,
    /// Version of the ONNX Runtime that computed the graphs, such as "1.31.1".
    pub onnx_runtime: *const c_char,
    /// Which of the VOI LUTs and windows of a DICOM file's header its pixels are displayed with, counted from 1. This and what follows is
    /// written as in the header, several values with a backslash between; "" if the file does not have it, or there was none.
    pub window: *const c_char,
    /// Burned In Annotation (0028,0301): "YES" or "NO".
    pub burned_in_annotation: *const c_char,
    /// Lossy Image Compression (0028,2110): "01" if the pixels were compressed with losses at any time, "00" if not.
    pub lossy_image_compression: *const c_char,
    /// Lossy Image Compression Ratio (0028,2112) of each compression.
    pub lossy_image_compression_ratio: *const c_char,
    /// Lossy Image Compression Method (0028,2114) of each compression, for example "ISO_10918_1".
    pub lossy_image_compression_method: *const c_char,
}

/// Flags, timing and provenance of a handle as C reads them, and all strings of the handle.
#[derive(Debug)]
pub(super) struct Record {
    /// Owns the texts that pointers of this handle point to.
    _strings: Strings,
    pub flags: Vec<anx_flag>,
    pub timing: Vec<anx_timing>,
    pub provenance: anx_provenance,
}

impl Record {
    /// Takes the strings that the handle has kept so far, and adds its own.
    pub fn new(mut strings: Strings, flags: &[Flag], timing: &Timing, provenance: &Provenance) -> Self {
        let mut keep = |text: &str| strings.keep(text);
        let severity = |severity| match severity {
            Severity::Info => anx_severity::ANX_SEVERITY_INFO,
            Severity::Warning => anx_severity::ANX_SEVERITY_WARNING,
        };
        let flags = flags
            .iter()
            .map(|flag| anx_flag {
                code: keep(flag.code.name()),
                severity: severity(flag.severity),
                message: keep(&escaped(&flag.message)),
            })
            .collect();
        let timing = timing.steps().map(|(step, milliseconds)| anx_timing { step: keep(step), milliseconds }).collect();
        let pixels = &provenance.pixels;
        let provenance = anx_provenance {
            sdk: keep(&provenance.sdk),
            bundle: keep(&escaped(&provenance.bundle)),
            bundle_sha256: keep(&provenance.bundle_sha256),
            provider: keep(&provenance.provider),
            precision: keep(&provenance.precision),
            input_sha256: keep(&provenance.input_sha256),
            decoding: keep(&provenance.decoding),
            scores: keep(&provenance.scores),
            intended_use: keep(&provenance.intended_use),
            onnx_runtime: keep(&provenance.onnx_runtime),
            window: keep(&pixels.window),
            burned_in_annotation: keep(&pixels.burned_in_annotation),
            lossy_image_compression: keep(&pixels.lossy_image_compression),
            lossy_image_compression_ratio: keep(&pixels.lossy_image_compression_ratio),
            lossy_image_compression_method: keep(&pixels.lossy_image_compression_method),
        };
        Self { _strings: strings, flags, timing, provenance }
    }
}

/// A pointer to an item, or NULL if there is none at this index.
pub(super) fn item<T>(items: &[T], index: usize) -> *const T {
    items.get(index).map_or(null(), from_ref)
}
