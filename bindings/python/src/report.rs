//! Documents for other systems: structured reports, presentation states, FHIR.

use crate::answer::Answer;
use crate::errors::Failure;
use anatomix::output::{FhirBundle, Overlay, PresentationState, ReportClass, SecondaryCapture, StructuredReport};
use anatomix::{Radiograph, Study};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// What a report holds beside its study, and how it is written.
pub struct Report {
    answers: Vec<anatomix::Answer>,
    content_time: Option<String>,
    class: ReportClass,
}

impl Report {
    /// # Errors
    /// `TypeError` if the content time is neither a text nor a `datetime`.
    pub fn new(answers: &[Bound<'_, Answer>], content_time: Option<&Bound<'_, PyAny>>, comprehensive_sr: bool) -> PyResult<Self> {
        Ok(Self {
            answers: answers.iter().map(|answer| answer.get().answer.clone()).collect(),
            content_time: content_time.map(timestamp).transpose()?,
            class: if comprehensive_sr { ReportClass::Comprehensive } else { ReportClass::Comprehensive3d },
        })
    }

    /// The report of a study as the bytes of a DICOM file.
    pub fn of(&self, study: &Study) -> Result<Vec<u8>, Failure> {
        let report = StructuredReport::of(study, &self.answers).class(self.class);
        let report = self.content_time.as_deref().map_or(report, |time| report.content_time(time));
        Ok(report.to_bytes()?)
    }
}

/// What a document holds beside its study.
pub struct Document {
    answers: Vec<anatomix::Answer>,
    content_time: Option<String>,
}

impl Document {
    /// # Errors
    /// `TypeError` if the content time is neither a text nor a `datetime`.
    pub fn new(answers: &[Bound<'_, Answer>], content_time: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let answers = answers.iter().map(|answer| answer.get().answer.clone()).collect();
        Ok(Self { answers, content_time: content_time.map(timestamp).transpose()? })
    }

    /// The presentation state of a study as the bytes of a DICOM file.
    pub fn presentation_state(&self, study: &Study) -> Result<Vec<u8>, Failure> {
        let state = PresentationState::of(study, &self.answers);
        Ok(self.content_time.as_deref().map_or(state, |time| state.content_time(time)).to_bytes()?)
    }

    /// The secondary capture of a study as the bytes of a DICOM file: the overlay of the last answer, or of the study if there is none.
    pub fn secondary_capture(&self, study: &Study, radiograph: &Radiograph) -> Result<Vec<u8>, Failure> {
        let drawn = self.answers.last().map(|answer| Overlay::of_answer(answer, radiograph));
        let overlay = drawn.unwrap_or_else(|| Overlay::of_study(study, radiograph))?;
        let capture = SecondaryCapture::of(study, &overlay);
        Ok(self.content_time.as_deref().map_or(capture, |time| capture.content_time(time)).to_bytes()?)
    }

    /// The FHIR bundle of a study as the bytes of a JSON file.
    pub fn fhir(&self, study: &Study) -> Result<Vec<u8>, Failure> {
        let bundle = FhirBundle::of(study, &self.answers);
        Ok(self.content_time.as_deref().map_or(bundle, |time| bundle.content_time(time)).to_bytes()?)
    }
}

/// A text as it is, a `datetime` as `YYYYMMDDhhmmss`.
fn timestamp(time: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = time.extract().or_else(|_| time.call_method1("strftime", ("%Y%m%d%H%M%S",))?.extract());
    text.map_err(|_| PyTypeError::new_err("content_time is a text, YYYYMMDDhhmmss, or a datetime"))
}
