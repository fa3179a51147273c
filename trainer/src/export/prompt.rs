//! The prompt of the golden input, which decoders are measured with. For a run without a perception module there is one of text alone.

use crate::graph::CausalBatch;
use crate::models::gemma::GemmaConfig;
use crate::run::ModelConfig;
use anatomix::Structure;
use anatomix::parts::prompt::{ContextLine, PromptTokenizer};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The question of the prompt.
const QUESTION: &str = "Where is the heart?";

/// Largest number of multiplications in the language model for the prompt. They take some seconds on two cores.
const MAX_WORK: i64 = 1_000_000_000_000;

/// Tokens, and the visual features that replace some of them.
pub(super) struct Prompt {
    ids: Vec<i64>,
    index: Vec<i64>,
    /// `[V, hidden]`, at least one row.
    visual: Tensor,
}

impl Prompt {
    /// A study's context with a question. For large models only its end is kept, because it is computed whenever the bundle is opened.
    pub fn new(tokenizer: &PromptTokenizer, lines: &[ContextLine], visual: Tensor, models: &ModelConfig) -> Result<Self> {
        let (config, image_features) = (&models.language, visual.size()[0] - Structure::all().len() as i64);
        let context = tokenizer.context(&models.prompt.form(), lines, image_features as usize)?;
        let question = tokenizer.question(QUESTION)?;
        let mut index = [context.visual_index, vec![-1; question.len()]].concat();
        let mut ids = [context.ids, question].concat();
        let cut = ids.len().saturating_sub((MAX_WORK / config.weights().max(1)).max(1) as usize);
        ids.drain(..cut);
        index.drain(..cut);
        check(&ids, config)?;
        Ok(Self { ids, index, visual })
    }

    /// A prompt without visual features, for a language model without projectors.
    pub fn of_words(tokenizer: &PromptTokenizer, models: &ModelConfig) -> Result<Self> {
        let line = |structure: Structure| {
            let at = structure.index() as u32;
            ContextLine { structure, grid: [at, 2 * at, 500 + at, 700 + 2 * at], sentence: format!("{structure} is healthy.") }
        };
        let lines: Vec<ContextLine> = Structure::all().map(line).collect();
        let visual = Tensor::zeros([Structure::all().len() as i64 + 1, models.language.hidden_size], (Kind::Float, Device::Cpu));
        let mut prompt = Self::new(tokenizer, &lines, visual, models)?;
        prompt.index.fill(-1);
        Ok(prompt)
    }

    /// Reads the prompt of a golden input.
    pub fn read(golden: &Path) -> Result<Self> {
        let golden: BTreeMap<String, Tensor> = Tensor::read_safetensors(golden)?.into_iter().collect();
        let tensor = |name: &str| golden.get(name).with_context(|| format!("the golden input lacks {name}"));
        let integers = |name: &str| Ok::<_, anyhow::Error>(Vec::<i64>::try_from(tensor(name)?.flatten(0, -1))?);
        Ok(Self { ids: integers("input_ids")?, index: integers("visual_index")?, visual: tensor("visual_features")?.flatten(0, 1) })
    }

    /// Number of tokens.
    pub fn len(&self) -> i64 {
        self.ids.len() as i64
    }

    /// A batch of this sequence, with logits at its last `wanted` positions.
    pub fn batch(&self, wanted: i64) -> CausalBatch {
        let length = self.len();
        CausalBatch {
            ids: Tensor::from_slice(&self.ids).unsqueeze(0),
            visual: Some(self.visual.shallow_clone()),
            visual_index: Tensor::from_slice(&self.index).unsqueeze(0),
            positions: Tensor::arange(length, (Kind::Int64, Device::Cpu)).unsqueeze(0),
            mask: Tensor::ones([1, 1, length, length], (Kind::Bool, Device::Cpu)).tril(0),
            selected: Tensor::arange_start(length - wanted, length, (Kind::Int64, Device::Cpu)),
        }
    }
}

fn check(ids: &[i64], config: &GemmaConfig) -> Result<()> {
    let largest = ids.iter().copied().max().unwrap_or(0);
    ensure!(
        largest < config.vocab_size,
        "the tokenizer gives token {largest}, but the language model has {} rows; use the tokenizer it was trained with",
        config.vocab_size
    );
    ensure!(
        (ids.len() as i64) < config.max_position_embeddings,
        "a prompt takes {} tokens, but max_position_embeddings is {}; raise it in the run's configuration",
        ids.len(),
        config.max_position_embeddings
    );
    Ok(())
}
