//! The Anatomy Perception Module: from the network's input to boxes, embeddings and labels (paper, section 3.1).

pub mod flags;

use crate::anatomy::{LABEL_COUNT, STRUCTURE_COUNT, Structure};
use crate::bundle::{APM, ApmSizes, Bundle};
use crate::cause::source;
use crate::geometry::NormalizedBox;
use crate::runtime::{Graph, Runtime, RuntimeError, StopSignal};
use ort::value::TensorRef;

/// Largest number of radiographs in one run.
const MAX_BATCH: usize = 8;
/// Largest number of pixels in one run, of all its radiographs together: two of 1024 x 1024.
const MAX_BATCH_PIXELS: usize = 2 << 20;

/// The module's outputs for one radiograph.
#[derive(Clone, Debug)]
pub struct Perception {
    /// A box for each structure, in the letterboxed square.
    pub boxes: Vec<NormalizedBox>,
    /// The boxes as centre and size, `[36, 4]`, which is the form of the network's output.
    pub boxes_cxcywh: Vec<f32>,
    /// Object embeddings, `[36, embedding_width]`.
    pub object_embeddings: Vec<f32>,
    /// Image tokens, `[patches, token_width]`.
    pub image_tokens: Vec<f32>,
    /// Logits of the 14 image labels.
    pub image_logits: Vec<f32>,
    embedding_width: usize,
}

impl Perception {
    /// Makes the outputs of one radiograph; `None` if they have other sizes than the manifest says.
    pub(crate) fn new(
        boxes_cxcywh: Vec<f32>,
        object_embeddings: Vec<f32>,
        image_tokens: Vec<f32>,
        image_logits: Vec<f32>,
        sizes: ApmSizes,
    ) -> Option<Self> {
        let ApmSizes { patches, token_width, embedding_width } = sizes;
        let expected = [STRUCTURE_COUNT * 4, STRUCTURE_COUNT * embedding_width, patches * token_width, LABEL_COUNT];
        if [&boxes_cxcywh, &object_embeddings, &image_tokens, &image_logits].map(Vec::len) != expected {
            return None;
        }
        let boxes = boxes_cxcywh.chunks_exact(4).map(|b| NormalizedBox::from_center(b[0], b[1], b[2], b[3])).collect();
        Some(Self { boxes, boxes_cxcywh, object_embeddings, image_tokens, image_logits, embedding_width })
    }

    /// The object embedding of a structure.
    pub fn embedding(&self, structure: Structure) -> &[f32] {
        let start = structure.index() * self.embedding_width;
        &self.object_embeddings[start..start + self.embedding_width]
    }

    /// Scores of the 14 image labels, 0..1, not calibrated.
    pub fn scores(&self) -> Vec<f32> {
        self.image_logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
    }
}

/// The loaded perception module.
pub struct PerceptionModule {
    graph: Graph,
    sizes: ApmSizes,
    side: usize,
}

impl PerceptionModule {
    /// Loads `apm.onnx`.
    ///
    /// # Errors
    /// If it cannot be loaded or lacks an input or output.
    pub fn load(runtime: &Runtime, bundle: &Bundle) -> Result<Self, RuntimeError> {
        let graph = runtime.graph(&bundle.file(APM))?;
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_string()).collect::<Vec<_>>();
        graph.check_names(&names(&["image"]), &names(&["boxes", "object_embeddings", "image_tokens", "image_logits"]))?;
        let manifest = bundle.manifest();
        let (apm, side) = (manifest.apm, manifest.preprocess.size as usize);
        graph.check_sizes(&[
            ("image", 2, "preprocess.size", side),
            ("image", 3, "preprocess.size", side),
            ("image_tokens", 1, "apm.patches", apm.patches),
            ("image_tokens", 2, "apm.token_width", apm.token_width),
            ("object_embeddings", 2, "apm.embedding_width", apm.embedding_width),
        ])?;
        Ok(Self { graph, sizes: manifest.apm, side: manifest.preprocess.size as usize })
    }

    /// Runs the module on a preprocessed radiograph: `side * side` values 0..1, row by row.
    ///
    /// # Errors
    /// If the graph fails, its outputs have other shapes than the manifest says, or a value of them is not finite.
    pub fn run(&self, image: &[f32]) -> Result<Perception, RuntimeError> {
        self.run_until(image, None)
    }

    /// [`PerceptionModule::run`], unless `stop` is requested.
    ///
    /// # Errors
    /// As [`PerceptionModule::run`], and if the run is stopped.
    pub(crate) fn run_until(&self, image: &[f32], stop: Option<&StopSignal>) -> Result<Perception, RuntimeError> {
        self.compute(1, image, stop)?.pop().ok_or_else(Self::sizes_differ)
    }

    /// Runs the graph once for several radiographs, unless `stop` is requested. The result for each is that of
    /// [`PerceptionModule::run`] and does not depend on the others.
    ///
    /// # Errors
    /// As [`PerceptionModule::run`], and if the run is stopped.
    pub(crate) fn run_batch(&self, images: &[Vec<f32>], stop: Option<&StopSignal>) -> Result<Vec<Perception>, RuntimeError> {
        match images {
            [] => Ok(Vec::new()),
            [image] => self.compute(1, image, stop),
            _ => self.compute(images.len(), &images.concat(), stop),
        }
    }

    /// Largest number of radiographs in one run, so that its memory stays bounded.
    pub fn batch(&self) -> usize {
        (MAX_BATCH_PIXELS / (self.side * self.side).max(1)).clamp(1, MAX_BATCH)
    }

    /// The graph, for tests.
    #[cfg(test)]
    pub(crate) fn graph(&mut self) -> &mut Graph {
        &mut self.graph
    }

    fn compute(&self, count: usize, images: &[f32], stop: Option<&StopSignal>) -> Result<Vec<Perception>, RuntimeError> {
        let failed = |e: ort::Error| RuntimeError::Run { graph: APM.into(), source: source(e) };
        let input = TensorRef::from_array_view(([count, 1, self.side, self.side], images)).map_err(failed)?;
        let outputs = self.graph.run_until(&[("image", input.into())], stop)?;
        let ApmSizes { patches, token_width, embedding_width } = self.sizes;
        let read = |name, shape: &[usize]| outputs.read(name, shape);
        let all = [
            (read("boxes", &[count, STRUCTURE_COUNT, 4])?, STRUCTURE_COUNT * 4),
            (read("object_embeddings", &[count, STRUCTURE_COUNT, embedding_width])?, STRUCTURE_COUNT * embedding_width),
            (read("image_tokens", &[count, patches, token_width])?, patches * token_width),
            (read("image_logits", &[count, LABEL_COUNT])?, LABEL_COUNT),
        ];
        if !all.iter().flat_map(|(values, _)| values).all(|value| value.is_finite()) {
            return Err(RuntimeError::NotFinite { graph: APM.into() });
        }
        let perceptions = (0..count).map(|index| {
            let [boxes, objects, tokens, logits] =
                all.each_ref().map(|(values, each)| values.get(index * each..(index + 1) * each).unwrap_or_default().to_vec());
            Perception::new(boxes, objects, tokens, logits, self.sizes).ok_or_else(Self::sizes_differ)
        });
        perceptions.collect()
    }

    fn sizes_differ() -> RuntimeError {
        RuntimeError::Run { graph: APM.into(), source: source("its outputs have other sizes than the manifest says") }
    }
}
