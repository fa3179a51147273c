//! The export of models as ONNX graphs, with weights in an external data file.

mod calibrate;
mod conv;
mod decoder;
mod file;
mod observe;
mod ops;
mod precision;
mod proto;
mod quantize;
mod ranges;
mod stored;
mod writer;

pub use file::{Dim, is_own};
pub use observe::Observer;
pub use precision::{Operators, Precision};
pub use proto::DataType;
pub use ranges::Ranges;
pub use writer::{OnnxTensor, Writer};
