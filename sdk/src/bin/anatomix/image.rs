//! How the image of a command is read.

use crate::common::{Failure, positive};
use anatomix::{Error, Radiograph, ReadOptions};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::Path;

/// Options of reading an image; `perceive`, `ask`, `chat` and `report` share them.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Image")]
pub struct Reading {
    /// Display a DICOM image with this one of its VOI LUTs and windows, counted from 1: first the VOI LUTs, then the windows [default: 1]
    #[arg(long, value_name = "N", value_parser = positive::<NonZeroUsize>, allow_negative_numbers = true)]
    pub window: Option<NonZeroUsize>,
}

impl Reading {
    /// Opens a radiograph.
    pub fn open(&self, path: &Path) -> Result<Radiograph, Failure> {
        let options = ReadOptions::new().window(self.window.map_or(1, NonZeroUsize::get));
        Ok(Radiograph::open_with(path, &options).map_err(Error::from)?)
    }
}
