//! The manifest: sizes of the models, and size and hash of each file.

use super::files::{sync, write as write_file};
use super::settings::Settings;
use crate::graph::onnx::{Operators, Precision};
use crate::run::ModelConfig;
use anatomix::parts::bundle::{self, TOLERANCE};
use anatomix::{ApmSizes, DecoderSizes, FileEntry, GraphSettings, Manifest};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the manifest for the files in the folder.
pub(super) fn write(folder: &Path, name: &str, models: &ModelConfig, settings: &Settings) -> Result<()> {
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
        prompt: models.prompt.form().into(),
        decoder: DecoderSizes {
            layers: language.num_hidden_layers as usize,
            kv_heads: language.num_key_value_heads as usize,
            head_dim: language.head_dim as usize,
            hidden: language.hidden_size as usize,
            vocabulary: language.vocab_size as usize,
            sliding_window: (0..language.num_hidden_layers).find_map(|layer| language.attention(layer).window).map(|w| w as usize),
            max_context: language.max_position_embeddings as usize,
            precision: settings.decoder.name().into(),
        },
        checked_on: settings.checked_on.clone(),
        graphs: graphs(settings),
        files: files(folder)?,
    };
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    let path = folder.join(bundle::MANIFEST);
    write_file(&path, &text)?;
    sync(&path)
}

/// Settings of the graphs; `None` if they compute in fp32.
fn graphs(settings: &Settings) -> Option<GraphSettings> {
    let &Settings { apm, decoder, operators, .. } = settings;
    let plain = |precision| matches!(precision, Precision::Fp32 | Precision::Fp16Weights);
    (!plain(apm) || !plain(decoder) || operators != Operators::Fused).then(|| GraphSettings {
        apm_precision: apm.arithmetic().into(),
        decoder_operators: if operators == Operators::Fused { "fused".into() } else { "portable".into() },
        apm_tolerance: tolerance(apm),
        decoder_tolerance: tolerance(decoder),
    })
}

/// Tolerance of the golden check. Golden outputs are computed from the stored weights, so providers differ only by the rounding of
/// activations: to 8 bits before products with quantised weights, to 16 bits in graphs of 16 bits.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::Fp32 | Precision::Fp16Weights => TOLERANCE,
        Precision::Fp16 => 0.02,
        Precision::Bf16 | Precision::Int8 | Precision::Int4 => 0.1,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_perception_modules_precision_is_that_of_its_arithmetic() {
        let named = |apm| graphs(&Settings { apm, decoder: Precision::Int4, ..Settings::new("bundle") }).unwrap().apm_precision;
        let all = [Precision::Fp32, Precision::Fp16Weights, Precision::Fp16, Precision::Int8];
        assert_eq!(all.map(named), ["fp32", "fp32", "fp16", "int8"]);
    }
}
