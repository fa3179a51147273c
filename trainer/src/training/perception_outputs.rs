//! Outputs of the frozen perception module, as the stages `align` and `instruct` take them.

use super::text;
use crate::data::loading::store::Store;
use crate::graph::{Params, Torch, TorchTensor};
use crate::models::apm::apm;
use crate::models::text::project;
use crate::run::{self, ModelConfig, Run};
use crate::training::losses::normalize;
use anatomix::parts::bundle::hash_file;
use anatomix::parts::hash::{Digest, Hasher};
use anatomix::parts::prompt::ContextLine;
use anatomix::{NormalizedBox, STRUCTURE_COUNT, Structure};
use anyhow::{Context, Result, anyhow, ensure};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Sizes of the module's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Number of image tokens, `P`.
    pub patches: usize,
    /// Width of an image token.
    pub width: usize,
    /// Width of an object embedding, `E`.
    pub embedding: usize,
}

impl Sizes {
    /// Those of these models.
    pub fn of(models: &ModelConfig) -> Self {
        let [patches, width, embedding] = [models.apm.patches(), models.apm.width, models.apm.embedding].map(|size| size as usize);
        Self { patches, width, embedding }
    }

    /// Number of bytes of the outputs for one image: boxes, sentences and embeddings in 4 bytes a number, tokens in 2.
    pub fn bytes(&self) -> usize {
        4 * STRUCTURE_COUNT * (4 + 1 + self.embedding) + 2 * self.patches * self.width
    }
}

/// Outputs for one image, or for its mirrored image.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// Centre and size of each box, `[36, 4]`.
    boxes: Vec<f32>,
    /// Index of the retrieved sentence in the structure's list, `[36]`.
    retrieved: Vec<u32>,
    /// Object embeddings, `[36, E]`.
    objects: Vec<f32>,
    /// Image tokens `[P, width]` in fp16, little-endian.
    tokens: Vec<u8>,
}

impl Outputs {
    /// Appends the bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.boxes.iter().flat_map(|v| v.to_le_bytes()));
        out.extend(self.retrieved.iter().flat_map(|v| v.to_le_bytes()));
        out.extend(self.objects.iter().flat_map(|v| v.to_le_bytes()));
        out.extend(&self.tokens);
    }

    /// Reads the bytes; `None` if there is another number of them.
    pub fn read(sizes: &Sizes, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != sizes.bytes() {
            return None;
        }
        let (boxes, rest) = bytes.split_at_checked(4 * STRUCTURE_COUNT * 4)?;
        let (retrieved, rest) = rest.split_at_checked(4 * STRUCTURE_COUNT)?;
        let (objects, tokens) = rest.split_at_checked(4 * STRUCTURE_COUNT * sizes.embedding)?;
        let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let retrieved = retrieved.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        Some(Self { boxes: floats(boxes), retrieved, objects: floats(objects), tokens: tokens.into() })
    }

    /// Outputs of zeros.
    pub fn zeros(sizes: &Sizes) -> Self {
        Self {
            boxes: vec![0.0; 4 * STRUCTURE_COUNT],
            retrieved: vec![0; STRUCTURE_COUNT],
            objects: vec![0.0; STRUCTURE_COUNT * sizes.embedding],
            tokens: vec![0; 2 * sizes.patches * sizes.width],
        }
    }

    /// Context lines; `sentences` are those of the run.
    ///
    /// # Errors
    /// If the outputs belong to other sentences.
    pub fn lines(&self, sentences: &[Vec<String>]) -> Result<Vec<ContextLine>> {
        let boxes = self.boxes.as_chunks::<4>().0;
        Structure::all()
            .zip(boxes.iter().zip(&self.retrieved))
            .map(|(structure, (&[cx, cy, w, h], &retrieved))| {
                let sentence = sentences.get(structure.index()).and_then(|own| own.get(retrieved as usize));
                let sentence = sentence.context("the perceived features belong to other sentences; delete them")?.clone();
                Ok(ContextLine { structure, grid: NormalizedBox::from_center(cx, cy, w, h).to_grid(), sentence })
            })
            .collect()
    }
}

/// Image tokens `[B, P, width]` and object embeddings `[B, 36, E]` of a batch.
///
/// # Errors
/// If the outputs have other sizes.
pub fn features(outputs: &[&Outputs], sizes: &Sizes, device: Device) -> Result<(Tensor, Tensor)> {
    let count = outputs.len() as i64;
    let tokens: Vec<u8> = outputs.iter().flat_map(|o| &o.tokens).copied().collect();
    let objects: Vec<f32> = outputs.iter().flat_map(|o| &o.objects).copied().collect();
    let tokens = Tensor::f_from_data_size(&tokens, &[count, sizes.patches as i64, sizes.width as i64], Kind::Half)?;
    let objects = Tensor::f_from_slice(&objects)?.f_reshape([count, STRUCTURE_COUNT as i64, sizes.embedding as i64])?;
    Ok((tokens.to_device(device).to_kind(Kind::Float), objects.to_device(device)))
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
        let sentences = sentences(run)?;
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

/// Reads a run's sentences of each structure.
///
/// # Errors
/// If the file is missing or damaged.
pub fn sentences(run: &Run) -> Result<Vec<Vec<String>>> {
    let path = run.file(run::SENTENCES);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}; run `train apm` first", path.display()))?;
    let sentences: Vec<Vec<String>> = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    ensure!(
        sentences.len() == STRUCTURE_COUNT && sentences.iter().all(|s| !s.is_empty()),
        "{} must hold sentences for each of {STRUCTURE_COUNT} structures",
        path.display()
    );
    Ok(sentences)
}

