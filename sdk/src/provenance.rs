//! Provenance and timing of results.

use crate::radiograph::PixelHistory;
use serde::Serialize;

/// Versions, settings and hashes that a result depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Provenance {
    /// Version of this SDK.
    pub sdk: String,
    /// Name of the bundle.
    pub bundle: String,
    /// SHA-256 of the bundle's manifest, which holds the hashes of the other files.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub bundle_sha256: String,
    /// Execution provider of ONNX Runtime.
    pub provider: String,
    /// Precision of the weights.
    pub precision: String,
    /// SHA-256 of the radiograph's file, or of its pixels if there was no file; see [`Radiograph::sha256`](crate::Radiograph::sha256).
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub input_sha256: String,
    /// The options that the answer was decoded with: how tokens were chosen, the form of the answer, the largest number of its tokens, stop
    /// texts and deadline if there were any, and whether prompt look-up was on, for example
    /// `greedy, grounded, max_tokens 512, look_up on`. A study has those of a question with default options.
    pub decoding: String,
    /// Calibration of scores: `uncalibrated`.
    pub scores: String,
    /// Intended use of the results.
    pub intended_use: String,
    /// Version of ONNX Runtime, for example "1.31.1".
    pub onnx_runtime: String,
    /// How the radiograph's pixels were made and displayed, as its DICOM header says; empty for other inputs.
    #[serde(flatten)]
    pub pixels: PixelHistory,
}

/// Wall-clock time of each step in milliseconds. Studies have the first three, answers the last three; the others are `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Timing {
    /// Preprocessing of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "f64", range(min = 0)))]
    pub preprocess: Option<f64>,
    /// Run of the perception module.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "f64", range(min = 0)))]
    pub perceive: Option<f64>,
    /// Retrieval of sentences and tokenization of the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "f64", range(min = 0)))]
    pub retrieve: Option<f64>,
    /// Prefill of the question, and of the context if it was not yet in the KV cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "f64", range(min = 0)))]
    pub prefill: Option<f64>,
    /// Decoding of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "f64", range(min = 0)))]
    pub decode: Option<f64>,
    /// Prefill and decoding together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "f64", range(min = 0)))]
    pub total: Option<f64>,
}

impl Timing {
    /// Name and milliseconds of each step that has a time, in order.
    pub fn steps(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let Self { preprocess, perceive, retrieve, prefill, decode, total } = *self;
        let steps = [
            ("preprocess", preprocess),
            ("perceive", perceive),
            ("retrieve", retrieve),
            ("prefill", prefill),
            ("decode", decode),
            ("total", total),
        ];
        steps.into_iter().filter_map(|(step, time)| time.map(|time| (step, time)))
    }

    /// Applies `change` to each time.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        let Self { preprocess, perceive, retrieve, prefill, decode, total } = *self;
        let [preprocess, perceive, retrieve, prefill, decode, total] =
            [preprocess, perceive, retrieve, prefill, decode, total].map(|time| time.map(&change));
        Self { preprocess, perceive, retrieve, prefill, decode, total }
    }
}
