//! Synthetic frontal chest radiographs whose anatomy is known.
//!
//! A [`Scene`] is sampled from a seed: habitus, pose, field of view, findings and devices, with a box for each of the
//! 36 structures. [`Scene::render`] draws it as a radiograph with randomised exposure, so that a network trained on such
//! pictures alone has seen more variety than one real source shows. [`dataset::write`] lays pictures, scene graphs,
//! reports, labels and instruction samples out as the public datasets do.
//!
//! ```
//! use anatomix::anatomy::Structure;
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
