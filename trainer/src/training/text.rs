//! Training of a small BERT as the sentence encoder, for runs without a pretrained one.
//!
//! The method is unsupervised SimCSE (Gao et al. 2021): two embeddings of one sentence under dropout must be nearer to each other than to
//! those of other sentences. After this training stage the encoder is frozen, as the paper's is.

use super::checkpoint::Start;
use super::config::Recipe;
use super::fit::{Loss, Stage, Step, Validation, fit};
use super::kept;
use super::results;
use super::settings::over;
use super::tokenizer;
use crate::data::loading::index::Index;
use crate::data::loading::prepared::Prepared;
use crate::data::samples::record::Image;
use crate::data::sources::split::Split;
use crate::distributed::Peers;
use crate::graph::{Params, Torch, TorchTensor};
use crate::models::text::{TextConfig, TextInput, sentence_embedding, token_table};
use crate::run::{self, ModelConfig, Run};
use crate::training::losses::normalize;
use anatomix::Structure;
use anatomix::parts::prompt::{self, ContextLine};
use anyhow::{Result, anyhow, ensure};
use std::collections::BTreeSet;
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Number of pieces that the tokenizer learns.
const PIECES: usize = 900;
/// Temperature of the contrastive loss.
const TEMPERATURE: f64 = 0.05;

/// Splits whose texts are used: no word of the test split.
const SPLITS: [Split; 2] = [Split::Train, Split::Validate];
/// Number of images whose questions and answers the tokenizer is trained on.
const IMAGES: usize = 2000;

/// Trains tokenizer and sentence encoder.
///
/// # Errors
/// If data cannot be read, files cannot be written, or the training stops early.
pub fn train(recipe: &Recipe, device: Device, start: Start) -> Result<()> {
    ensure!(start.from.is_none(), "--from does not apply to `text`; import a sentence encoder instead");
    let run = Run::create(&recipe.run)?;
    let index = Index::read(Prepared::open(&recipe.data)?, &SPLITS)?;
    let images: Vec<u32> = SPLITS.iter().flat_map(|&split| index.annotated(split)).collect();
    let mut sentences = BTreeSet::new();
    index.each(&images, |image| {
        sentences.extend(image.sentences.into_iter().flatten());
        Ok(())
    })?;
    ensure!(!sentences.is_empty(), "{} has no images with sentences on structures", index.prepared.folder.display());
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();

    let line = |sentence: &str| {
        let line = ContextLine { structure: Structure::HEART, grid: [0, 0, 1, 1], sentence: sentence.into() };
        format!("{}\n", prompt::line_text(&line))
    };
    let mut texts: Vec<String> = sentences.iter().map(|s| line(s)).collect();
    for (number, image) in first_by_name(&index)? {
        for split in SPLITS {
            for sample in index.samples(number, &image, split)? {
                texts.push(format!("\nTask: {}", sample.question));
                texts.push(sample.answer);
            }
        }
    }
    texts.extend(Structure::all().map(|s| s.name().to_lowercase()));
    let tokenizer = tokenizer::train(&texts, PIECES)?;
    let mut models = over(&ModelConfig::default(), recipe.models.clone())?;
    let vocabulary = tokenizer.get_vocab_size(true) as i64;
    models.text.vocabulary = vocabulary;
    models.language.vocab_size = vocabulary;
    if !start.dry_run && start.peers.is_first() {
        run.keep_models(&models)?;
    }

    let settings = &recipe.text;
    tch::manual_seed(settings.seed);
    let params = Params::create(device);
    let whole = encode(&tokenizer, &models.text, &sentences)?;
    let _ = tch::no_grad(|| embed(&Torch::new(&params), &models.text, &whole));
    kept::keep(&run, "text", recipe, settings, &index.hash, start)?;
    let mut stage = SentenceEncoder { config: &models.text, tokenizer: &tokenizer, sentences: &sentences, whole: &whole };
    fit(&run, &mut stage, settings, &params, start)?;
    if start.dry_run || !start.peers.is_first() {
        return Ok(());
    }
    // Both at the end: until then the run keeps an earlier encoder with its own tokenizer.
    let pieces: results::Write = &|path| tokenizer.save(path, true).map_err(|e| anyhow!("cannot write {}: {e}", path.display()));
    let encoder: results::Write = &|path| Ok(params.save(path, |_| true)?);
    results::put(&run, "text", &[(run::TOKENIZER, pieces), (run::TEXT, encoder)])
}

/// The first images with samples by their names, so that the tokenizer is the same whatever the order of the data.
fn first_by_name(index: &Index) -> Result<Vec<(u32, Image)>> {
    let images: BTreeSet<u32> = SPLITS.iter().flat_map(|&split| index.with_samples(split, |_| true)).collect();
    let mut named = images.into_iter().map(|number| Ok((index.image(number)?.id, number))).collect::<Result<Vec<_>>>()?;
    named.sort();
    named.truncate(IMAGES);
    named.into_iter().map(|(_, number)| Ok((number, index.image(number)?))).collect()
}

