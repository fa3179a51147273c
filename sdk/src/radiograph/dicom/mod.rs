//! DICOM. dicom-rs parses the structure and decompresses pixels. The display chain, from stored values to what a display shows, is our own,
//! because each of its steps changes the result and each number in a header may be wrong.

mod characters;
mod codecs;
mod codestream;
mod dataset;
mod describe;
mod display;
mod file;
mod identity;
mod lut;
mod pixels;
mod rle;
mod sequence;

use super::decoded::{Decoded, Noticed};
use super::{RadiographError, ReadOptions};
use dataset::DataSet;
use display::Display;
use file::Start;
use pixels::{Coding, Shape, Unpacked};
use std::borrow::Cow;

pub use file::is_dicom;

/// Columns and rows of the only frame, from the beginning of a file: all that precedes its pixels.
///
/// # Errors
/// As for reading the radiograph, if its header already says that it cannot be read, and if the header does not end in `beginning`.
pub fn sides(beginning: &[u8], name: &str) -> Result<[u32; 2], RadiographError> {
    let start = file::start(beginning, name)?;
    Coding::of(&start.syntax, name)?;
    let body = file::body(&start, name)?;
    let shape = Shape::read(&DataSet::read_beginning(&body, &start.syntax, name)?)?;
    Ok([shape.columns, shape.rows])
}

/// Decodes the only frame of a grey image, in display polarity.
pub(super) fn decode<'a>(bytes: &'a [u8], name: &str, options: &ReadOptions) -> Result<Decoded<'a>, RadiographError> {
    let start = file::start(bytes, name)?;
    let coding = Coding::of(&start.syntax, name)?;
    match file::body(&start, name)? {
        Cow::Borrowed(body) => frame(body, &start, coding, name, options),
        Cow::Owned(body) => frame(&body, &start, coding, name, options)?.into_owned(name),
    }
}

fn frame<'a>(body: &'a [u8], start: &Start, coding: Coding, name: &str, options: &ReadOptions) -> Result<Decoded<'a>, RadiographError> {
    let data = DataSet::read(body, &start.syntax, name)?;
    let shape = Shape::read(&data)?;
    let display = Display::read(&data, shape.bits.signed, options.window)?;
    let Unpacked { samples, bits, damage } = pixels::unpack(&data, coding, &shape)?;
    let levels = display.levels(&samples, bits);
    let noticed = Noticed { damage, colour: 0.0 };
    let header = describe::header(&data, start.class.as_deref(), display.window);
    let shown = display.shown(&samples, bits, describe::aspect(&data, &header), describe::is_lossy(&data));
    Ok(Decoded {
        width: shape.columns,
        height: shape.rows,
        samples,
        levels,
        header,
        source: identity::read(&data, start.class.as_deref()).map(|identity| Box::new(identity.shown_as(shown))),
        noticed,
    })
}
