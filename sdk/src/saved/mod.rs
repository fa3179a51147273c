//! Saved studies: a study as bytes, with the outputs of perception and the KV cache of its context, so that neither is computed again.
//!
//! The bytes are a safetensors file. Its metadata hold a [`Header`]. Its tensors are the outputs of the perception module, and the keys
//! and values of each layer. Its last tensor, and so its last 32 bytes, is the SHA-256 of all bytes before it. A study belongs to one
//! bundle, whose hash is in the header. Sentences and the prompt are made again from the outputs of perception.

mod error;
mod mark;

pub use error::SavedError;
pub use mark::is_saved_study;

use crate::anatomy::{LABEL_COUNT, STRUCTURE_COUNT};
use crate::cause::Problem;
use crate::control::StoppedError;
use crate::conversation::Conversation;
use crate::engine::{Engine, Subject};
use crate::error::{Error, Result};
use crate::files;
use crate::geometry::Letterbox;
use crate::hash::Digest;
use crate::perception::Perception;
use crate::perception::flags::Flag;
use crate::radiograph::{PixelHistory, Source, check_sides, is_dicom};
use crate::study::Study;
use crate::text::brief;
use error::VERSION;
use mark::KEY;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::Path;

/// The tensors with the outputs of the perception module.
const PERCEIVED: [&str; 4] = ["boxes", "object_embeddings", "image_tokens", "image_logits"];
/// The tensor with the checksum. The format sorts tensors by the size of their type, so the only tensor of bytes is the last one.
const CHECKSUM: &str = "sha256";
/// Largest accepted head of the file, which holds the header and the list of tensors, in bytes.
const MAX_HEAD: usize = 4 << 20;
/// The name in messages of a study that is not read from a file.
const NAME: &str = "the saved study";

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    bundle_sha256: String,
    name: String,
    width: u32,
    height: u32,
    input_sha256: String,
    source: Source,
    /// Absent in studies that earlier versions saved.
    #[serde(default)]
    pixels: PixelHistory,
    flags: Vec<Flag>,
}

/// The part of a header that all layouts have.
#[derive(Deserialize)]
struct Layout {
    version: u32,
}

impl Study {
    /// Returns the study as bytes, for [`Engine::load_study`]. If the context is not yet in the KV cache, it is prefilled first and stays
    /// there. The turns of the conversation are not saved. At the published sizes a saved study has about a third of a gigabyte; see
    /// [`Engine::study_bytes`].
    ///
    /// The bytes hold patient data: what was perceived, the radiograph's name and, if it is a DICOM file, the patient's name, number, birth
    /// date and sex, and the study's numbers, which a structured report needs ([`Study::structured_report`]). Protect them as you protect
    /// the radiograph.
    ///
    /// # Errors
    /// If the model fails, memory cannot be allocated, or a [`crate::CancelHandle`] stops the prefill
    /// ([`StoppedError`](crate::error::StoppedError)). The study is then unchanged.
    pub fn save(&mut self) -> Result<Vec<u8>> {
        let model = std::sync::Arc::clone(&self.model);
        let was_computed = self.conversation.is_some();
        // If nothing is left to compute, a request comes too late.
        let _taken = self.cancel.take_at_end();
        if !was_computed {
            let opened = Conversation::open(&model, &self.context, &self.perception, 0, || !self.cancel.is_cancelled())?;
            self.conversation = Some(opened.ok_or(StoppedError::Cancelled)?);
        }
        let saved = self.serialize();
        if saved.is_err() && !was_computed {
            self.conversation = None;
        }
        saved
    }

