//! FHIR R4: a study and answers about it as a bundle of resources.

mod observations;
mod resources;
mod value;

use super::document::{Document, PRODUCT, is_cut};
use super::{OutputError, write_private};
use crate::answer::Answer;
use crate::retrieval::is_finding;
use crate::study::Study;
use observations::Observed;
use resources::{About, Resources, date_time};
use serde_json::json;
use std::path::Path;
use value::narrative;

/// A FHIR R4 bundle of a study and of answers about it: a DiagnosticReport with its Observations, and the Patient, ImagingStudy and Device
/// that they refer to.
///
/// There is an Observation for each structure, with its body site, sentence and box in pixels of the radiograph; for each image label; for
/// each flag; and for each answer and each of its boxes. Body sites and labels have the codes of the structured report. The report is
/// preliminary, and says that the software is for research use, not a medical device. `docs/fhir.md` says where each value comes from.
///
/// The same study, answers and options give the same bytes. So the report's effective time is that of the radiograph, unless
/// [`content_time`](Self::content_time) gives another.
///
/// ```no_run
/// # use anatomix::{Engine, Radiograph, Task};
/// # fn main() -> anatomix::Result<()> {
/// # let engine = Engine::builder().open("examples/reference-bundle")?;
/// let mut study = engine.study(&Radiograph::open("chest.dcm")?)?;
/// let report = study.ask(Task::Report)?;
/// study.fhir(&[report]).write("report.fhir.json")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct FhirBundle<'a> {
    document: Document<'a>,
}

impl<'a> FhirBundle<'a> {
    /// The bundle of a study with these answers of it, which may be none.
    pub fn of(study: &'a Study, answers: &'a [Answer]) -> Self {
        Self { document: Document::of(study, answers) }
    }

    /// Sets the effective time, as `YYYYMMDDhhmmss`: the time at which the results were made. Without it, it is that of the radiograph's
    /// content, acquisition, series or study, whichever its header has.
    #[must_use]
    pub fn content_time(self, time: &'a str) -> Self {
        Self { document: Document { content_time: Some(time), ..self.document } }
    }

    /// The bytes of a JSON file (`application/fhir+json`).
    ///
    /// # Errors
    /// [`OutputError`]: if the radiograph is not a DICOM file, its header lacks or misspells what identifies patient, study or image, there
    /// is no content time, or an answer is about another radiograph or from another bundle.
    pub fn to_bytes(&self) -> Result<Vec<u8>, OutputError> {
        let (identity, time) = self.document.check()?;
        let Document { study, answers, .. } = self.document;
        let provenance = study.provenance();
        let effective = date_time(identity, &time.date, &time.time);
        let mut bundle = Resources::default();
        let patient = bundle.add(resources::patient(identity));
        let images = bundle.add(resources::imaging_study(identity, &patient));
        let device = bundle.add(resources::device(provenance));
        let about = About { patient: &patient, images: &images, device: &device, effective: &effective };
        let observed = Observed { study, answers, about };
        let results = observed.add_to(&mut bundle);
        let conclusion = self.conclusion();
        bundle.add(json!({
            "resourceType": "DiagnosticReport",
            "text": { "status": "generated", "div": narrative(&conclusion) },
            "status": if self.document.cut().is_some() { "partial" } else { "preliminary" },
            "category": [{ "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology",
            }] }],
            "code": {
                "coding": [{ "system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study" }],
                "text": "Chest radiograph, read by software for research use",
            },
            "subject": patient,
            "effectiveDateTime": effective,
            "result": results,
            "imagingStudy": [images],
            "conclusion": conclusion,
        }));
        Ok(bundle.into_bytes())
    }

    /// Writes the bundle as a JSON file, which appears as a whole or not at all.
    ///
    /// # Errors
    /// As [`FhirBundle::to_bytes`], and if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), OutputError> {
        write_private(path, &self.to_bytes()?)
    }

    /// What the report says: its limits, flags, then questions and answers, or the structures' findings if there are no answers.
    fn conclusion(&self) -> String {
        let Document { study, answers, .. } = self.document;
        let provenance = study.provenance();
        let limits = format!(
            "{PRODUCT} {}, {}. No person has verified this. Scores are {}.",
            provenance.sdk, provenance.intended_use, provenance.scores
        );
        let flags = study.flags().iter().map(|flag| format!("{} ({}): {}", flag.code.name(), flag.severity.name(), flag.message));
        let mut lines: Vec<String> = [limits].into_iter().chain(flags).collect();
        if answers.is_empty() {
            let sentences = study.structures().iter().map(|found| &found.sentence.text).filter(|sentence| is_finding(sentence));
            let before = lines.len();
            lines.extend(sentences.cloned());
            if lines.len() == before {
                lines.push(format!("No finding in {} structures.", study.structures().len()));
            }
        }
        for answer in answers {
            lines.push(format!("Question: {}", answer.question.trim()));
            let ending = if is_cut(answer) { format!(" (incomplete: {})", answer.finish.name()) } else { String::new() };
            lines.push(format!("Answer: {}{ending}", answer.text.trim()));
        }
        lines.join("\n")
    }
}

impl Study {
    /// The FHIR R4 bundle of this study with these answers of it, which may be none.
    pub fn fhir<'a>(&'a self, answers: &'a [Answer]) -> FhirBundle<'a> {
        FhirBundle::of(self, answers)
    }
}
