//! The documents for other systems that commands write: DICOM objects, FHIR.

use crate::common::Failure;
use anatomix::output::{Overlay, ReportClass, StructuredReport, check_content_time, write_private};
use anatomix::{Answer, Error, Radiograph, Study};
use clap::{ArgGroup, Args, Command};
use std::path::{Path, PathBuf};

/// Options of documents for other systems; `perceive`, `ask`, `chat` and `report` share them.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Documents for other systems")]
#[command(group = ArgGroup::new("documents").multiple(true).args(["sr", "gsps", "sc", "fhir"]))]
pub struct Documents {
    /// Write the structures and the answers as a DICOM structured report in the study of the image, which has to be a DICOM file. For
    /// several images name an existing folder, which gets NAME.sr.dcm for each
    #[arg(long, value_name = "DCM")]
    pub sr: Option<PathBuf>,
    /// Write a Comprehensive SR instead of a Comprehensive 3D SR, for viewers that do not know that
    #[arg(long, requires = "sr")]
    pub comprehensive_sr: bool,
    /// Write boxes and labels as a DICOM presentation state, which viewers draw over the image. For several images name an existing
    /// folder, which gets NAME.gsps.dcm for each
    #[arg(long, value_name = "DCM")]
    pub gsps: Option<PathBuf>,
    /// Write the overlay as a DICOM secondary capture, an image that every viewer shows. For several images name an existing folder, which
    /// gets NAME.sc.dcm for each
    #[arg(long, value_name = "DCM")]
    pub sc: Option<PathBuf>,
    /// Write structures and answers as a FHIR R4 bundle with a diagnostic report, as JSON. For several images name an existing folder,
    /// which gets NAME.fhir.json for each
    #[arg(long, value_name = "JSON")]
    pub fhir: Option<PathBuf>,
    /// The time at which the results were made, as YYYYMMDDhhmmss [default: that of the image]
    #[arg(long, value_name = "TIME", requires = "documents", value_parser = content_time)]
    pub content_time: Option<String>,
}

/// The kinds of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Report,
    PresentationState,
    Capture,
    Fhir,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Report, Self::PresentationState, Self::Capture, Self::Fhir];

    /// The option that names its file.
    pub fn option(self) -> &'static str {
        match self {
            Self::Report => "--sr",
            Self::PresentationState => "--gsps",
            Self::Capture => "--sc",
            Self::Fhir => "--fhir",
        }
    }

    /// The end of the names of files in a folder.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Report => ".sr.dcm",
            Self::PresentationState => ".gsps.dcm",
            Self::Capture => ".sc.dcm",
            Self::Fhir => ".fhir.json",
        }
    }
}

/// Parses a content time.
fn content_time(text: &str) -> Result<String, String> {
    check_content_time(text).map(|()| text.to_owned()).map_err(|_| "it must be a date and time, as YYYYMMDDhhmmss".into())
}

/// Shortens the help of these options for a command that takes a single image.
pub fn of_one_image(command: Command) -> Command {
    command.mut_args(|argument| {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        match help.split_once(". For several images") {
            Some((one, _)) => argument.help(one.to_owned()),
            None => argument,
        }
    })
}

impl Documents {
    /// The file or folder of a kind of document, if it is asked for.
    pub fn place(&self, kind: Kind) -> Option<&Path> {
        match kind {
            Kind::Report => self.sr.as_deref(),
            Kind::PresentationState => self.gsps.as_deref(),
            Kind::Capture => self.sc.as_deref(),
            Kind::Fhir => self.fhir.as_deref(),
        }
    }

    /// The documents that are asked for, with their options and files.
    pub fn places(&self) -> impl Iterator<Item = (Kind, &Path)> {
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, self.place(kind)?)))
    }

    /// The bytes of a document. A capture shows the last answer, or the structures if there is none.
    fn bytes(&self, kind: Kind, study: &Study, radiograph: Option<&Radiograph>, answers: &[Answer]) -> Result<Vec<u8>, Failure> {
        let time = self.content_time.as_deref();
        let bytes = match (kind, radiograph) {
            (Kind::PresentationState, _) => {
                let state = study.presentation_state(answers);
                time.map_or(state, |time| state.content_time(time)).to_bytes()
            }
            (Kind::Fhir, _) => {
                let bundle = study.fhir(answers);
                time.map_or(bundle, |time| bundle.content_time(time)).to_bytes()
            }
            (Kind::Capture, Some(radiograph)) => {
                let drawn = answers.last().map(|answer| Overlay::of_answer(answer, radiograph));
                let overlay = drawn.unwrap_or_else(|| Overlay::of_study(study, radiograph)).map_err(Error::from)?;
                let capture = study.secondary_capture(&overlay);
                time.map_or(capture, |time| capture.content_time(time)).to_bytes()
            }
            (Kind::Capture, None) => {
                return Err(Failure::Usage("--sc needs the radiograph itself, which a saved study does not hold".into()));
            }
            (Kind::Report, _) => {
                let class = if self.comprehensive_sr { ReportClass::Comprehensive } else { ReportClass::Comprehensive3d };
                let report = study.structured_report(answers).class(class);
                time.map_or(report, |time| report.content_time(time)).to_bytes()
            }
        };
        Ok(bytes.map_err(Error::from)?)
    }

    /// Checks that the documents can be made of the radiograph's study, before it is perceived.
    pub fn check(&self, radiograph: &Radiograph) -> Result<(), Failure> {
        if self.places().next().is_none() {
            return Ok(());
        }
        Ok(StructuredReport::check(radiograph, self.content_time.as_deref()).map_err(Error::from)?)
    }

    /// Checks that the documents can be made of the study, before answers are decoded for them.
    pub fn check_study(&self, study: &Study, radiograph: Option<&Radiograph>) -> Result<(), Failure> {
        self.places().try_for_each(|(kind, _)| self.bytes(kind, study, radiograph, &[]).map(drop))
    }

    /// Writes a document to a file.
    pub fn write(
        &self,
        kind: Kind,
        study: &Study,
        radiograph: Option<&Radiograph>,
        answers: &[Answer],
        path: &Path,
    ) -> Result<(), Failure> {
        Ok(write_private(path, &self.bytes(kind, study, radiograph, answers)?).map_err(Error::from)?)
    }
}
