//! The Anatomy Perception Module (paper, section 3.1): ResNet, DETR-style encoder and decoder with one query for each structure, feature
//! extraction and heads. Parameter names are those of the published checkpoint.

use super::dino::{self, DinoConfig};
use crate::graph::{Activation, Attention, Conv, Init, Linear, Ops};
use anatomix::{LABEL_COUNT, STRUCTURE_COUNT};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Configuration of the module. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApmConfig {
    /// Side of the square input in pixels; a multiple of 32, or of the patch size with DINOv3.
    pub image_size: i64,
    /// Blocks in each of the four stages of the ResNet.
    pub blocks: [i64; 4],
    /// Inner width of a block in the first stage; it doubles with each stage. A block's output is four times as wide.
    pub planes: i64,
    /// Width of the transformer.
    pub width: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Width of the feed-forward layers.
    pub feed_forward: i64,
    /// Number of encoder layers.
    pub encoder_layers: i64,
    /// Number of decoder layers.
    pub decoder_layers: i64,
    /// Width of an object embedding.
    pub embedding: i64,
    /// Whether object embeddings come from the feature extractor, or directly from the decoder's output (an ablation).
    pub feature_extractor: bool,
    /// Whether batch norms are trained, for a backbone from scratch, or frozen, for a pretrained one.
    pub train_batch_norm: bool,
    /// Number of the ResNet's four stages whose convolutions are frozen, from the first on: 1 as published, for a pretrained backbone. The
    /// stem is trained always, because its input has one channel instead of three.
    pub frozen_stages: i64,
    /// Dropout in the transformer, of attention weights, too.
    pub dropout: f64,
    /// Configuration of DINOv3, which then replaces the ResNet as the image encoder (an ablation).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dino: Option<DinoConfig>,
}

impl Default for ApmConfig {
    fn default() -> Self {
        Self {
            image_size: 1024,
            blocks: [3, 4, 6, 3],
            planes: 64,
            width: 256,
            heads: 4,
            feed_forward: 1024,
            encoder_layers: 4,
            decoder_layers: 4,
            embedding: 16,
            feature_extractor: true,
            train_batch_norm: false,
            frozen_stages: 1,
            dropout: 0.1,
            dino: None,
        }
    }
}

impl ApmConfig {
    /// Number of patches along one side of the image.
    pub fn grid(&self) -> i64 {
        self.image_size / self.dino.as_ref().map_or(32, |dino| dino.patch)
    }

    /// Number of patches of the image.
    pub fn patches(&self) -> i64 {
        self.grid() * self.grid()
    }

    /// How the transformer's layers attend.
    fn attention<T>(&self) -> Attention<'_, T> {
        Attention { heads: self.heads, width: self.width, mask: None, dropout: self.dropout }
    }

    /// Whether a parameter is of a frozen stage of the ResNet.
    pub fn is_frozen(&self, name: &str) -> bool {
        (1..=self.frozen_stages).any(|stage| name.starts_with(&format!("backbone.0.body.layer{stage}.")))
    }

    /// Checks that the sizes fit together, so that no operation fails later.
    ///
    /// # Errors
    /// If they do not; the message names the first size that does not fit.
    pub fn check(&self) -> Result<()> {
        let patch = self.dino.as_ref().map_or(32, |dino| dino.patch);
        let (size, width, heads) = (self.image_size, self.width, self.heads);
        ensure!(
            patch > 0 && size > 0 && size % patch == 0,
            "image_size {size} is not a multiple of the encoder's patches of {patch} pixels"
        );
        ensure!(
            heads > 0 && width > 0 && width % heads == 0 && width % 2 == 0,
            "width {width} is not even or not a multiple of heads {heads}"
        );
        let frozen = self.frozen_stages;
        ensure!((0..=4).contains(&frozen), "frozen_stages {frozen} is not between 0 and 4");
        ensure!((0.0..1.0).contains(&self.dropout), "dropout {} is not between 0 and 1", self.dropout);
        if let Some(dino) = &self.dino {
            let fits = dino.heads > 0 && dino.width > 0 && dino.width % (4 * dino.heads) == 0;
            ensure!(fits, "dino.width {} is not a multiple of four times dino.heads {}", dino.width, dino.heads);
        }
        Ok(())
    }
}

/// Outputs of the module for `B` images with `P` patches.
#[derive(Clone, Debug)]
pub struct ApmOutput<T> {
    /// Boxes `[B, 36, 4]` in the letterboxed square: centre x, centre y, width, height, 0..1.
    pub boxes: T,
    /// Object embeddings `[B, 36, embedding]`, not normalised.
    pub object_embeddings: T,
    /// Image tokens `[B, P, width]`.
    pub image_tokens: T,
    /// Logits of the image labels `[B, 14]`.
    pub image_logits: T,
}

