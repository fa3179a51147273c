//! BERTScore as the Python package `bert-score` computes it, without weights by frequency: each token is matched with the nearest one of
//! the other text, by the cosine of their hidden states, and the result is rescaled so that unrelated texts have about 0.

use super::hidden::{BATCH, hidden, tokens};
use crate::import::encoder::{Encoder, Wanted, is_distilled, open};
use anatomix::parts::files;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use tch::{Kind, Tensor};

/// Layer whose states are compared, of DistilBERT and of BERT, as the package chooses it.
const LAYERS: [i64; 2] = [5, 9];
/// F-measure of unrelated English texts at that layer of `distilbert-base-uncased` and of `bert-base-uncased`: the package's baselines.
const BASELINES: [f64; 2] = [0.666_204_87, 0.352_191_12];
/// A file of other baselines in the model's folder, in the package's format.
const FILE: &str = "baseline.tsv";
/// Largest such file in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A model for BERTScore.
pub struct BertScore {
    encoder: Encoder,
    /// Tokens for beginning and end, which are matched but not counted.
    special: [u32; 2],
    baseline: f64,
}

impl BertScore {
    /// Opens the folder of a model: `distilbert-base-uncased`, as in the paper, `bert-base-uncased`, or another one with a `baseline.tsv`.
    ///
    /// # Errors
    /// If the folder does not hold such a model.
    pub fn open(folder: &Path) -> Result<Self> {
        let own = usize::from(!is_distilled(folder)?);
        let layers = Some(LAYERS[own]);
        let encoder = open(folder, &Wanted { layers, file: None, rename: &|name| Some(name.into()), heads: &|_| Vec::new() })?;
        let path = folder.join(FILE);
        let baseline = if path.exists() { baseline(&path, LAYERS[own])? } else { BASELINES[own] };
        let id = |token: &str| {
            encoder.tokenizer.token_to_id(token).with_context(|| format!("{} has a tokenizer without {token}", folder.display()))
        };
        let special = [id("[CLS]")?, id("[SEP]")?];
        Ok(Self { encoder, special, baseline })
    }

    /// The rescaled F-measure of each expected text and the predicted one.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f64>> {
        let mut scores = Vec::with_capacity(pairs.len());
        for pairs in pairs.chunks(BATCH) {
            let texts: Vec<&str> = pairs.iter().flat_map(|(expected, found)| [expected.trim(), found.trim()]).collect();
            let ids = tokens(&self.encoder, &texts)?;
            let states: Vec<Tensor> = hidden(&self.encoder, &ids).iter().map(unit).collect();
            for (ids, states) in ids.chunks(2).zip(states.chunks(2)) {
                scores.push((self.f_measure(ids, states) - self.baseline) / (1.0 - self.baseline));
            }
        }
        Ok(scores)
    }

    /// The F-measure of the expected and the found text; 0 if one of them has no tokens.
    fn f_measure(&self, ids: &[Vec<u32>], states: &[Tensor]) -> f64 {
        let weight =
            |ids: &[u32]| Tensor::from_slice(&ids.iter().map(|id| if self.special.contains(id) { 0f32 } else { 1.0 }).collect::<Vec<_>>());
        let [expected, found] = [0, 1].map(|side| weight(&ids[side]));
        let similar = states[0].matmul(&states[1].tr());
        let share = |weight: &Tensor, axis: i64| {
            let best = similar.max_dim(axis, false).0;
            (best * weight).sum(Kind::Double).double_value(&[]) / weight.sum(Kind::Double).double_value(&[])
        };
        let (recall, precision) = (share(&expected, 1), share(&found, 0));
        let f = 2.0 * precision * recall / (precision + recall);
        if f.is_nan() { 0.0 } else { f }
    }
}

fn unit(states: &Tensor) -> Tensor {
    states / states.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true)
}

/// The F-measure's baseline at a layer, from a table of layer, P, R and F.
fn baseline(path: &Path, layer: i64) -> Result<f64> {
    let bytes = files::read(path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = csv::Reader::from_reader(bytes.as_slice());
    for (line, row) in lines.deserialize::<(i64, f64, f64, f64)>().enumerate() {
        let (own, _, _, f) = row.with_context(|| format!("{} line {}: it is not layer, P, R and F", path.display(), line + 2))?;
        if own == layer {
            ensure!((0.0..1.0).contains(&f), "{} line {}: a baseline of {f} is not below 1", path.display(), line + 2);
            return Ok(f);
        }
    }
    bail!("{} has no line for layer {layer}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_is_read_by_its_layer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            baseline(file.path(), 5).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read("LAYER,P,R,F\n4,0.1,0.2,0.3\n5,0.4,0.5,0.6\n"), Ok(0.6));
        assert!(read("LAYER,P,R,F\n4,0.1,0.2,0.3\n").unwrap_err().contains("no line for layer 5"));
        assert!(read("LAYER,P,R,F\n4,0.1,0.2,0.3\n5,a,b,c\n").unwrap_err().contains("line 3"));
        assert!(read("LAYER,P,R,F\n5,1,1,1\n").unwrap_err().contains("not below 1"));
    }
}
