//! DICOM objects that belong to the study of the radiograph: they go where the image came from, and viewers show them with it.

mod content;
mod element;
mod modules;
mod object;
mod presentation_state;
mod report_tree;
mod secondary_capture;
mod structured_report;

pub use presentation_state::PresentationState;
pub use secondary_capture::SecondaryCapture;
pub use structured_report::{ReportClass, StructuredReport};
