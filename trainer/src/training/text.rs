//! Training of a small BERT as the sentence encoder, for runs without a pretrained one.
//!
//! The method is unsupervised SimCSE (Gao et al. 2021): two embeddings of one sentence under dropout must be nearer to each other than to
//! those of other sentences. After this training stage the encoder is frozen, as the paper's is.

use super::config::Recipe;
use super::{progress, tokenizer};
use crate::data::{imagenome, instruct};
use crate::graph::adamw::AdamW;
use crate::graph::{Params, Torch, TorchTensor};
use crate::models::text::{TextConfig, TextInput, sentence_embedding, token_table};
use crate::run::{self, Run};
use crate::training::losses::normalize;
use anatomix::Structure;
use anatomix::parts::prompt::{self, ContextLine};
use anyhow::{Result, anyhow};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Number of pieces that the tokenizer learns.
const PIECES: usize = 900;
/// Temperature of the contrastive loss.
const TEMPERATURE: f64 = 0.05;

/// Trains tokenizer and sentence encoder.
///
/// # Errors
/// If data cannot be read or files cannot be written.
pub fn train(recipe: &Recipe, device: Device) -> Result<()> {
    let run = Run::create(&recipe.run)?;
    let images = imagenome::read(&recipe.data, |split| split != "test")?;
    let sentences: BTreeSet<&str> = images.iter().flat_map(|i| i.sentences.iter().map(String::as_str)).collect();
    let sentences: Vec<&str> = sentences.into_iter().collect();

    let line = |sentence: &str| {
        let line = ContextLine { structure: Structure::HEART, grid: [0, 0, 1, 1], sentence: sentence.into() };
        format!("{}\n", prompt::line_text(&line))
    };
    let mut texts: Vec<String> = sentences.iter().map(|s| line(s)).collect();
    for sample in instruct::read(&recipe.data.join("instruct.jsonl"))?.into_values().take(2000).flatten() {
        texts.push(format!("\nTask: {}", sample.question));
        texts.push(sample.answer);
    }
    texts.extend(Structure::all().map(|s| s.name().to_lowercase()));
    let tokenizer = tokenizer::train(&texts, PIECES)?;
    let path = run.file(run::TOKENIZER);
    tokenizer.save(&path, true).map_err(|e| anyhow!("cannot write {}: {e}", path.display()))?;

    let mut models = recipe.models.clone();
    let vocabulary = tokenizer.get_vocab_size(true) as i64;
    models.text.vocabulary = vocabulary;
    models.language.vocab_size = vocabulary;
    run.keep_models(&models)?;
    let config = &models.text;

    let settings = &recipe.text;
    tch::manual_seed(settings.seed);
    let params = Params::create(device);
    let whole = encode(&tokenizer, &sentences)?;
    let _ = tch::no_grad(|| embed(&Torch::new(&params), config, &whole));
    params.train(|_| true);
    let mut optimiser = AdamW::new(&params, settings.optimiser(), |_| 1.0);
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed as u64);
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    let bar = progress::bar(settings.steps, "text");
    let mut at = 0;
    for step in 0..settings.steps {
        if at + settings.batch > order.len() || step == 0 {
            order.shuffle(&mut rng);
            at = 0;
        }
        let chosen: Vec<&str> = order[at..(at + settings.batch).min(order.len())].iter().map(|&i| sentences[i]).collect();
        at += settings.batch;
        let tokens = encode(&tokenizer, &chosen)?;
        let ops = Torch { training: true, ..Torch::new(&params) };
        let (a, b) = (embed(&ops, config, &tokens), embed(&ops, config, &tokens));
        let logits = normalize(&a).matmul(&normalize(&b).tr()) / TEMPERATURE;
        let own = Tensor::arange(chosen.len() as i64, (Kind::Int64, device));
        let loss = logits.cross_entropy_for_logits(&own);
        optimiser.step(&loss, settings.rate_at(step));
        bar.set_message(format!("loss {:.4}", loss.double_value(&[])));
        bar.inc(1);
    }
    bar.finish_and_clear();
    params.save(&run.file(run::TEXT), |_| true)?;
    let spread = tch::no_grad(|| {
        let unit = normalize(&embed(&Torch::new(&params), config, &whole));
        let count = sentences.len() as f64;
        let sum = unit.matmul(&unit.tr()).sum(Kind::Float).double_value(&[]) - count;
        sum / (count * (count - 1.0))
    });
    eprintln!("text: {} sentences, {vocabulary} tokens, mean cosine between different sentences {spread:.3}", sentences.len());
    Ok(())
}

/// A batch of `N` sentences, padded to `T` tokens.
pub struct Tokens {
    /// Token ids `[N, T]`.
    ids: Tensor,
    /// 1 for a token and 0 for padding, `[N, T]`.
    present: Tensor,
}

/// Tokenizes sentences. An imported encoder's tokenizer adds the class token and the separator.
///
/// # Errors
/// If the tokenizer fails.
pub fn encode(tokenizer: &Tokenizer, sentences: &[&str]) -> Result<Tokens> {
    let encodings = tokenizer.encode_batch(sentences.to_vec(), true).map_err(|e| anyhow!("cannot tokenize a sentence: {e}"))?;
    let length = encodings.iter().map(|e| e.get_ids().len()).max().unwrap_or(1).max(1);
    let (mut ids, mut present) = (Vec::new(), Vec::new());
    for encoding in &encodings {
        let own = encoding.get_ids();
        ids.extend((0..length).map(|i| own.get(i).map_or(0, |&id| i64::from(id))));
        present.extend((0..length).map(|i| if i < own.len() { 1f32 } else { 0.0 }));
    }
    let shape = [sentences.len() as i64, length as i64];
    Ok(Tokens { ids: Tensor::from_slice(&ids).reshape(shape), present: Tensor::from_slice(&present).reshape(shape) })
}

/// Sentence embeddings `[N, D]`, not normalised.
pub fn embed(ops: &Torch, config: &TextConfig, tokens: &Tokens) -> Tensor {
    let [ids, present] = [&tokens.ids, &tokens.present].map(|tensor| tensor.to_device(ops.params.device()));
    let present = present.to_kind(ops.kind);
    let table = token_table(ops, config).0;
    let counts = present.sum_dim_intlist([1i64].as_slice(), true, ops.kind).clamp_min(1.0);
    let input = TextInput {
        tokens: TorchTensor(Tensor::embedding(&table, &ids, -1, false, false)),
        mask: TorchTensor(((&present - 1.0) * 1e9).unsqueeze(1).unsqueeze(1)),
        pooling: TorchTensor((&present / counts).unsqueeze(1)),
        length: ids.size()[1],
    };
    sentence_embedding(ops, config, &input).0
}

/// Embeddings of many sentences by a run's frozen encoder, `[sentences, D]`, computed in this type and in batches.
///
/// # Errors
/// If the encoder cannot be read or does not fit its configuration, or the tokenizer fails.
pub fn embed_all(run: &Run, config: &TextConfig, tokenizer: &Tokenizer, sentences: &[&str], device: Device, kind: Kind) -> Result<Tensor> {
    let path = run.file(run::TEXT);
    let params = Params::load(&path, device)?;
    let ops = Torch { kind, ..Torch::new(&params) };
    let parts = sentences
        .chunks(256)
        .map(|chunk| {
            let tokens = encode(tokenizer, chunk)?;
            Ok(tch::no_grad(|| embed(&ops, config, &tokens)))
        })
        .collect::<Result<Vec<_>>>()?;
    params.check(&path)?;
    Ok(Tensor::cat(&parts, 0))
}
