//! Synthetic frontal chest radiographs with known anatomy.
//!
//! A [`Scene`] is sampled from a seed: body shape, pose, field of view, findings and devices, with a box for each of the 36
//! structures. [`Scene::render`] draws it as a radiograph with a random exposure. (Phantoms vary more than radiographs of a single real
//! source, so that a network trained on phantoms alone generalises to real ones.) [`dataset::write`] writes pictures, scene graphs,
//! reports, labels and instruction samples in the layout of the public data sets.
//!
//! Sines and powers come from the crate `libm`, so that pictures are equal on all machines. The results of the system's library depend on
//! its version and on the processor's fused multiply-add.
//!
//! ```
//! use anatomix::Structure;
//! let scene = anatomix_phantom::Scene::sample(7);
//! let picture = scene.render();
//! assert_eq!((picture.width, picture.height), (scene.frame.width, scene.frame.height));
//! let lung = scene.structure_box(Structure::LEFT_LUNG).expect("in the field of view");
//! assert!(lung.area() > 0.0);
//! ```

mod acquisition;
mod anatomy;
mod canvas;
pub mod dataset;
mod devices;
mod dicom;
pub mod files;
mod findings;
mod frame;
mod layer;
mod lesions;
mod render;
mod scene;
pub mod tasks;
pub mod text;

pub use dicom::write_dicom;
pub use findings::{Finding, Kind, Zone};
pub use frame::Frame;
pub use layer::Layer;
pub use scene::Scene;
