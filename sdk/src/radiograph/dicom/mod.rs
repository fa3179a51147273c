//! DICOM. The structure is followed and compressed pixels are unpacked by dicom-rs; from stored values to what a display
//! would show is our own, because every step of it matters and every number in it may be wrong.

mod codestream;
mod dataset;
mod describe;
mod display;
mod file;
mod lut;
mod pixels;
mod rle;
mod unknown;

use super::{Decoded, RadiographError};
use dataset::DataSet;
use display::Display;
use pixels::{Coding, Shape};

pub(super) use file::is_dicom;

/// One grey frame in display polarity, 0..1.
pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Decoded, RadiographError> {
    let start = file::start(bytes, name)?;
    let coding = Coding::of(&start.syntax, name)?;
    let body = file::body(&start, name)?;
    let data = DataSet::read(&body, &start.syntax, name)?;
    let shape = Shape::read(&data)?;
    let display = Display::read(&data, shape.bits.signed)?;
    let samples = pixels::samples(&data, coding, &shape)?;
    Ok(Decoded {
        width: shape.columns,
        height: shape.rows,
        intensities: display.intensities(&samples.values, samples.bits),
        header: describe::header(&data),
    })
}
