//! Readers of public data sets, each in the layout in which it is published.
//!
//! A reader gives typed rows. What it cannot use it notes in [`skipped::Skipped`], with file, row and reason, and goes on: no damaged file
//! stops it or makes it panic. Boxes are in pixels of the image.

pub mod array;
pub mod boxes;
pub mod files;
pub mod imagenome;
pub mod mimic;
pub mod mimic_vqa;
pub mod ms_cxr;
pub mod padchest;
pub mod phantom;
pub mod radialog;
pub mod size;
pub mod skipped;
pub mod slake;
pub mod split;
pub mod table;
pub mod text;
pub mod vindr;