/// The module on images `[B, 1, S, S]` with values 0..1.
pub fn apm<O: Ops>(ops: &O, config: &ApmConfig, image: &O::Tensor) -> ApmOutput<O::Tensor> {
    let width = config.width;
    let (features, channels) = match &config.dino {
        None => (resnet(ops, config, image), config.planes * 32),
        Some(encoder) => {
            // [B, P, C] -> [B, C, G, G]
            let features = ops.transpose(&dino::dinov3(ops, encoder, config.image_size, image), &[0, 2, 1]);
            (ops.reshape(&features, &[0, encoder.width, config.grid(), config.grid()]), encoder.width)
        }
    };
    ops.scope("input_proj");
    let patches = ops.pixels(&features, "input_proj", Linear { inputs: channels, outputs: width, bias: true });
    let sine = ops.constant("position_encoding", &sine_positions(config.grid() as usize, width as usize), &[1, config.patches(), width]);

    ops.scope("encoder");
    let cls = ops.weight("transformer.cls_token", &[1, 1, width], Init::Normal(0.02));
    let cls_position = ops.weight("transformer.cls_pos", &[1, 1, width], Init::Normal(0.02));
    let mut x = ops.concat(&[&ops.repeat_batch(&cls, &patches), &patches], 1);
    let positions = ops.concat(&[&cls_position, &sine], 1);
    for layer in 0..config.encoder_layers {
        x = encoder_layer(ops, config, &format!("transformer.encoder.layers.{layer}"), &x, &positions);
    }
    let cls = ops.slice(&x, 1, 0, 1);
    let memory = ops.slice(&x, 1, 1, 1 + config.patches());

    ops.scope("decoder");
    let structures = STRUCTURE_COUNT as i64;
    let queries = ops.weight("query_embed.weight", &[structures, width], Init::Normal(1.0));
    let queries = ops.repeat_batch(&ops.reshape(&queries, &[1, structures, width]), &memory);
    let keys = ops.add(&memory, &sine);
    let mut target = ops.scale(&queries, 0.0);
    for layer in 0..config.decoder_layers {
        target = decoder_layer(ops, config, &format!("transformer.decoder.layers.{layer}"), &target, &queries, &keys, &memory);
    }
    let objects = ops.layer_norm(&target, "transformer.decoder.norm", width, 1e-5);

    ops.scope("heads");
    let mut hidden = objects.clone();
    for layer in 0..2 {
        let size = Linear { inputs: width, outputs: width, bias: true };
        hidden = ops.activate(&ops.linear(&hidden, &format!("bbox_embed.layers.{layer}"), size), Activation::Relu);
    }
    let boxes = ops.linear(&hidden, "bbox_embed.layers.2", Linear { inputs: width, outputs: 4, bias: true });
    let boxes = ops.activate(&boxes, Activation::Sigmoid);

    // Feature extraction (paper, eq. 4) is cross-attention from the decoder's output to the encoded image.
    let described = if config.feature_extractor {
        let how = Attention { heads: 2, width, mask: None, dropout: 0.0 };
        attention_block(ops, "anat_obj_embs.mha", &how, &objects, &memory, &memory)
    } else {
        objects
    };
    let embedding = Linear { inputs: width, outputs: config.embedding, bias: true };
    let object_embeddings = ops.linear(&described, "anat_obj_embs.linear", embedding);
    let cls = ops.reshape(&cls, &[0, width]);
    let image_logits = ops.linear(&cls, "image_class_embed", Linear { inputs: width, outputs: LABEL_COUNT as i64, bias: true });
    ApmOutput { boxes, object_embeddings, image_tokens: memory, image_logits }
}

