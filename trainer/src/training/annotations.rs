//! Frozen embeddings of the sentences in a data set, on disk.

use super::text;
use crate::data::loading::index::Index;
use crate::data::sources::imagenome;
use crate::run::{ModelConfig, Run};
use anatomix::Structure;
use anyhow::{Context, Result, anyhow};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::FileExt;
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Number of sentences that are embedded at once.
const BATCH: usize = 4096;

/// The frozen embeddings of all distinct sentences, in a file without a name. Memory holds 16 bytes a sentence.
pub struct Embedded {
    file: File,
    width: usize,
    /// Row of each sentence, by its hash.
    rows: HashMap<u64, u32>,
    keyed: RandomState,
}

impl Embedded {
    /// Embeds the sentences on the structures of these images, and that each structure is healthy.
    ///
    /// # Errors
    /// If a record or a file of the run cannot be read, or the embeddings cannot be written into the run's folder.
    pub fn of(index: &Index, images: &[u32], run: &Run, models: &ModelConfig, device: Device) -> Result<Self> {
        let path = run.sentence_tokenizer();
        let tokenizer = Tokenizer::from_file(&path).map_err(|e| anyhow!("cannot read {}: {e}; run `train text` first", path.display()))?;
        let mut texts: BTreeSet<String> = Structure::all().map(healthy).collect();
        index.each(images, |image| {
            texts.extend(image.sentences.into_iter().flatten());
            Ok(())
        })?;
        let texts: Vec<String> = texts.into_iter().collect();
        let failed = || format!("cannot write into {}", run.folder.display());
        let mut file = tempfile::tempfile_in(&run.folder).with_context(failed)?;
        for chunk in texts.chunks(BATCH) {
            let slices: Vec<&str> = chunk.iter().map(String::as_str).collect();
            let embedded = text::embed_all(run, &models.text, &tokenizer, &slices, device, Kind::Float)?;
            let values = Vec::<f32>::try_from(embedded.to_device(Device::Cpu).flatten(0, -1))?;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.write_all(&bytes).with_context(failed)?;
        }
        let keyed = RandomState::new();
        let rows: HashMap<u64, u32> = texts.iter().map(|text| keyed.hash_one(text.as_str())).zip(0..).collect();
        anyhow::ensure!(rows.len() == texts.len(), "two sentences have the same hash; start again");
        Ok(Self { file, width: models.text.width as usize, rows, keyed })
    }

    /// Numbers sentences of a batch. A sentence that is not known is that of a healthy structure.
    pub fn batch(&self) -> Batch<'_> {
        Batch { embedded: self, rows: Vec::new(), numbers: HashMap::new() }
    }
}

/// The distinct sentences of a batch.
pub struct Batch<'a> {
    embedded: &'a Embedded,
    rows: Vec<u32>,
    numbers: HashMap<u32, i64>,
}

impl Batch<'_> {
    /// The number of a structure's sentence in the batch.
    ///
    /// # Errors
    /// If the sentence is none of the data set.
    pub fn number(&mut self, structure: Structure, sentence: Option<&str>) -> Result<i64> {
        let own = sentence.map_or_else(|| healthy(structure), str::to_owned);
        let row = self.embedded.rows.get(&self.embedded.keyed.hash_one(own.as_str()));
        let row = *row.with_context(|| format!("the sentence {own:?} was not embedded"))?;
        Ok(*self.numbers.entry(row).or_insert_with(|| {
            self.rows.push(row);
            self.rows.len() as i64 - 1
        }))
    }

    /// The embeddings of the batch's sentences, `[sentences, D]`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn embeddings(&self) -> Result<Tensor> {
        let width = self.embedded.width;
        let mut bytes = vec![0; self.rows.len() * width * 4];
        for (own, &row) in bytes.chunks_exact_mut(width * 4).zip(&self.rows) {
            self.embedded.file.read_exact_at(own, u64::from(row) * width as u64 * 4).context("cannot read the sentences' embeddings")?;
        }
        Ok(Tensor::f_from_data_size(&bytes, &[self.rows.len() as i64, width as i64], Kind::Float)?)
    }
}

fn healthy(structure: Structure) -> String {
    imagenome::sentence(structure, &[])
}
