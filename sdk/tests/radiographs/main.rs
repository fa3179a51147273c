//! Radiographs as files: all accepted forms of DICOM, PNG and JPEG, and other files. Nothing panics, and each error names the file and the
//! cause.

mod containers;
mod damage;
mod display;
mod facts;
mod file;
mod hostile;
mod photographs;
