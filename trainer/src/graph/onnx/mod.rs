//! The reader that writes: a model's function becomes an ONNX graph with its weights in an external data file.

mod file;
mod ops;
mod proto;
mod writer;

pub use file::{Dim, Storage};
pub use proto::DataType;
pub use writer::{OnnxTensor, Writer};
