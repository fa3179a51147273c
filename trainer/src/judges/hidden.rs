//! Hidden states of an encoder.

use crate::graph::{Torch, TorchTensor};
use crate::import::encoder::Encoder;
use crate::models::text::{TextInput, bert, token_table};
use anyhow::{Result, anyhow};
use tch::{Kind, Tensor};

/// Texts that are encoded together.
pub const BATCH: usize = 32;

/// The tokens of texts, with those for beginning and end.
///
/// # Errors
/// If the tokenizer fails.
pub fn tokens(encoder: &Encoder, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
    let encoded = encoder.tokenizer.encode_batch(texts.to_vec(), true).map_err(|e| anyhow!("cannot tokenize a text: {e}"))?;
    Ok(encoded.iter().map(|own| own.get_ids().to_vec()).collect())
}

/// The hidden states of the last layer for each of some texts, `[tokens, width]`. All have a token.
pub fn hidden(encoder: &Encoder, texts: &[Vec<u32>]) -> Vec<Tensor> {
    let (count, length) = (texts.len() as i64, texts.iter().map(Vec::len).max().unwrap_or(1).max(1) as i64);
    if count == 0 {
        return Vec::new();
    }
    let padded = |of: &dyn Fn(Option<&u32>) -> i64| {
        let values: Vec<i64> = texts.iter().flat_map(|own| (0..length as usize).map(|at| of(own.get(at))).collect::<Vec<_>>()).collect();
        Tensor::from_slice(&values).reshape([count, length])
    };
    let ids = padded(&|id| id.map_or(0, |&id| i64::from(id)));
    let present = padded(&|id| i64::from(id.is_some())).to_kind(Kind::Float);
    let ops = Torch::new(&encoder.params);
    let states = tch::no_grad(|| {
        let table = token_table(&ops, &encoder.config).0;
        let input = TextInput {
            tokens: TorchTensor(Tensor::embedding(&table, &ids, -1, false, false)),
            mask: TorchTensor(((&present - 1.0) * 1e9).unsqueeze(1).unsqueeze(1)),
            pooling: TorchTensor(present.unsqueeze(1)),
            length,
        };
        bert(&ops, &encoder.config, &input).0
    });
    texts.iter().zip(0..).map(|(own, index)| states.get(index).narrow(0, 0, own.len().max(1) as i64)).collect()
}
