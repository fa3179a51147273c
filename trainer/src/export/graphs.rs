//! The three graphs with the inputs and outputs that the SDK binds. Each returns the parameters as its graph holds them.

use crate::graph::Params;
use crate::graph::onnx::{DataType, Dim, Operators, Precision, Ranges, Writer};
use crate::models::apm as perception;
use crate::models::apm::ApmConfig;
use crate::models::gemma::gemma;
use crate::run::ModelConfig;
use anatomix::{LABEL_COUNT, STRUCTURE_COUNT};
use anyhow::{Result, bail, ensure};
use std::path::Path;

/// Name of the perception module's graph.
const APM: &str = "anatomy perception module";
const BATCH: Dim = Dim::Free("batch");
const OBJECTS: Dim = Dim::Is(STRUCTURE_COUNT as i64);

/// Writes the perception module: `image` `[B, 1, S, S]` to `boxes`, `object_embeddings`, `image_tokens`, `image_logits`. In 8 bits, its
/// convolutions and its transformer's products with weights are rounded with the `ranges` of their activations; attention in the encoder,
/// norms and heads compute in fp32.
///
/// # Errors
/// If the files cannot be written, or a weight is not finite in the type in which it is stored.
pub fn apm(path: &Path, config: &ApmConfig, params: &Params, precision: Precision, ranges: Option<Ranges>) -> Result<Params> {
    check_apm(precision)?;
    let writer = match (precision, ranges) {
        (Precision::Int8, Some(ranges)) => Writer::create(path, APM, params, Precision::Fp32)?.quantizing(ranges),
        (Precision::Int8, None) => bail!("an export in int8 needs ranges of activations; calibrate it first"),
        (precision, _) => Writer::create(path, APM, params, precision)?,
    };
    let side = Dim::Is(config.image_size);
    let image = writer.entry(&writer.input("image", DataType::Float, &[BATCH, Dim::Is(1), side, side]));
    let output = perception::apm(&writer, config, &image);
    writer.output(&output.boxes, "boxes", &[BATCH, OBJECTS, Dim::Is(4)]);
    writer.output(&output.object_embeddings, "object_embeddings", &[BATCH, OBJECTS, Dim::Is(config.embedding)]);
    writer.output(&output.image_tokens, "image_tokens", &[BATCH, Dim::Is(config.patches()), Dim::Is(config.width)]);
    writer.output(&output.image_logits, "image_logits", &[BATCH, Dim::Is(LABEL_COUNT as i64)]);
    writer.finish()
}

/// Writes the projectors: `image_tokens` and `object_embeddings` to `visual_features` `[B, image features + 36, hidden]`.
///
/// # Errors
/// If the files cannot be written, or a weight is not finite in the type in which it is stored.
pub fn projector(path: &Path, models: &ModelConfig, params: &Params, precision: Precision) -> Result<Params> {
    let writer = Writer::create(path, "projectors", params, precision)?;
    let (patches, width, embedding) = (models.apm.patches(), models.apm.width, models.apm.embedding);
    let hidden = models.language.hidden_size;
    let tokens = writer.input("image_tokens", DataType::Float, &[BATCH, Dim::Is(patches), Dim::Is(width)]);
    let objects = writer.input("object_embeddings", DataType::Float, &[BATCH, OBJECTS, Dim::Is(embedding)]);
    let features = models.visual_features(&writer, &tokens, &objects);
    let rows = (models.image_features() + STRUCTURE_COUNT) as i64;
    writer.output(&features, "visual_features", &[BATCH, Dim::Is(rows), Dim::Is(hidden)]);
    writer.finish()
}