/// Bottleneck ResNet with stride 32: `[B, 1, S, S]` to `[B, 32 planes, S/32, S/32]`.
fn resnet<O: Ops>(ops: &O, config: &ApmConfig, image: &O::Tensor) -> O::Tensor {
    const BODY: &str = "backbone.0.body";
    ops.scope("backbone/stem");
    let stem = Conv { inputs: 1, outputs: config.planes, kernel: 7, stride: 2 };
    let x = ops.conv_norm(image, &format!("{BODY}.conv1"), &format!("{BODY}.bn1"), stem);
    let mut x = ops.max_pool(&ops.activate(&x, Activation::Relu));
    let mut channels = config.planes;
    for (stage, &blocks) in config.blocks.iter().enumerate() {
        let planes = config.planes << stage;
        for block in 0..blocks {
            ops.scope(&format!("backbone/layer{}.{block}", stage + 1));
            let name = format!("{BODY}.layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let conv = |x: &O::Tensor, i: i64, size| ops.conv_norm(x, &format!("{name}.conv{i}"), &format!("{name}.bn{i}"), size);
            let out = conv(&x, 1, Conv { inputs: channels, outputs: planes, kernel: 1, stride: 1 });
            let out = conv(&ops.activate(&out, Activation::Relu), 2, Conv { inputs: planes, outputs: planes, kernel: 3, stride });
            let out = conv(&ops.activate(&out, Activation::Relu), 3, Conv { inputs: planes, outputs: 4 * planes, kernel: 1, stride: 1 });
            let shortcut = if block == 0 {
                let size = Conv { inputs: channels, outputs: 4 * planes, kernel: 1, stride };
                ops.conv_norm(&x, &format!("{name}.downsample.0"), &format!("{name}.downsample.1"), size)
            } else {
                x.clone()
            };
            x = ops.activate(&ops.add(&out, &shortcut), Activation::Relu);
            channels = 4 * planes;
        }
    }
    x
}

/// Post-norm encoder layer. Positions are added to queries and keys only.
fn encoder_layer<O: Ops>(ops: &O, config: &ApmConfig, name: &str, x: &O::Tensor, positions: &O::Tensor) -> O::Tensor {
    let width = config.width;
    let positioned = ops.add(x, positions);
    let seen = attention_block(ops, &format!("{name}.self_attn"), &config.attention(), &positioned, &positioned, x);
    let x = ops.layer_norm(&ops.add(x, &ops.dropout(&seen, config.dropout)), &format!("{name}.norm1"), width, 1e-5);
    let out = feed_forward(ops, config, name, &x);
    ops.layer_norm(&ops.add(&x, &out), &format!("{name}.norm2"), width, 1e-5)
}

fn decoder_layer<O: Ops>(
    ops: &O,
    config: &ApmConfig,
    name: &str,
    x: &O::Tensor,
    queries: &O::Tensor,
    keys: &O::Tensor,
    memory: &O::Tensor,
) -> O::Tensor {
    let width = config.width;
    let positioned = ops.add(x, queries);
    let own = attention_block(ops, &format!("{name}.self_attn"), &config.attention(), &positioned, &positioned, x);
    let x = ops.layer_norm(&ops.add(x, &ops.dropout(&own, config.dropout)), &format!("{name}.norm1"), width, 1e-5);
    let positioned = ops.add(&x, queries);
    let seen = attention_block(ops, &format!("{name}.multihead_attn"), &config.attention(), &positioned, keys, memory);
    let x = ops.layer_norm(&ops.add(&x, &ops.dropout(&seen, config.dropout)), &format!("{name}.norm2"), width, 1e-5);
    let out = feed_forward(ops, config, name, &x);
    ops.layer_norm(&ops.add(&x, &out), &format!("{name}.norm3"), width, 1e-5)
}

fn feed_forward<O: Ops>(ops: &O, config: &ApmConfig, name: &str, x: &O::Tensor) -> O::Tensor {
    let (inputs, outputs) = (config.width, config.feed_forward);
    let hidden = ops.linear(x, &format!("{name}.linear1"), Linear { inputs, outputs, bias: true });
    let hidden = ops.dropout(&ops.activate(&hidden, Activation::Relu), config.dropout);
    let out = ops.linear(&hidden, &format!("{name}.linear2"), Linear { inputs: outputs, outputs: inputs, bias: true });
    ops.dropout(&out, config.dropout)
}

/// PyTorch's `nn.MultiheadAttention`, whose `in_proj_weight` `[3 D, D]` projects queries, keys and values.
fn attention_block<O: Ops>(ops: &O, name: &str, how: &Attention<O::Tensor>, q: &O::Tensor, k: &O::Tensor, v: &O::Tensor) -> O::Tensor {
    let width = how.width;
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.in_proj_{part}"));
    let project = |x: &O::Tensor, part: i64| ops.linear_part(x, [&weight, &bias], [3 * width, width], part * width..(part + 1) * width);
    let mixed = ops.attention(&project(q, 0), &project(k, 1), &project(v, 2), how);
    ops.linear(&mixed, &format!("{name}.out_proj"), Linear { inputs: width, outputs: width, bias: true })
}

/// DETR's sine encoding, normalised to 2 pi, temperature 10000, y before x, positions counted from 1: `[P, D]`.
fn sine_positions(grid: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let mut out = Vec::with_capacity(grid * grid * width);
    let sine = |position: usize, channel: usize| {
        let at = (position + 1) as f64 / (grid as f64 + 1e-6) * std::f64::consts::TAU;
        let angle = at / libm::pow(10000.0, 2.0 * (channel / 2) as f64 / half as f64);
        (if channel.is_multiple_of(2) { libm::sin(angle) } else { libm::cos(angle) }) as f32
    };
    for y in 0..grid {
        for x in 0..grid {
            out.extend((0..half).map(|c| sine(y, c)));
            out.extend((0..half).map(|c| sine(x, c)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let check = |change: fn(&mut ApmConfig)| {
            let mut config = ApmConfig::default();
            change(&mut config);
            config.check().map_err(|e| e.to_string())
        };
        assert_eq!(check(|_| ()), Ok(()));
        assert!(check(|c| c.image_size = 100).unwrap_err().contains("image_size 100"));
        assert!(check(|c| c.heads = 7).unwrap_err().contains("heads 7"));
        let dino = |patch, heads| Some(DinoConfig { patch, heads, ..Default::default() });
        assert!(ApmConfig { dino: dino(16, 6), ..Default::default() }.check().is_ok());
        assert!(ApmConfig { dino: dino(15, 6), ..Default::default() }.check().is_err());
        assert!(ApmConfig { dino: dino(0, 6), ..Default::default() }.check().is_err());
        assert!(ApmConfig { dino: dino(16, 5), ..Default::default() }.check().is_err());
    }
}
