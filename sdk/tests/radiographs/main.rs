//! Radiographs as files: DICOM of every accepted form, PNG and JPEG, and whatever else a folder may hold. Nothing panics, and every
//! error names the file and what is wrong.

mod containers;
mod display;
mod facts;
mod file;
mod hostile;