/// The training stage `text`.
struct SentenceEncoder<'a> {
    config: &'a TextConfig,
    tokenizer: &'a Tokenizer,
    sentences: &'a [&'a str],
    whole: &'a Tokens,
}

impl Stage for SentenceEncoder<'_> {
    fn name(&self) -> &'static str {
        "text"
    }

    fn samples(&self) -> usize {
        self.sentences.len()
    }

    fn sample(&self, index: usize) -> String {
        format!("{:?}", self.sentences[index])
    }

    fn trains(&self, _: &str) -> bool {
        true
    }

    fn keeps(&self, _: &str) -> bool {
        true
    }

    fn gradients(&mut self, params: &Params, step: &Step) -> Result<Loss> {
        let chosen: Vec<&str> = step.samples.iter().map(|taken| self.sentences[taken.sample]).collect();
        let tokens = encode(self.tokenizer, self.config, &chosen)?;
        let ops = Torch { training: true, ..Torch::new(params) };
        let (a, b) = (embed(&ops, self.config, &tokens), embed(&ops, self.config, &tokens));
        let (a, b) = (step.peers.rows(&a)?, step.peers.rows(&b)?);
        let logits = normalize(&a).matmul(&normalize(&b).tr()) / TEMPERATURE;
        let own = Tensor::arange(a.size()[0], (Kind::Int64, params.device()));
        let loss = logits.cross_entropy_for_logits(&own);
        loss.backward();
        Ok(Loss { total: loss.double_value(&[]), parts: vec![] })
    }

    /// The mean cosine between different sentences. It has no validation split: all sentences are trained on. Each process computes it,
    /// because it is quickly done.
    fn validate(&mut self, params: &Params, _: Peers) -> Result<Option<Validation>> {
        let unit = normalize(&embed(&Torch::new(params), self.config, self.whole));
        let count = self.sentences.len() as f64;
        let sum = unit.matmul(&unit.tr()).sum(Kind::Float).double_value(&[]) - count;
        let cosine = sum / (count * (count - 1.0)).max(1.0);
        Ok(Some(Validation { figures: vec![("mean_cosine", cosine)], score: -cosine, ..Validation::default() }))
    }
}

/// A batch of `N` sentences, padded to `T` tokens.
pub struct Tokens {
    /// Token ids `[N, T]`.
    ids: Tensor,
    /// 1 for a token and 0 for padding, `[N, T]`.
    present: Tensor,
}

/// Tokenizes sentences. An imported encoder's tokenizer adds the class token and the separator. Of a sentence with more tokens than the
/// encoder has positions, the first ones are kept, and the separator.
///
/// # Errors
/// If the tokenizer fails.
pub fn encode(tokenizer: &Tokenizer, config: &TextConfig, sentences: &[&str]) -> Result<Tokens> {
    let encodings = tokenizer.encode_batch(sentences.to_vec(), true).map_err(|e| anyhow!("cannot tokenize a sentence: {e}"))?;
    let most = config.positions as usize;
    let kept: Vec<Vec<u32>> = encodings
        .iter()
        .map(|encoding| {
            let (mut ids, special) = (encoding.get_ids().to_vec(), encoding.get_special_tokens_mask().last() == Some(&1));
            let last = ids.last().copied().filter(|_| special && ids.len() > most);
            ids.truncate(most);
            if let (Some(last), Some(end)) = (last, ids.last_mut()) {
                *end = last;
            }
            ids
        })
        .collect();
    let length = kept.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let (mut ids, mut present) = (Vec::new(), Vec::new());
    for own in &kept {
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
            let tokens = encode(tokenizer, config, chunk)?;
            Ok(tch::no_grad(|| embed(&ops, config, &tokens)))
        })
        .collect::<Result<Vec<_>>>()?;
    params.check(&path)?;
    Ok(Tensor::cat(&parts, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::models::wordlevel::WordLevel;
    use tokenizers::pre_tokenizers::whitespace::Whitespace;
    use tokenizers::processors::bert::BertProcessing;

    #[test]
    fn a_sentence_with_more_tokens_than_positions_keeps_its_beginning_and_the_separator() {
        let words = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e"];
        let vocab = words.iter().zip(0u32..).map(|(word, id)| (word.to_string(), id)).collect();
        let model = WordLevel::builder().vocab(vocab).unk_token("[UNK]".into()).build().unwrap();
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(Whitespace {}));
        let config = TextConfig { positions: 4, ..TextConfig::default() };
        let ids = |tokenizer: &Tokenizer| {
            let tokens = encode(tokenizer, &config, &["a b c d e", "a"]).unwrap();
            (tokens.ids.size(), Vec::<i64>::try_from(tokens.ids.flatten(0, -1)).unwrap())
        };
        assert_eq!(ids(&tokenizer), (vec![2, 4], vec![3, 4, 5, 6, 3, 0, 0, 0]));
        tokenizer.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), 2), ("[CLS]".into(), 1))));
        assert_eq!(ids(&tokenizer), (vec![2, 4], vec![1, 3, 4, 2, 1, 3, 2, 0]));
    }
}
