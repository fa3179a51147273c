//! An implementation of `Ops` that computes nothing and records the names and shapes of a model's parameters.

use crate::graph::{Activation, Attention, CausalAttention, Conv, Init, Linear, Ops};
use crate::models::apm::{self, ApmConfig};
use crate::models::dino::{self, DinoConfig};
use crate::models::gemma::{self, GemmaConfig};
use crate::models::lora::Lora;
use crate::models::projector;
use crate::models::text::{self, TextConfig, TextInput};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Names and shapes of parameters.
pub(super) type Shapes = BTreeMap<String, Vec<i64>>;

/// Parameters of the perception module.
pub(super) fn apm(config: &ApmConfig) -> Shapes {
    // No parameter depends on the image size, but the position encoding does: the smallest size makes it cheap.
    let image_size = config.dino.as_ref().map_or(32, |dino| dino.patch);
    let config = ApmConfig { image_size, ..config.clone() };
    Names::of(None, |names| {
        apm::apm(names, &config, &());
    })
}

/// Parameters of an image encoder.
pub(super) fn dino(config: &DinoConfig) -> Shapes {
    Names::of(None, |names| dino::dinov3(names, config, config.patch, &()))
}

/// Parameters of the text projection.
pub(super) fn projection(config: &TextConfig, embedding: i64) -> Shapes {
    Names::of(None, |names| text::project(names, config, embedding, &()))
}

/// Parameters of the sentence encoder.
pub(super) fn text(config: &TextConfig) -> Shapes {
    Names::of(None, |names| {
        text::token_table(names, config);
        text::bert(names, config, &TextInput { tokens: (), mask: (), pooling: (), length: 1 });
    })
}

/// Parameters of the language model.
pub(super) fn language(config: &GemmaConfig) -> Shapes {
    Names::of(None, |names| gemma::gemma(names, config))
}

/// Parameters of the adapters, without those of the base model.
pub(super) fn adapters(config: &GemmaConfig, lora: &Lora) -> Shapes {
    let mut shapes = Names::of(Some(lora), |names| gemma::gemma(names, config));
    shapes.retain(|name, _| name.contains(".lora_"));
    shapes
}

/// Parameters of the projectors; `widths` are those of image tokens, object embeddings and the language model.
pub(super) fn projectors(widths: (i64, i64, i64)) -> Shapes {
    Names::of(None, |names| projector::projector(names, widths, &(), &()))
}

struct Names<'a> {
    lora: Option<&'a Lora>,
    shapes: RefCell<Shapes>,
}

impl<'a> Names<'a> {
    fn of(lora: Option<&'a Lora>, model: impl FnOnce(&Self)) -> Shapes {
        let names = Self { lora, shapes: RefCell::default() };
        model(&names);
        names.shapes.into_inner()
    }

    fn note(&self, name: String, shape: &[i64]) {
        self.shapes.borrow_mut().insert(name, shape.into());
    }
}

impl Ops for Names<'_> {
    type Tensor = ();

    fn weight(&self, name: &str, shape: &[i64], _: Init) {
        self.note(name.into(), shape);
    }

    fn linear(&self, _: &(), name: &str, size: Linear) {
        self.note(format!("{name}.weight"), &[size.outputs, size.inputs]);
        if size.bias {
            self.note(format!("{name}.bias"), &[size.outputs]);
        }
        if let Some(lora) = self.lora.filter(|l| l.adapts(name)) {
            self.note(format!("{name}.lora_A.weight"), &[lora.rank, size.inputs]);
            self.note(format!("{name}.lora_B.weight"), &[size.outputs, lora.rank]);
        }
    }

    fn conv_norm(&self, _: &(), name: &str, norm: &str, size: Conv) {
        self.note(format!("{name}.weight"), &[size.outputs, size.inputs, size.kernel, size.kernel]);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            self.note(format!("{norm}.{part}"), &[size.outputs]);
        }
    }

    fn linear_part(&self, _: &(), [weight, bias]: [&str; 2], size: [i64; 2], _: Range<i64>) {
        self.note(weight.into(), &size);
        self.note(bias.into(), &size[..1]);
    }

    fn pixels(&self, _: &(), name: &str, size: Linear) {
        self.note(format!("{name}.weight"), &[size.outputs, size.inputs, 1, 1]);
        self.note(format!("{name}.bias"), &[size.outputs]);
    }

    fn layer_norm(&self, _: &(), name: &str, width: i64, _: f64) {
        self.note(format!("{name}.weight"), &[width]);
        self.note(format!("{name}.bias"), &[width]);
    }

    fn rms_norm(&self, _: &(), name: &str, width: i64, _: f64) {
        self.note(format!("{name}.weight"), &[width]);
    }

    fn embed_tokens(&self, name: &str, size: [i64; 2], _: f64) {
        self.note(name.into(), &size);
    }

    fn logits(&self, _: &(), name: &str, size: [i64; 2]) {
        self.note(name.into(), &size);
    }

    fn constant(&self, _: &str, _: &[f32], _: &[i64]) {}
    fn max_pool(&self, _: &()) {}
    fn activate(&self, _: &(), _: Activation) {}
    fn softmax(&self, _: &()) {}
    fn add(&self, _: &(), _: &()) {}
    fn mul(&self, _: &(), _: &()) {}
    fn scale(&self, _: &(), _: f64) {}
    fn matmul(&self, _: &(), _: &()) {}
    fn reshape(&self, _: &(), _: &[i64]) {}
    fn transpose(&self, _: &(), _: &[i64]) {}
    fn concat(&self, _: &[&()], _: i64) {}
    fn slice(&self, _: &(), _: i64, _: i64, _: i64) {}
    fn repeat_batch(&self, _: &(), _: &()) {}
    fn dropout(&self, _: &(), _: f64) {}
    fn scope(&self, _: &str) {}
    fn causal_attention(&self, _: &(), _: &(), _: &(), _: &CausalAttention) {}
    fn select_positions(&self, _: &()) {}
    fn attention(&self, _: &(), _: &(), _: &(), _: &Attention<()>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes() {
        let shapes = apm(&ApmConfig::default());
        let trained = |name: &str| !name.contains("running_");
        let count: i64 = shapes.iter().filter(|(n, _)| trained(n)).map(|(_, s)| s.iter().product::<i64>()).sum();
        assert_eq!(shapes.len(), 406);
        assert!((31_600_000..31_900_000).contains(&count), "{count}");
        assert_eq!(projection(&TextConfig::default(), 16).len(), 4);
        // Gemma 3 4B: 13 tensors in each of 34 layers, the embeddings and the last norm.
        let shapes = language(&GemmaConfig::default());
        assert_eq!(shapes.len(), 34 * 13 + 2);
        assert_eq!(shapes.values().map(|s| s.iter().product::<i64>()).sum::<i64>(), 3_880_263_168);
        assert_eq!(adapters(&GemmaConfig::default(), &Lora::default()).len(), 34 * 7 * 2);
    }
}
