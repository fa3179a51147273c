//! CheXbert: the 14 labels that a report states, by a BERT with a head for each label.

use super::hidden::{BATCH, hidden, tokens};
use crate::graph::{Linear, Ops, Torch, TorchTensor};
use crate::import::encoder::{Encoder, Wanted, open};
use anatomix::{LABEL_COUNT, Label};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The labels in the order of the heads.
const ORDER: [Label; LABEL_COUNT] = [
    Label::EnlargedCardiomediastinum,
    Label::Cardiomegaly,
    Label::LungOpacity,
    Label::LungLesion,
    Label::Edema,
    Label::Consolidation,
    Label::Pneumonia,
    Label::Atelectasis,
    Label::Pneumothorax,
    Label::PleuralEffusion,
    Label::PleuralOther,
    Label::Fracture,
    Label::SupportDevices,
    Label::NoFinding,
];
/// Names of the file of the parameters.
const FILES: [&str; 3] = ["chexbert.pth", "model.safetensors", "pytorch_model.bin"];

/// The labeller.
pub struct CheXbert {
    encoder: Encoder,
}

/// Number of classes of a head: not mentioned, positive, negative, uncertain; of the last one no and yes.
fn classes(head: usize) -> i64 {
    if head + 1 == LABEL_COUNT { 2 } else { 4 }
}

impl CheXbert {
    /// Opens a folder with the published parameters, `chexbert.pth`, and the tokenizer of `bert-base-uncased`, `vocab.txt` or
    /// `tokenizer.json`.
    ///
    /// # Errors
    /// If a file is missing or does not fit.
    pub fn open(folder: &Path) -> Result<Self> {
        let Some(file) = FILES.iter().map(|name| folder.join(name)).find(|path: &PathBuf| path.exists()) else {
            bail!("{} holds none of {}; put CheXbert's parameters there", folder.display(), FILES.join(", "));
        };
        let rename = |name: &str| {
            let name = name.strip_prefix("model_state_dict.").unwrap_or(name);
            let name = name.strip_prefix("module.").unwrap_or(name);
            // Of an optimiser's state that was saved with the model nothing is used.
            (name.starts_with("bert.") || name.starts_with("linear_heads.")).then(|| name.to_owned())
        };
        let heads = |width: i64| {
            let shapes = |head: usize| {
                [
                    (format!("linear_heads.{head}.weight"), vec![classes(head), width]),
                    (format!("linear_heads.{head}.bias"), vec![classes(head)]),
                ]
            };
            (0..LABEL_COUNT).flat_map(shapes).collect()
        };
        Ok(Self { encoder: open(folder, &Wanted { layers: None, file: Some(file), rename: &rename, heads: &heads })? })
    }

    /// Whether each text states each label, certainly or not, by the label's index.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn labels(&self, texts: &[&str]) -> Result<Vec<[bool; LABEL_COUNT]>> {
        let mut found = Vec::with_capacity(texts.len());
        for texts in texts.chunks(BATCH) {
            let words: Vec<String> = texts.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            let ids = tokens(&self.encoder, &words.iter().map(String::as_str).collect::<Vec<_>>())?;
            let first: Vec<Tensor> = hidden(&self.encoder, &ids).iter().map(|states| states.get(0)).collect();
            let first = TorchTensor(Tensor::stack(&first, 0));
            let ops = Torch::new(&self.encoder.params);
            let mut labels = vec![[false; LABEL_COUNT]; texts.len()];
            for (head, label) in ORDER.iter().enumerate() {
                let logits = tch::no_grad(|| {
                    ops.linear(&first, &format!("linear_heads.{head}"), Linear::new(self.encoder.config.width, classes(head))).0
                });
                let classes: Vec<i64> = logits.argmax(1, false).try_into()?;
                // Positive or uncertain.
                labels.iter_mut().zip(classes).for_each(|(own, class)| own[label.index()] = class == 1 || class == 3);
            }
            found.extend(labels);
        }
        Ok(found)
    }
}
