//! Outputs of the frozen perception module for a data set and its mirrored images, computed once.

use super::text;
use crate::data::imagenome::Annotated;
use crate::data::images::Images;
use crate::graph::{Params, Torch, TorchTensor};
use crate::models::apm::apm;
use crate::models::text::project;
use crate::progress;
use crate::run::{self, ModelConfig, Run};
use crate::training::losses::normalize;
use anatomix::parts::prompt::ContextLine;
use anatomix::{NormalizedBox, STRUCTURE_COUNT, Structure};
use anyhow::{Context, Result, anyhow};
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Boxes, embeddings and retrieved sentences of `N` images. Image `i` is in row `2 i`, its mirrored image in row `2 i + 1`.
pub struct PerceptionOutputs {
    /// Centre and size of each box, `[2 N, 36, 4]`.
    boxes: Vec<f32>,
    /// Index of the retrieved sentence in the structure's list, `[2 N, 36]`.
    retrieved: Vec<usize>,
    sentences: Vec<Vec<String>>,
    /// Image tokens `[2 N, P, width]`.
    tokens: Tensor,
    /// Object embeddings `[2 N, 36, E]`.
    objects: Tensor,
}

/// A run's sentences with their embeddings.
pub struct Database {
    /// Sentences of each structure.
    pub sentences: Vec<Vec<String>>,
    /// For each structure the projected and normalised embeddings of its `n` sentences, `[n, E]`.
    pub embeddings: Vec<Tensor>,
}

impl Database {
    /// Computes the embeddings of a run's sentences, in fp32 or, for a bundle, in fp64.
    ///
    /// # Errors
    /// If a file of the run is missing or does not fit.
    pub fn build(run: &Run, models: &ModelConfig, params: &Params, kind: Kind) -> Result<Self> {
        let path = run.file(run::SENTENCES);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}; run `train apm` first", path.display()))?;
        let sentences: Vec<Vec<String>> = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        anyhow::ensure!(
            sentences.len() == STRUCTURE_COUNT && sentences.iter().all(|s| !s.is_empty()),
            "{} must hold sentences for each of {STRUCTURE_COUNT} structures",
            path.display()
        );
        let path = run.sentence_tokenizer();
        let tokenizer = Tokenizer::from_file(&path).map_err(|e| anyhow!("cannot read {}: {e}", path.display()))?;
        let _guard = tch::no_grad_guard();
        let ops = Torch { kind, ..Torch::new(params) };
        let embeddings = sentences
            .iter()
            .map(|list| {
                let texts: Vec<&str> = list.iter().map(String::as_str).collect();
                let frozen = text::embed_all(run, &models.text, &tokenizer, &texts, params.device(), kind)?;
                Ok(normalize(&project(&ops, &models.text, models.apm.embedding, &TorchTensor(frozen)).0))
            })
            .collect::<Result<_>>()?;
        Ok(Self { sentences, embeddings })
    }
}

impl PerceptionOutputs {
    /// Runs a run's perception module on images and on their mirrored images.
    ///
    /// # Errors
    /// If images or files of the run cannot be read.
    pub fn load<'a>(run: &Run, models: &ModelConfig, images: impl Iterator<Item = &'a Annotated>, device: Device) -> Result<Self> {
        let params = Params::load(&run.file(run::APM), device)?;
        let database = Database::build(run, models, &params, Kind::Float)?;
        let paths: Vec<_> = images.map(|i| i.image.clone()).collect();
        let pictures = Images::load(&paths, &models.preprocess())?;
        let _guard = tch::no_grad_guard();
        let ops = Torch::new(&params);
        let (mut boxes, mut tokens, mut objects) = (Vec::new(), Vec::new(), Vec::new());
        let bar = progress::bar(paths.len() as u64, "perceiving");
        let count = paths.len() as i64;
        for start in (0..count).step_by(16) {
            let indices: Vec<i64> = (start..(start + 16).min(count)).collect();
            let picture = pictures.batch(&indices).to_device(device);
            let both = Tensor::stack(&[&picture, &picture.flip([3])], 1).flatten(0, 1);
            let output = apm(&ops, &models.apm, &TorchTensor(both));
            boxes.push(output.boxes.0.to_device(Device::Cpu));
            objects.push(output.object_embeddings.0.to_device(Device::Cpu));
            tokens.push(output.image_tokens.0.to_kind(Kind::Half).to_device(Device::Cpu));
            bar.inc(indices.len() as u64);
        }
        bar.finish_and_clear();
        let objects = Tensor::cat(&objects, 0);
        let best: Vec<Tensor> = database
            .embeddings
            .iter()
            .enumerate()
            .map(|(s, own)| normalize(&objects.select(1, s as i64)).matmul(&own.to_device(Device::Cpu).tr()).argmax(-1, false))
            .collect();
        let retrieved: Vec<i64> = Tensor::stack(&best, 1).flatten(0, -1).try_into()?;
        Ok(Self {
            boxes: Tensor::cat(&boxes, 0).flatten(0, -1).try_into()?,
            retrieved: retrieved.into_iter().map(|i| i as usize).collect(),
            sentences: database.sentences,
            tokens: Tensor::cat(&tokens, 0),
            objects,
        })
    }

    /// Context lines of an image, or of its mirrored image.
    pub fn lines(&self, picture: usize, flip: bool) -> Vec<ContextLine> {
        let row = 2 * picture + usize::from(flip);
        let lines = Structure::all().map(|structure| {
            let s = structure.index();
            let at = (row * STRUCTURE_COUNT + s) * 4;
            let [cx, cy, w, h] = [0, 1, 2, 3].map(|k| self.boxes[at + k]);
            ContextLine {
                structure,
                grid: NormalizedBox::from_center(cx, cy, w, h).to_grid(),
                sentence: self.sentences[s][self.retrieved[row * STRUCTURE_COUNT + s]].clone(),
            }
        });
        lines.collect()
    }

    /// Image tokens `[B, P, width]` and object embeddings `[B, 36, E]` of images, each mirrored or not.
    pub fn features(&self, pictures: &[usize], flips: &[bool], device: Device) -> (Tensor, Tensor) {
        let rows: Vec<i64> = pictures.iter().zip(flips).map(|(&p, &f)| 2 * p as i64 + i64::from(f)).collect();
        let rows = Tensor::from_slice(&rows);
        let pick = |x: &Tensor| x.index_select(0, &rows).to_device(device).to_kind(Kind::Float);
        (pick(&self.tokens), pick(&self.objects))
    }
}
