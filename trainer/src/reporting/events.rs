//! TensorBoard's event files: records of a length, a protocol buffer, and checksums of both.
//!
//! Crates that write them need the protocol buffer compiler, or are no longer kept; what scalars need is a few lines.

use super::log::{Line, number, numbers};
use anyhow::{Context, Result};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An event file of a training stage.
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Begins a new file in the folder, after those that are there. TensorBoard takes the later of two values of a step.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        let number = std::fs::read_dir(folder)?.count();
        // TensorBoard reads files with `tfevents` in their name, in the order of their names.
        let path = folder.join(format!("events.out.tfevents.{number:010}"));
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut events = Self { file, path };
        events.write(&Event { wall_time: now(), file_version: Some("brain.Event:2".into()), ..Event::default() })?;
        Ok(events)
    }

    /// Appends the numbers of a log's line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, stage: &str, line: &Line) -> Result<()> {
        let scalars = numbers(line).into_iter().filter(|(key, _)| key != "step");
        let scalars = scalars.map(|(key, value)| Scalar { tag: format!("{stage}/{key}"), simple_value: Some(value as f32) });
        let step = number(line, "step").unwrap_or_default() as i64;
        self.write(&Event { wall_time: now(), step, summary: Some(Summary { value: scalars.collect() }), file_version: None })
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let record = [&length[..], &masked(&length), &data, &masked(&data)].concat();
        self.file.write_all(&record).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A checksum as the format stores it: CRC-32C, turned by 15 bits, plus a constant.
fn masked(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
