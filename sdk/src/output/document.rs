//! What reports, presentation states and FHIR bundles have in common: a study with answers about it, its patient, and a time.

use super::{OutputError, uid};
use crate::answer::{Answer, Finish};
use crate::provenance::Provenance;
use crate::radiograph::{Identity, Radiograph, Source, is_date, is_time};
use crate::study::Study;

/// The product's name, as maker and model of the device.
pub(super) const PRODUCT: &str = "AnatomiX";

/// The UID of the device: a version of the SDK with a bundle.
pub(super) fn device_uid(Provenance { sdk, bundle_sha256, .. }: &Provenance) -> String {
    uid::derived(&[b"device", sdk.as_bytes(), bundle_sha256.as_bytes()])
}

/// A study with answers about it.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    pub study: &'a Study,
    pub answers: &'a [Answer],
    /// The time that the caller gives, as `YYYYMMDDhhmmss`.
    pub content_time: Option<&'a str>,
}

/// Date and time of a document's content, in DICOM's form.
pub(super) struct ContentTime {
    pub date: String,
    pub time: String,
}

impl<'a> Document<'a> {
    pub fn of(study: &'a Study, answers: &'a [Answer]) -> Self {
        Self { study, answers, content_time: None }
    }

    /// Whose the study is, and the time of the content. It is never the time at which this runs, so that the same result is the same
    /// document.
    ///
    /// # Errors
    /// If the radiograph is not a DICOM file, its header is not valid, there is no time, or an answer is not of this study.
    pub fn check(&self) -> Result<(&'a Identity, ContentTime), OutputError> {
        let study = self.study;
        let identity = identity(&study.source, study.name())?;
        let time = ContentTime::new(self.content_time, identity, study.name())?;
        let own = study.provenance();
        let is_foreign = |answer: &Answer| {
            let (input, bundle) = (&answer.provenance.input_sha256, &answer.provenance.bundle_sha256);
            *input != own.input_sha256 || *bundle != own.bundle_sha256
        };
        if self.answers.iter().any(is_foreign) {
            return Err(OutputError::ForeignAnswer { name: study.name().into() });
        }
        Ok((identity, time))
    }

    /// The first answer that a limit ended.
    pub fn cut(&self) -> Option<&'a Answer> {
        self.answers.iter().find(|answer| is_cut(answer))
    }
}

/// Whether a limit ended this answer.
pub(super) fn is_cut(answer: &Answer) -> bool {
    !matches!(answer.finish, Finish::EndOfTurn | Finish::StopText)
}

/// Checks, before a radiograph is perceived, that documents about its study can be made: with this content time, or that of its header.
///
/// # Errors
/// As [`Document::check`].
pub(super) fn check_source(radiograph: &Radiograph, content_time: Option<&str>) -> Result<(), OutputError> {
    let identity = identity(radiograph.source(), radiograph.name())?;
    ContentTime::new(content_time, identity, radiograph.name()).map(|_| ())
}

/// Checks a content time: `YYYYMMDDhhmmss`, on a day of the calendar.
///
/// # Errors
/// [`OutputError::Time`].
pub fn check_content_time(time: &str) -> Result<(), OutputError> {
    split_time(time).map(|_| ())
}

/// Date and time.
fn split_time(given: &str) -> Result<(&str, &str), OutputError> {
    let parts = given.split_at_checked(8).filter(|(date, time)| is_date(date) && is_time(time) && time.len() == 6);
    parts.ok_or_else(|| OutputError::Time { found: crate::text::brief(given) })
}

/// The identity in `source`, which is that of the radiograph `name`.
///
/// # Errors
/// If it is not a DICOM file, or its header is not valid.
fn identity<'a>(source: &'a Source, name: &str) -> Result<&'a Identity, OutputError> {
    source.as_ref().map(|identity| &**identity).map_err(|message| unidentified(name, message))
}

/// The error that nothing can be made of the study of a radiograph with this name.
pub(super) fn unidentified(name: &str, message: &str) -> OutputError {
    OutputError::Identity { name: name.into(), message: message.into() }
}

impl ContentTime {
    /// The given time, else that of the radiograph.
    fn new(given: Option<&str>, identity: &Identity, name: &str) -> Result<Self, OutputError> {
        if let Some(given) = given {
            let (date, time) = split_time(given)?;
            return Ok(Self { date: date.into(), time: time.into() });
        }
        let missing = "its header has no date and time for the document; pass a content time";
        let [date, time] = identity.time().ok_or_else(|| unidentified(name, missing))?;
        Ok(Self { date: date.into(), time: time.into() })
    }
}
