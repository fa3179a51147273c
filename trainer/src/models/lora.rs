//! Low-rank adapters on the decoder's linear layers (paper, section 3.2; Hu et al. 2022).

use serde::{Deserialize, Serialize};

/// Settings of the adapters. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank.
    pub rank: i64,
    /// The adapter's output is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 16, alpha: 16.0, dropout: 0.05 }
    }
}

impl Lora {
    /// Whether the linear layer of this name has an adapter. All linear layers inside the decoder's blocks have one.
    pub fn adapts(&self, name: &str) -> bool {
        name.starts_with("model.layers.")
    }

    /// Factor of the adapter's output.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}