    fn serialize(&self) -> Result<Vec<u8>> {
        let unsaved = |Problem { message, source }| SavedError::Unsaved { message, source };
        let cache = self.conversation.as_ref().map(Conversation::cache).ok_or_else(|| unsaved("its context was not computed".into()))?;
        let header = Header {
            version: VERSION,
            bundle_sha256: self.provenance.bundle_sha256.clone(),
            name: self.name.clone(),
            width: self.width(),
            height: self.height(),
            input_sha256: self.provenance.input_sha256.clone(),
            source: self.source.clone(),
            pixels: self.provenance.pixels.clone(),
            flags: self.flags.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|e| unsaved(Problem::caused("its header cannot be written", e)))?;
        if header.len() > MAX_HEAD / 2 {
            let message = format!("its name and flags have {} bytes; perceive it under a shorter name", header.len());
            return Err(unsaved(message.into()).into());
        }
        let failure = OnceCell::new();
        let floats = |count, read| Part { dtype: Dtype::F32, shape: [count], read, failure: &failure };
        let Perception { boxes_cxcywh, object_embeddings, image_tokens, image_logits, .. } = &*self.perception;
        let perceived = PERCEIVED.into_iter().zip([boxes_cxcywh, object_embeddings, image_tokens, image_logits]).map(|(name, values)| {
            let read: Read = Box::new(|| Ok(to_bytes(values)));
            (name.to_string(), floats(values.len(), read))
        });
        let (decoder, length) = (&self.model.decoder, self.context.ids.len());
        let computed = (0..2 * decoder.sizes().layers).map(|index| {
            let read: Read = Box::new(move || Ok(to_bytes(&decoder.read_cache(cache, index, length)?)));
            (cached(index), floats(decoder.saved_values(cache, index, length), read))
        });
        let checksum = Part { dtype: Dtype::U8, shape: [SHA256], read: Box::new(|| Ok(vec![0; SHA256])), failure: &failure };
        let parts: Vec<_> = perceived.chain(computed).chain([(CHECKSUM.to_string(), checksum)]).collect();
        // The serializer aborts if it cannot allocate, so the allocation is tried here first.
        let bytes = parts.iter().map(|(_, part)| part.data_len()).sum::<usize>() + MAX_HEAD;
        Vec::<u8>::new()
            .try_reserve_exact(bytes)
            .map_err(|_| unsaved(format!("{bytes} bytes of memory cannot be allocated; free memory").into()))?;
        let metadata = HashMap::from([(KEY.to_string(), header)]);
        let mut bytes =
            safetensors::serialize(parts, Some(metadata)).map_err(|e| unsaved(Problem::caused("it cannot be written as bytes", e)))?;
        if let Some(failure) = failure.into_inner() {
            return Err(failure);
        }
        if let Some((content, checksum)) = bytes.split_last_chunk_mut::<SHA256>() {
            *checksum = Digest::of(content).0;
        }
        Ok(bytes)
    }
}

/// Bytes of the checksum.
const SHA256: usize = Digest::BYTES;

/// The name of a layer's keys or values.
fn cached(index: usize) -> String {
    format!("cache.{index:04}")
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

type Read<'a> = Box<dyn Fn() -> Result<Vec<u8>> + 'a>;

/// A tensor of the file. Its values are read when they are written, so that at most one tensor is held beside the bytes.
struct Part<'a> {
    dtype: Dtype,
    shape: [usize; 1],
    read: Read<'a>,
    /// The first error of any part.
    failure: &'a OnceCell<Error>,
}

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = (self.read)().unwrap_or_else(|error| {
            let _ = self.failure.set(error);
            vec![0; self.data_len()]
        });
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.shape[0] * self.dtype.bitsize() / 8
    }
}

impl Engine {
    /// Loads a study from the bytes of [`Study::save`]. Its context is in the KV cache, so its first question prefills only its own tokens.
    ///
    /// # Errors
    /// If the bytes are damaged, or belong to another bundle or version, or memory cannot be allocated within the engine's limit.
    pub fn load_study(&self, bytes: &[u8]) -> Result<Study> {
        self.within(|| self.load(bytes, NAME))
    }

    /// Loads a study from a file, whose path is named in errors. At most as many bytes are read as a study of this bundle can have.
    ///
    /// # Errors
    /// If the file cannot be read, and as [`Engine::load_study`].
    pub fn open_study(&self, path: impl AsRef<Path>) -> Result<Study> {
        let path = path.as_ref();
        let bytes = files::read(path, self.largest_study()).map_err(|source| SavedError::Read { path: path.into(), source })?;
        self.within(|| self.load(&bytes, &path.display().to_string()))
    }

    /// Largest size of a saved study of this bundle in bytes.
    fn largest_study(&self) -> u64 {
        let manifest = self.bundle().manifest();
        let (apm, decoder) = (&manifest.apm, &manifest.decoder);
        let perceived = (STRUCTURE_COUNT * (4 + apm.embedding_width) + apm.patches * apm.token_width + LABEL_COUNT) as u64;
        let computed = [2, decoder.layers, decoder.kv_heads, decoder.head_dim, decoder.max_context];
        let computed = computed.iter().fold(1u64, |product, &size| product.saturating_mul(size as u64));
        perceived.saturating_add(computed).saturating_mul(size_of::<f32>() as u64).saturating_add(MAX_HEAD as u64)
    }

