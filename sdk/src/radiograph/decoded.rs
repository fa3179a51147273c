//! What decoders return.

use super::identity::Source;
use super::stored::Samples;
use super::{Header, RadiographError, memory};
use std::borrow::Cow;

/// A decoded radiograph.
pub(super) struct Decoded<'a> {
    pub width: u32,
    pub height: u32,
    /// Stored values, `width * height` of them.
    pub samples: Samples<'a>,
    /// The intensity 0..1 of each possible stored value.
    pub levels: Vec<f32>,
    pub header: Header,
    pub source: Source,
    pub noticed: Noticed,
}

impl Decoded<'_> {
    /// With a copy of the samples, if they are borrowed.
    pub fn into_owned(self, name: &str) -> Result<Decoded<'static>, RadiographError> {
        let bytes = match self.samples.bytes {
            Cow::Borrowed(bytes) => memory::copied(bytes, name)?,
            Cow::Owned(bytes) => bytes,
        };
        Ok(Decoded { samples: Samples { depth: self.samples.depth, bytes: bytes.into() }, ..self })
    }
}

/// What was noticed while pixels were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Noticed {
    /// Why the pixels may be damaged although they could be decoded.
    pub damage: Option<String>,
    /// The share of coloured pixels, 0..1.
    pub colour: f32,
}

/// The doubt about a file in which these bytes follow the end of the picture. Padding with zeros is none.
pub(super) fn surplus(rest: &[u8]) -> Option<String> {
    let last = rest.iter().rposition(|&byte| byte != 0)?;
    Some(format!("{} bytes follow its end", last + 1))
}
