//! A data set as the bytes of a file.

use super::element::text;
use crate::cause::source;
use crate::output::OutputError;
use crate::output::uid;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::entries;
use std::fmt::Display;

/// The file of a data set that lacks its SOP Instance UID only. The UID follows from everything else in the data set: two objects with the
/// same UID are the same byte for byte, as DICOM demands.
pub(super) fn file(mut object: InMemDicomObject) -> Result<Vec<u8>, OutputError> {
    fn failed(error: impl Display) -> OutputError {
        OutputError::Dicom { source: source(error) }
    }
    let mut content = Vec::new();
    object.write_dataset_with_ts(&mut content, &entries::EXPLICIT_VR_LITTLE_ENDIAN.erased()).map_err(failed)?;
    object.put(text(tags::SOP_INSTANCE_UID, VR::UI, &uid::derived(&[b"instance", &content])));
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .implementation_class_uid(uid::derived(&[b"implementation"]))
        .implementation_version_name(concat!("ANATOMIX ", env!("CARGO_PKG_VERSION")));
    let mut bytes = Vec::with_capacity(content.len() + 1024);
    object.with_meta(meta).map_err(failed)?.write_all(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
