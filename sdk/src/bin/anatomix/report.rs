//! `anatomix report`: findings and impression.

use crate::ask::Output;
use crate::common::{Failure, Options};
use anatomix::Task;
use clap::Args;
use std::path::PathBuf;

/// Write the findings and impression of a radiograph
#[derive(Args)]
pub struct Report {
    /// DICOM, PNG or JPEG file, or a study that --save wrote
    image: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Report {
    pub fn run(&self, options: &Options) -> Result<(), Failure> {
        self.output.answer(options, &self.image, vec![Task::Report.into()])
    }
}
