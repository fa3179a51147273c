//! The manifest: sizes for the SDK, and size and hash of every file.

use crate::graph::onnx::Storage;
use crate::run::ModelConfig;
use anatomix::bundle::{self, ApmSizes, DecoderSizes, FileEntry, Manifest, PromptSettings};
use anatomix::prompt::PROMPT_VERSION;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Describes all files that are in the folder.
pub(super) fn write(folder: &Path, name: &str, models: &ModelConfig, storage: Storage) -> Result<()> {
    let language = &models.language;
    let manifest = Manifest {
        schema: bundle::SCHEMA,
        name: name.into(),
        created_by: concat!("anatomix-trainer ", env!("CARGO_PKG_VERSION")).into(),
        preprocess: models.preprocess(),
        apm: ApmSizes {
            patches: models.apm.patches() as usize,
            token_width: models.apm.width as usize,
            embedding_width: models.apm.embedding as usize,
        },
        prompt: PromptSettings { version: PROMPT_VERSION },
        decoder: DecoderSizes {
            layers: language.num_hidden_layers as usize,
            kv_heads: language.num_key_value_heads as usize,
            head_dim: language.head_dim as usize,
            hidden: language.hidden_size as usize,
            vocabulary: language.vocab_size as usize,
            max_context: language.max_position_embeddings as usize,
            precision: match storage {
                Storage::F32 => "fp32".into(),
                Storage::F16 => "fp16".into(),
            },
        },
        files: files(folder)?,
    };
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    let path = folder.join(bundle::MANIFEST);
    super::write(&path, &text)?;
    sync(&path)
}

fn files(folder: &Path) -> Result<BTreeMap<String, FileEntry>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        sync(&path)?;
        let bytes = std::fs::metadata(&path)?.len();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(name, FileEntry { bytes, sha256: bundle::hash_file(&path, |_| ())? });
    }
    Ok(files)
}

/// What a manifest vouches for is on the disk.
fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}
