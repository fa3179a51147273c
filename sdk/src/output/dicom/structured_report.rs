//! Structured reports (DICOM PS3.3, A.35.3 and A.35.13).

use super::content::ImageReference;
use super::element::{item, sequence, text};
use super::modules::{Series, common, content_time, private_scheme};
use super::object;
use super::report_tree::Subject;
use crate::answer::Answer;
use crate::output::document::{Document, check_source};
use crate::output::{OutputError, write_private};
use crate::radiograph::Radiograph;
use crate::study::Study;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use std::path::Path;

/// The SOP class of a structured report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportClass {
    /// Comprehensive 3D SR (1.2.840.10008.5.1.4.1.1.88.34).
    #[default]
    Comprehensive3d,
    /// Comprehensive SR (1.2.840.10008.5.1.4.1.1.88.33), for viewers that know only that. The content is the same.
    Comprehensive,
}

/// A DICOM structured report of a study and of answers about it, in the study that the radiograph belongs to.
///
/// It is a Measurement Report (TID 1500): a planar region with its coordinates in pixels of the radiograph for each structure and each box
/// of each answer; questions, answers, flags and scores as text and numbers. It says that it is unverified, that scores are uncalibrated,
/// and that the software is for research use, not a medical device. `docs/dicom.md` says where each value comes from.
///
/// The same study, answers and options give the same bytes. So Content Date and Time are those of the radiograph, unless
/// [`content_time`](Self::content_time) gives others.
///
/// ```no_run
/// # use anatomix::{Engine, Radiograph, Task};
/// # use anatomix::output::StructuredReport;
/// # fn main() -> anatomix::Result<()> {
/// # let engine = Engine::builder().open("examples/reference-bundle")?;
/// let mut study = engine.study(&Radiograph::open("chest.dcm")?)?;
/// let report = study.ask(Task::Report)?;
/// StructuredReport::of(&study, &[report]).write("report.dcm")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct StructuredReport<'a> {
    document: Document<'a>,
    class: ReportClass,
}

impl<'a> StructuredReport<'a> {
    /// The report of a study with these answers of it, which may be none.
    pub fn of(study: &'a Study, answers: &'a [Answer]) -> Self {
        Self { document: Document::of(study, answers), class: ReportClass::default() }
    }

    /// Checks, before a radiograph is perceived, that documents about its study can be made: with this content time, or that of its header.
    ///
    /// # Errors
    /// [`OutputError`], as [`StructuredReport::to_bytes`].
    pub fn check(radiograph: &Radiograph, content_time: Option<&str>) -> Result<(), OutputError> {
        check_source(radiograph, content_time)
    }

    /// Sets the SOP class.
    #[must_use]
    pub fn class(self, class: ReportClass) -> Self {
        Self { class, ..self }
    }

    /// Sets Content Date and Content Time, as `YYYYMMDDhhmmss`: the time at which the results were made. Without it, they are those of the
    /// radiograph's content, acquisition, series or study, whichever its header has.
    #[must_use]
    pub fn content_time(self, time: &'a str) -> Self {
        Self { document: Document { content_time: Some(time), ..self.document }, ..self }
    }

    /// The bytes of a DICOM file.
    ///
    /// # Errors
    /// [`OutputError`]: if the radiograph is not a DICOM file, its header lacks or misspells what identifies patient, study or image, there
    /// is no content time, or an answer is about another radiograph or from another bundle.
    pub fn to_bytes(&self) -> Result<Vec<u8>, OutputError> {
        let (identity, time) = self.document.check()?;
        let Document { study, answers, .. } = self.document;
        let image = ImageReference { class_uid: identity.get(tags::SOP_CLASS_UID), instance_uid: identity.get(tags::SOP_INSTANCE_UID) };
        let subject = Subject { study, answers, image, modality: identity.get(tags::MODALITY) };
        let series = Series { modality: "SR", kind: "structured report", description: "AnatomiX, for research use" };
        let class_uid = match self.class {
            ReportClass::Comprehensive3d => uids::COMPREHENSIVE3_DSR_STORAGE,
            ReportClass::Comprehensive => uids::COMPREHENSIVE_SR_STORAGE,
        };
        let mut report = common(class_uid, identity, &series, study.provenance());
        report.put(private_scheme());
        let referenced_series = item([
            text(tags::SERIES_INSTANCE_UID, VR::UI, identity.get(tags::SERIES_INSTANCE_UID)),
            sequence(tags::REFERENCED_SOP_SEQUENCE, vec![image.item()]),
        ]);
        let evidence = item([
            text(tags::STUDY_INSTANCE_UID, VR::UI, identity.get(tags::STUDY_INSTANCE_UID)),
            sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![referenced_series]),
        ]);
        // The modules SR Document Series (C.17.1) and SR Document General (C.17.2).
        let general = [
            sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, vec![]),
            text(tags::PRELIMINARY_FLAG, VR::CS, "PRELIMINARY"),
            text(tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED"),
            sequence(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, vec![]),
            sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![evidence]),
        ];
        general.into_iter().chain(content_time(&time)).for_each(|element| _ = report.put(element));
        complete(&mut report, self.document.cut());
        subject.tree().root().into_iter().for_each(|element| _ = report.put(element));
        object::file(report)
    }

    /// Writes the report as a DICOM file, which appears as a whole or not at all.
    ///
    /// # Errors
    /// As [`StructuredReport::to_bytes`], and if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), OutputError> {
        write_private(path, &self.to_bytes()?)
    }
}

impl Study {
    /// The DICOM structured report of this study with these answers of it, which may be none.
    pub fn structured_report<'a>(&'a self, answers: &'a [Answer]) -> StructuredReport<'a> {
        StructuredReport::of(self, answers)
    }
}

/// Completion Flag: a report with an answer that a limit ended is partial, and says why.
fn complete(report: &mut InMemDicomObject, cut: Option<&Answer>) {
    let flag = match cut {
        None => "COMPLETE",
        Some(answer) => {
            let reason = format!("an answer ended early: {}", answer.finish.name());
            report.put(text(tags::COMPLETION_FLAG_DESCRIPTION, VR::LO, &reason));
            "PARTIAL"
        }
    };
    report.put(text(tags::COMPLETION_FLAG, VR::CS, flag));
}
