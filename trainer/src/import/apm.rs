//! Import of the Anatomy Perception Module. Its 406 published names may have the prefix `vis_model.`, those of the text projection have
//! `text_model.`; in a training checkpoint all names have `model.` before that.

use super::checkpoint::Checkpoint;
use super::dino;
use super::error::ImportError;
use super::names;
use crate::models::apm::ApmConfig;
use crate::models::text::TextConfig;
use std::path::Path;

/// Prefix of the module's names in a training checkpoint, which holds optimiser and settings, too.
const WRAPPER: &str = "model.";
/// Largest accepted width of a layer.
const MAX_WIDTH: i64 = 1 << 14;

/// A complete perception module.
pub(super) struct PerceptionModule {
    pub config: ApmConfig,
    /// Width of sentence embeddings and inner width of the text projection, if the checkpoint has one.
    pub projection: Option<(i64, i64)>,
    pub checkpoint: Checkpoint,
}

impl PerceptionModule {
    /// Reads and checks names and shapes, and derives the configuration from them, except for the image size.
    pub fn open(path: &Path, image_size: i64) -> Result<Self, ImportError> {
        let checkpoint = Checkpoint::open(path)?;
        let wrapped = checkpoint.tensors.keys().any(|name| name.starts_with(WRAPPER));
        let checkpoint = checkpoint.renamed(|name| published(if wrapped { name.strip_prefix(WRAPPER)? } else { name }))?;
        let config = config(&checkpoint, image_size)?;
        let mut expected = names::apm(&config);
        let projected = checkpoint.tensors.keys().any(|name| name.starts_with("project_head."));
        let projection = projected.then(|| {
            let defaults = TextConfig::default();
            let size = |dimension| checkpoint.size("project_head.proj.0.weight", dimension);
            (size(1).unwrap_or(defaults.width), size(0).unwrap_or(defaults.projection))
        });
        if let Some((width, inner)) = projection {
            let text = TextConfig { width, projection: inner, ..Default::default() };
            expected.append(&mut names::projection(&text, config.embedding));
        }
        checkpoint.check(&expected)?;
        Ok(Self { config, projection, checkpoint })
    }
}

/// Our name of a published tensor; `None` for tensors that are not imported: batch counters of batch norms, and the frozen sentence
/// encoder, which is imported from its own folder.
fn published(name: &str) -> Option<String> {
    if name.ends_with(".num_batches_tracked") {
        return None;
    }
    let Some(text) = name.strip_prefix("text_model.") else { return dino::own_name(name.strip_prefix("vis_model.").unwrap_or(name)) };
    if let Some(at) = text.find("project_head.") {
        return Some(text[at..].into());
    }
    let encoder = ["embeddings.", "encoder.layer.", "pooler."].iter().any(|part| text.contains(part));
    (!encoder).then(|| name.into())
}

fn config(checkpoint: &Checkpoint, image_size: i64) -> Result<ApmConfig, ImportError> {
    let published = ApmConfig::default();
    let outputs = |name: &str, default| checkpoint.size(name, 0).unwrap_or(default);
    let mut blocks = published.blocks;
    for (stage, blocks) in blocks.iter_mut().enumerate() {
        *blocks = checkpoint.count(&format!("backbone.0.body.layer{}.", stage + 1)).unwrap_or(*blocks);
    }
    let config = ApmConfig {
        image_size,
        blocks,
        planes: outputs("backbone.0.body.conv1.weight", published.planes),
        width: outputs("input_proj.weight", published.width),
        feed_forward: outputs("transformer.encoder.layers.0.linear1.weight", published.feed_forward),
        encoder_layers: checkpoint.count("transformer.encoder.layers.").unwrap_or(published.encoder_layers),
        decoder_layers: checkpoint.count("transformer.decoder.layers.").unwrap_or(published.decoder_layers),
        embedding: outputs("anat_obj_embs.linear.weight", published.embedding),
        dino: dino::sizes(checkpoint),
        feature_extractor: checkpoint.tensors.keys().any(|name| name.starts_with("anat_obj_embs.mha.")),
        ..published
    };
    if let Some(dino) = &config.dino {
        let sizes = [dino.patch, dino.width, dino.feed_forward, dino.registers];
        if sizes.into_iter().any(|size| size > MAX_WIDTH) || dino.width % (4 * dino.heads) != 0 || image_size % dino.patch != 0 {
            let what = format!("an image encoder with (patch, width, feed-forward, registers) of {sizes:?} for an image of {image_size}");
            return Err(ImportError::unsupported(&checkpoint.path, what));
        }
    }
    let widest = [config.planes, config.width, config.feed_forward, config.embedding].into_iter().max().unwrap_or(0);
    if widest > MAX_WIDTH || config.width % (2 * config.heads) != 0 {
        return Err(ImportError::unsupported(
            &checkpoint.path,
            format!(
                "a module of width {} with {} planes; the width must be a multiple of {} for its {} heads, and no layer wider than \
                 {MAX_WIDTH}",
                config.width,
                config.planes,
                2 * config.heads,
                config.heads
            ),
        ));
    }
    Ok(config)
}