/// Writes the language model with its adapters merged. The same graph is used for prefill, decoding and the verification of draft tokens:
///
/// - `input_ids` `[B, T]` continue the KV cache. If `visual_index` `[B, T]` of a token is not -1, that row of `visual_features`
///   `[V, hidden]` (at least one row) replaces its embedding.
/// - `past_key_values.N.key|value` `[B, kv_heads, capacity, head_dim]`; `present.N.key|value` may be the same buffers.
/// - `seqlens_k` `[B]` is the number of all tokens, including these, minus one; `total_sequence_length` is the largest number.
/// - `position_ids` `[B, T]` are the tokens' positions in their text, for the rotary embedding. They may differ from their places in the
///   cache, which can hold several continuations of one text.
/// - `full_attention_bias`, `sliding_attention_bias` `[1, 1, T, total]`, for layers without and with a window: 0 for places of the cache
///   that a token attends to, -1e30 for others. Later places are always masked.
/// - If a layer's cache has `sliding_capacity` places, it may be bound from a later place on: `sliding_attention_bias` then has columns
///   for the places from there on.
/// - `logits` `[B, K, vocabulary]` of the `logit_positions` `[K]` among these `T` tokens.
///
/// All floating-point inputs and outputs are fp32, except the KV cache, which has the type of the arithmetic. Of lazy parameters, at most a
/// layer's matrix or a block of the embedding table's rows is in memory.
///
/// # Errors
/// If the precision is not supported for the model or the operators, the files cannot be written, or a weight is not finite in the type in
/// which it is stored.
pub fn decoder(path: &Path, models: &ModelConfig, params: &Params, precision: Precision, operators: Operators) -> Result<Params> {
    check_decoder(precision, operators)?;
    let config = &models.language;
    let positions = config.max_position_embeddings;
    let writer = Writer::create(path, "language model", params, precision)?.decoder(&models.lora, positions, operators);
    let tokens = [BATCH, Dim::Free("tokens")];
    writer.input("input_ids", DataType::Int64, &tokens);
    writer.input("visual_features", DataType::Float, &[Dim::Free("features"), Dim::Is(config.hidden_size)]);
    writer.input("visual_index", DataType::Int64, &tokens);
    writer.input("seqlens_k", DataType::Int32, &[BATCH]);
    writer.input("total_sequence_length", DataType::Int32, &[]);
    writer.input("position_ids", DataType::Int64, &tokens);
    for bias in config.biases().into_keys() {
        writer.input(bias, DataType::Float, &[Dim::Is(1), Dim::Is(1), Dim::Free("tokens"), Dim::Free("total")]);
    }
    writer.input("logit_positions", DataType::Int64, &[Dim::Free("positions")]);
    let logits = gemma(&writer, config);
    writer.output(&logits, "logits", &[BATCH, Dim::Free("positions"), Dim::Is(config.vocab_size)]);
    writer.finish()
}

/// Checks that a decoder can be written with this precision and these operators.
///
/// # Errors
/// If it cannot, with the reason and alternatives.
pub fn check_decoder(precision: Precision, operators: Operators) -> Result<()> {
    ensure!(
        precision != Precision::Fp16,
        "the decoder is not exported in fp16: Gemma's activations grow beyond 65504, the largest number of fp16, and its logits would \
         not be finite; choose bf16 (for CUDA), int4, int8 or fp16-weights (weights in fp16, arithmetic in fp32)"
    );
    ensure!(
        operators == Operators::Fused || !matches!(precision, Precision::Int8 | Precision::Int4),
        "products with {precision} weights are an operator of ONNX Runtime, not of the standard; export with --operators fused, or a \
         portable decoder in fp32, fp16-weights or bf16"
    );
    Ok(())
}

/// Checks that a perception module can be written with this precision.
///
/// # Errors
/// If it cannot, with alternatives.
pub fn check_apm(precision: Precision) -> Result<()> {
    ensure!(
        matches!(precision, Precision::Fp32 | Precision::Fp16Weights | Precision::Fp16 | Precision::Int8),
        "the perception module is not exported in {precision}; choose fp32, fp16-weights, fp16 or int8"
    );
    Ok(())
}
