//! Low-rank adapters on the decoder's linear layers (paper, section 3.2; Hu et al. 2022).

use serde::{Deserialize, Serialize};

/// Settings of the adapters. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank.
    pub rank: i64,
    /// Scaling, divided by the rank.
    pub alpha: f64,
    /// Dropout before the first factor.
    pub dropout: f64,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 16, alpha: 16.0, dropout: 0.05 }
    }
}

impl Lora {
    /// Whether a linear layer takes an adapter: all of the decoder's layers do.
    pub fn adapts(&self, name: &str) -> bool {
        name.starts_with("model.layers.")
    }

    /// Factor on the adapter's output.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}
