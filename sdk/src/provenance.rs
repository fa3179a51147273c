//! Where a result comes from, and how long it took.

use serde::Serialize;

/// Where a result comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Provenance {
    /// Version of this SDK.
    pub sdk: String,
    /// The bundle's name.
    pub bundle: String,
    /// SHA-256 of the bundle's manifest, which holds those of its files.
    pub bundle_sha256: String,
    /// Where graphs were computed.
    pub provider: String,
    /// How weights are stored.
    pub precision: String,
    /// SHA-256 of the file, or of the pixels where there was none.
    pub input_sha256: String,
    /// How tokens were chosen, and what form they keep: "greedy, grounded".
    pub decoding: String,
    /// What scores mean.
    pub scores: String,
    /// What all of this is for.
    pub intended_use: String,
}

/// Wall-clock time of each step in milliseconds; `None` for a step that a result did not take.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timing {
    /// Preparing the image for the network; of a study.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<f64>,
    /// Running the perception module; of a study.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perceive: Option<f64>,
    /// Retrieving sentences and writing the prompt; of a study.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieve: Option<f64>,
    /// Computing the question's tokens, and the context's where they were not computed before; of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<f64>,
    /// Decoding the answer's tokens; of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<f64>,
    /// Prefill and decoding; of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
}

impl Timing {
    /// The steps that were taken, in their order, each with its milliseconds.
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

    /// The same, each figure changed.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        let Self { preprocess, perceive, retrieve, prefill, decode, total } = *self;
        let [preprocess, perceive, retrieve, prefill, decode, total] =
            [preprocess, perceive, retrieve, prefill, decode, total].map(|time| time.map(&change));
        Self { preprocess, perceive, retrieve, prefill, decode, total }
    }
}
