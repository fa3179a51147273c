//! Import of a pretrained ResNet as the perception module's backbone, with the names of torchvision and timm.

use super::checkpoint::Checkpoint;
use super::error::ImportError;
use super::names;
use crate::models::apm::ApmConfig;
use std::path::Path;

/// Where the perception module has its ResNet.
const BODY: &str = "backbone.0.body";

/// A ResNet without its stem's convolution, whose input has three channels, and without its classifier.
pub(super) struct Backbone {
    /// Blocks in each stage, and inner width of a block in the first one.
    pub blocks: [i64; 4],
    pub planes: i64,
    pub checkpoint: Checkpoint,
}

impl Backbone {
    /// Reads a file, and checks names and shapes.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let checkpoint = Checkpoint::open(path)?.renamed(own_name)?;
        let mut blocks = [0; 4];
        for (stage, blocks) in blocks.iter_mut().enumerate() {
            *blocks = checkpoint.count(&format!("{BODY}.layer{}.", stage + 1)).unwrap_or(0);
        }
        let planes = checkpoint.size(&format!("{BODY}.bn1.weight"), 0).unwrap_or(0);
        let bottlenecks = checkpoint.tensors.contains_key(&format!("{BODY}.layer1.0.conv3.weight"));
        if !bottlenecks || blocks.iter().any(|blocks| !(1..=256).contains(blocks)) || !(1..=512).contains(&planes) {
            let what = format!("a backbone that is not a ResNet of bottleneck blocks (ResNet-50 and deeper); it has {blocks:?} of them");
            return Err(ImportError::unsupported(&checkpoint.path, what));
        }
        let mut expected = names::apm(&ApmConfig { blocks, planes, ..ApmConfig::default() });
        expected.retain(|name, _| name.starts_with(BODY) && *name != format!("{BODY}.conv1.weight"));
        checkpoint.check(&expected)?;
        Ok(Self { blocks, planes, checkpoint })
    }
}

/// A tensor's name in a run; `None` for what is left out.
fn own_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("module.").unwrap_or(name);
    let left_out = name == "conv1.weight" || name.starts_with("fc.") || name.ends_with(".num_batches_tracked");
    (!left_out).then(|| format!("{BODY}.{name}"))
}
