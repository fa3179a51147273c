//! DICOM objects that belong to the study of the radiograph: they go where the image came from, and viewers show them with it.

mod codes;
mod content;
mod element;
mod modules;
mod object;
mod report_tree;
mod structured_report;
mod uid;

pub use structured_report::{ReportClass, StructuredReport};
