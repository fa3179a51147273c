//! The export of models as ONNX graphs, with weights in an external data file. [`Writer`] is the implementation of [`Ops`](super::Ops)
//! that writes them.

mod conv;
mod decoder;
mod file;
mod int8;
mod observer;
mod ops;
mod precision;
mod proto;
mod quantize;
mod ranges;
mod writer;
mod written;

pub use file::{Dim, is_own};
pub use observer::Observer;
pub use precision::{Operators, Precision};
pub use proto::DataType;
pub use ranges::Ranges;
pub use writer::{OnnxTensor, Writer};