    fn load(&self, bytes: &[u8], name: &str) -> Result<Study> {
        let damaged = |problem: Problem| {
            let Problem { message, source } = if is_dicom(bytes) { "it is a DICOM file".into() } else { problem };
            SavedError::Damaged { name: name.into(), message, source }
        };
        let content = |Problem { message, source }| SavedError::Content { name: name.into(), message, source };
        let head = bytes.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        if head > MAX_HEAD as u64 {
            return Err(damaged("it does not begin with the header of a safetensors file".into()).into());
        }
        let (_, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| damaged(Problem::caused("its list of tensors cannot be read", e)))?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| damaged(format!("it lacks {KEY:?}").into()))?;
        let Layout { version: found } =
            serde_json::from_str(header).map_err(|e| damaged(Problem::caused("its header names no layout", e)))?;
        match found.cmp(&VERSION) {
            std::cmp::Ordering::Less => return Err(SavedError::Older { name: name.into(), found }.into()),
            std::cmp::Ordering::Greater => return Err(SavedError::Newer { name: name.into(), found }.into()),
            std::cmp::Ordering::Equal => {}
        }
        let whole = bytes.split_last_chunk::<SHA256>().is_some_and(|(content, checksum)| Digest::of(content).0 == *checksum);
        if !whole {
            return Err(damaged("its SHA-256 is not the one that it was saved with".into()).into());
        }
        let header: Header = serde_json::from_str(header).map_err(|e| content(Problem::caused("its header cannot be read", e)))?;
        let expected = self.bundle().hash();
        if header.bundle_sha256 != expected {
            let found = brief(header.bundle_sha256);
            return Err(SavedError::Bundle { name: name.into(), found, expected: expected.into() }.into());
        }
        check_sides(header.width, header.height, "its image").map_err(|e| content(e.to_string().into()))?;
        if header.input_sha256.len() != 2 * SHA256 || !header.input_sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(content("the SHA-256 of its image is not 64 hexadecimal digits".into()).into());
        }
        let source = header.source.map_err(brief);
        if source.as_ref().is_ok_and(|identity| !identity.is_valid()) {
            return Err(content("the identity of its patient, study or image is not valid in DICOM".into()).into());
        }
        if !header.pixels.is_valid() {
            return Err(content("its description of the image's pixels is not valid in DICOM".into()).into());
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| content(Problem::caused("its tensors cannot be read", e)))?;
        let engine = self.inner();
        let tensors = PERCEIVED.len() + 2 * engine.model.decoder.sizes().layers + 1;
        if file.len() != tensors {
            return Err(content(format!("it has {} tensors instead of {tensors}", file.len()).into()).into());
        }
        let floats = |name: &str| read(&file, name).map_err(content);
        let [boxes, objects, tokens, logits] = PERCEIVED.map(floats);
        let perception = Perception::new(boxes?, objects?, tokens?, logits?, self.bundle().manifest().apm)
            .ok_or_else(|| content("the outputs of perception have other sizes than the bundle's".into()))?;
        let letterbox = Letterbox::new(header.width, header.height);
        let subject = Subject { name: &header.name, letterbox, input_sha256: &header.input_sha256, source, pixels: header.pixels };
        let mut study = engine.assemble(subject, perception)?;
        study.flags = header.flags;
        let length = study.context.ids.len();
        let rows = |index| {
            let rows = floats(&cached(index))?;
            if engine.model.decoder.can_restore(index, length, rows.len()) {
                return Ok(rows);
            }
            Err(content(format!("{} has {} values, which does not fit its {length} tokens", cached(index), rows.len()).into()).into())
        };
        study.conversation = Some(Conversation::restore(&engine.model, &study.context, &study.perception, rows)?);
        Ok(study)
    }
}

fn read(file: &SafeTensors, name: &str) -> Result<Vec<f32>, Problem> {
    let tensor = file.tensor(name).map_err(|e| Problem::caused(format_args!("it lacks {name}"), e))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("{name} is of {:?}", tensor.dtype()).into());
    }
    let mut values = Vec::new();
    values.try_reserve_exact(tensor.data().len() / 4).map_err(|e| Problem::caused(format_args!("{name} does not fit into memory"), e))?;
    values.extend(tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(values),
        false => Err(format!("{name} has values that are not numbers").into()),
    }
}