/// A run's frozen perception module with its sentences.
pub struct Perceiver {
    params: Params,
    models: ModelConfig,
    /// Embeddings of each structure's sentences, on the CPU.
    embeddings: Vec<Tensor>,
}

impl Perceiver {
    /// Loads the module.
    ///
    /// # Errors
    /// If a file of the run cannot be read.
    pub fn load(run: &Run, models: &ModelConfig, device: Device) -> Result<Self> {
        let params = Params::load(&run.file(run::APM), device)?;
        let Database { embeddings, .. } = Database::build(run, models, &params, Kind::Float)?;
        let embeddings = embeddings.into_iter().map(|own| own.to_device(Device::Cpu)).collect();
        Ok(Self { params, models: models.clone(), embeddings })
    }

    /// Runs the module on images `[N, 1, S, S]`.
    ///
    /// # Errors
    /// If its outputs cannot be converted.
    pub fn perceive(&self, images: &Tensor) -> Result<Vec<Outputs>> {
        let _guard = tch::no_grad_guard();
        let ops = Torch::new(&self.params);
        let output = apm(&ops, &self.models.apm, &TorchTensor(images.to_device(self.params.device())));
        let [boxes, objects] = [output.boxes.0, output.object_embeddings.0].map(|tensor| tensor.to_device(Device::Cpu));
        let tokens = output.image_tokens.0.to_kind(Kind::Half).to_device(Device::Cpu).contiguous();
        let best = self.embeddings.iter().zip(0..);
        let best: Vec<Tensor> = best.map(|(own, s)| normalize(&objects.select(1, s)).matmul(&own.tr()).argmax(-1, false)).collect();
        let best = Tensor::stack(&best, 1);
        let rows = |tensor: &Tensor, row: i64| Vec::<f32>::try_from(tensor.get(row).flatten(0, -1));
        let count = images.size().first().copied().unwrap_or_default();
        (0..count)
            .map(|row| {
                let tokens = tokens.get(row);
                let mut halves = vec![0; 2 * tokens.numel()];
                tokens.f_copy_data_u8(&mut halves, tokens.numel())?;
                let retrieved = Vec::<i64>::try_from(best.get(row))?.into_iter().map(|index| index as u32).collect();
                Ok(Outputs { boxes: rows(&boxes, row)?, retrieved, objects: rows(&objects, row)?, tokens: halves })
            })
            .collect()
    }
}

/// Where the outputs for images and mirrored images are kept: they follow from the module, the sentences and the preprocessing.
///
/// # Errors
/// If a file of the run cannot be read.
pub fn store(run: &Run, models: &ModelConfig, folder: Option<&Path>) -> Result<Store> {
    let mut hasher = Hasher::default();
    for file in [run.file(run::APM), run.file(run::SENTENCES), run.file(run::TEXT), run.sentence_tokenizer()] {
        let hash = hash_file(&file, |_| ()).with_context(|| format!("cannot read {}; run `train apm` first", file.display()))?;
        hasher.update(hash.as_bytes());
    }
    hasher.update(toml::to_string(&models.apm)?.as_bytes());
    hasher.update(toml::to_string(&models.text)?.as_bytes());
    hasher.update(format!("{:?}", models.preprocess()).as_bytes());
    let key: Digest = hasher.finish();
    Ok(Store::new(folder.unwrap_or(&run.folder), "perceived", &key, 2 * Sizes::of(models).bytes()))
}

/// The bytes of the outputs for an image and for its mirrored image.
pub fn to_bytes(both: &[Outputs; 2]) -> Vec<u8> {
    let mut bytes = Vec::new();
    both.iter().for_each(|outputs| outputs.write(&mut bytes));
    bytes
}

/// The outputs for an image and for its mirrored image from their bytes.
pub fn from_bytes(sizes: &Sizes, bytes: &[u8]) -> Option<[Outputs; 2]> {
    let (own, mirrored) = bytes.split_at_checked(sizes.bytes())?;
    Some([Outputs::read(sizes, own)?, Outputs::read(sizes, mirrored)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_they_were_written() {
        let sizes = Sizes { patches: 4, width: 3, embedding: 5 };
        let mut outputs = Outputs::zeros(&sizes);
        outputs.boxes[3] = 0.25;
        outputs.retrieved[35] = 7;
        outputs.objects[179] = -1.5;
        outputs.tokens[23] = 60;
        let both = [outputs.clone(), Outputs::zeros(&sizes)];
        let bytes = to_bytes(&both);
        assert_eq!(bytes.len(), 2 * sizes.bytes());
        assert_eq!(from_bytes(&sizes, &bytes), Some(both));
        assert_eq!(from_bytes(&sizes, &bytes[1..]), None);
        let (tokens, objects) = features(&[&outputs], &sizes, Device::Cpu).unwrap();
        assert_eq!((tokens.size(), objects.size()), (vec![1, 4, 3], vec![1, 36, 5]));
        // 60 is the upper byte of 1.0 in fp16.
        assert_eq!((tokens.double_value(&[0, 3, 2]), objects.double_value(&[0, 35, 4])), (1.0, -1.5));
    }
}
