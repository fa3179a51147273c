//! The DICOM objects that commands write.

use crate::common::Failure;
use anatomix::output::{ReportClass, write_whole};
use anatomix::{Answer, Error, Study};
use clap::Args;
use std::path::{Path, PathBuf};

/// Options of DICOM objects; `perceive`, `ask`, `chat` and `report` share them.
#[derive(Args, Clone)]
#[command(next_help_heading = "DICOM")]
pub struct Dicom {
    /// Write the structures and the answers as a DICOM structured report in the study of the image, which has to be a DICOM file. For
    /// several images name an existing folder, which gets NAME.sr.dcm for each
    #[arg(long, value_name = "DCM")]
    pub sr: Option<PathBuf>,
    /// Write a Comprehensive SR instead of a Comprehensive 3D SR, for viewers that do not know that
    #[arg(long, requires = "sr")]
    pub sr_2d: bool,
    /// The time at which the results were made, as YYYYMMDDhhmmss [default: that of the image]
    #[arg(long, value_name = "TIME", requires = "sr")]
    pub content_time: Option<String>,
}

impl Dicom {
    /// The bytes of the structured report.
    fn report(&self, study: &Study, answers: &[Answer]) -> Result<Vec<u8>, Failure> {
        let class = if self.sr_2d { ReportClass::Comprehensive } else { ReportClass::Comprehensive3d };
        let report = study.structured_report(answers).class(class);
        let report = self.content_time.as_deref().map_or(report, |time| report.content_time(time));
        Ok(report.to_bytes().map_err(Error::from)?)
    }

    /// Checks that a report can be made of the study, before answers are decoded for it.
    pub fn check(&self, study: &Study) -> Result<(), Failure> {
        if self.sr.is_some() { self.report(study, &[]).map(|_| ()) } else { Ok(()) }
    }

    /// Writes the report to a file.
    pub fn write(&self, study: &Study, answers: &[Answer], path: &Path) -> Result<(), Failure> {
        Ok(write_whole(path, &self.report(study, answers)?).map_err(Error::from)?)
    }
}
