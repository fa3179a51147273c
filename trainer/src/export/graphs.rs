//! The three graphs with the inputs and outputs that the SDK binds. Each returns the parameters as its graph holds them.

use crate::graph::Params;
use crate::graph::onnx::{DataType, Dim, Storage, Writer};
use crate::models::apm as perception;
use crate::models::apm::ApmConfig;
use crate::models::gemma::gemma;
use crate::models::projector::projector as project;
use crate::run::ModelConfig;
use anatomix::anatomy::{LABELS, STRUCTURES};
use anyhow::Result;
use std::path::Path;

const BATCH: Dim = Dim::Free("batch");
const OBJECTS: Dim = Dim::Is(STRUCTURES as i64);

/// Writes the perception module: `image` `[B, 1, S, S]` to `boxes`, `object_embeddings`, `image_tokens`, `image_logits`.
///
/// # Errors
/// If the files cannot be written or a weight does not fit the storage.
pub fn apm(path: &Path, config: &ApmConfig, params: &Params, storage: Storage) -> Result<Params> {
    let writer = Writer::create(path, "anatomy perception module", params, storage)?;
    let side = Dim::Is(config.image_size);
    let image = writer.input("image", DataType::Float, &[BATCH, Dim::Is(1), side, side]);
    let output = perception::apm(&writer, config, &image);
    writer.output(&output.boxes, "boxes", &[BATCH, OBJECTS, Dim::Is(4)]);
    writer.output(&output.object_embeddings, "object_embeddings", &[BATCH, OBJECTS, Dim::Is(config.embedding)]);
    writer.output(&output.image_tokens, "image_tokens", &[BATCH, Dim::Is(config.patches()), Dim::Is(config.width)]);
    writer.output(&output.image_logits, "image_logits", &[BATCH, Dim::Is(LABELS as i64)]);
    writer.finish()
}

/// Writes the projectors: `image_tokens` and `object_embeddings` to `visual_features` `[B, P + 36, hidden]`.
///
/// # Errors
/// If the files cannot be written or a weight does not fit the storage.
pub fn projector(path: &Path, models: &ModelConfig, params: &Params, storage: Storage) -> Result<Params> {
    let writer = Writer::create(path, "projectors", params, storage)?;
    let (patches, width, embedding) = (models.apm.patches(), models.apm.width, models.apm.embedding);
    let hidden = models.language.hidden_size;
    let tokens = writer.input("image_tokens", DataType::Float, &[BATCH, Dim::Is(patches), Dim::Is(width)]);
    let objects = writer.input("object_embeddings", DataType::Float, &[BATCH, OBJECTS, Dim::Is(embedding)]);
    let features = project(&writer, (width, embedding, hidden), &tokens, &objects);
    writer.output(&features, "visual_features", &[BATCH, Dim::Is(patches + STRUCTURES as i64), Dim::Is(hidden)]);
    writer.finish()
}

/// Writes the language model over its cache, adapters merged. Prefill, decoding and verifying are the same graph:
///
/// - `input_ids` `[B, T]` continue the cache; where `visual_index` `[B, T]` is not -1, that row of `visual_features`
///   `[V, hidden]` (at least one) takes the token's place.
/// - `past_key_values.N.key|value` `[B, kv_heads, capacity, head_dim]`; `present.N.key|value` may be the same buffers.
/// - `seqlens_k` `[B]` counts all tokens, these included, minus one; `total_sequence_length` is the largest count.
/// - `logits` `[B, K, vocabulary]` of the `logit_positions` `[K]` among these `T` tokens.
///
/// # Errors
/// If the files cannot be written or a weight does not fit the storage.
pub fn decoder(path: &Path, models: &ModelConfig, params: &Params, storage: Storage) -> Result<Params> {
    let config = &models.language;
    let writer = Writer::create(path, "language model", params, storage)?.decoder(&models.lora, config.max_position_embeddings);
    let tokens = [BATCH, Dim::Free("tokens")];
    writer.input("input_ids", DataType::Int64, &tokens);
    writer.input("visual_features", DataType::Float, &[Dim::Free("features"), Dim::Is(config.hidden_size)]);
    writer.input("visual_index", DataType::Int64, &tokens);
    writer.input("seqlens_k", DataType::Int32, &[BATCH]);
    writer.input("total_sequence_length", DataType::Int32, &[]);
    writer.input("logit_positions", DataType::Int64, &[Dim::Free("positions")]);
    let logits = gemma(&writer, config);
    writer.output(&logits, "logits", &[BATCH, Dim::Free("positions"), Dim::Is(config.vocab_size)]);
    writer.finish()
}
