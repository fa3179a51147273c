//! A study as bytes: what was perceived and the computed context, so that one may return to it without computing either again.
//!
//! The bytes are a safetensors file. It holds for one bundle, whose hash it names; sentences and the prompt follow from what was
//! perceived and are made anew.

mod error;

pub use error::SavedError;

use crate::conversation::Conversation;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::geometry::Letterbox;
use crate::perception::Perception;
use crate::perception::flags::Flag;
use crate::study::Study;
use error::VERSION;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

/// Where the header has [`Header`].
const KEY: &str = "anatomix.study";

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    bundle_sha256: String,
    name: String,
    width: u32,
    height: u32,
    input_sha256: String,
    flags: Vec<Flag>,
}

/// Whether these bytes are a saved study, as far as their beginning tells.
pub fn is_saved(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(4096)];
    bytes.get(8) == Some(&b'{') && start.windows(KEY.len()).any(|window| window == KEY.as_bytes())
}

impl Study {
    /// The study as bytes, for [`Engine::load_study`]; its context is computed first where that was not done yet. Turns of a
    /// conversation are left out. With published sizes it takes about a third of a gigabyte, see [`Engine::study_bytes`].
    ///
    /// # Errors
    /// If the model fails, memory cannot be had, or a [`crate::CancelHandle`] stops it.
    pub fn save(&mut self) -> Result<Vec<u8>> {
        let model = std::sync::Arc::clone(&self.model);
        let conversation = match self.conversation.take() {
            Some(conversation) => conversation,
            None => {
                self.cancel.reset();
                Conversation::open(&model, &self.context, &self.perception, 0, || !self.cancel.is_cancelled())?
            }
        };
        let header = Header {
            version: VERSION,
            bundle_sha256: self.provenance.bundle_sha256.clone(),
            name: self.name.clone(),
            width: self.width(),
            height: self.height(),
            input_sha256: self.provenance.input_sha256.clone(),
            flags: self.flags.clone(),
        };
        let length = self.context.ids.len();
        let cache = self.conversation.insert(conversation).cache();
        let Perception { centers, object_embeddings, image_tokens, image_logits, .. } = &self.perception;
        let seen =
            [("boxes", centers), ("object_embeddings", object_embeddings), ("image_tokens", image_tokens), ("image_logits", image_logits)];
        let failure = OnceCell::new();
        let seen = seen.map(|(name, values)| (name.to_string(), LazyTensor::new(values.len(), &failure, || Ok(values.clone()))));
        let decoder = &model.decoder;
        let computed = (0..2 * decoder.sizes().layers).map(|index| {
            let read = move || Ok(decoder.read_cache(cache, index, length)?);
            (cached(index), LazyTensor::new(decoder.saved_values(cache, index, length), &failure, read))
        });
        let parts = seen.into_iter().chain(computed);
        let damaged = |message: String| SavedError::Damaged { message };
        let header = serde_json::to_string(&header).map_err(|e| damaged(e.to_string()))?;
        let metadata = HashMap::from([(KEY.to_string(), header)]);
        let bytes = safetensors::serialize(parts, Some(metadata)).map_err(|e| damaged(e.to_string()))?;
        failure.into_inner().map_or(Ok(bytes), Err)
    }
}

/// The name of a layer's keys or values.
fn cached(index: usize) -> String {
    format!("cache.{index:04}")
}

/// A tensor of the bytes. It is read when its turn comes: beside the bytes no more than one is held.
struct LazyTensor<'a> {
    shape: [usize; 1],
    read: Box<dyn Fn() -> Result<Vec<f32>> + 'a>,
    /// Why one could not be read.
    failure: &'a OnceCell<Error>,
}

impl<'a> LazyTensor<'a> {
    fn new(values: usize, failure: &'a OnceCell<Error>, read: impl Fn() -> Result<Vec<f32>> + 'a) -> Self {
        Self { shape: [values], read: Box::new(read), failure }
    }
}

impl View for LazyTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = (self.read)().unwrap_or_else(|error| {
            let _ = self.failure.set(error);
            vec![0.0; self.shape[0]]
        });
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        4 * self.shape[0]
    }
}

impl Engine {
    /// A study from what [`Study::save`] gave: its first question costs its own tokens only.
    ///
    /// # Errors
    /// If the bytes are damaged or of another bundle, or memory cannot be had or may not be used.
    pub fn load_study(&self, bytes: &[u8]) -> Result<Study> {
        self.within(|| self.load(bytes))
    }

    fn load(&self, bytes: &[u8]) -> Result<Study> {
        let engine = self.inner();
        let damaged = |message: String| SavedError::Damaged { message };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| damaged(format!("they lack {KEY:?}")))?;
        let header: Header = serde_json::from_str(header).map_err(|e| damaged(e.to_string()))?;
        if header.version > VERSION {
            return Err(SavedError::Newer { found: header.version }.into());
        }
        let expected = self.bundle().hash();
        if header.bundle_sha256 != expected {
            return Err(SavedError::Bundle { found: header.bundle_sha256, expected: expected.into() }.into());
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
        let floats = |name: &str| read(&file, name).map_err(damaged);
        let sizes = self.bundle().manifest().apm;
        let perception =
            Perception::new(floats("boxes")?, floats("object_embeddings")?, floats("image_tokens")?, floats("image_logits")?, sizes)
                .ok_or_else(|| damaged("what was perceived has another shape than the bundle's".into()))?;
        if header.width == 0 || header.height == 0 {
            return Err(damaged("the image has no pixels".into()).into());
        }
        let letterbox = Letterbox::new(header.width, header.height);
        let mut study = engine.assemble(&header.name, letterbox, &header.input_sha256, perception)?;
        study.flags = header.flags;
        let rows = |index| Ok(floats(&cached(index))?);
        study.conversation = Some(Conversation::restore(&engine.model, &study.context, &study.perception, rows)?);
        Ok(study)
    }
}

fn read(file: &SafeTensors, name: &str) -> Result<Vec<f32>, String> {
    let tensor = file.tensor(name).map_err(|e| e.to_string())?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("{name} is of {:?}", tensor.dtype()));
    }
    let values: Vec<f32> = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(values),
        false => Err(format!("{name} holds values that are no numbers")),
    }
}
