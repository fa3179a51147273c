//! Opens a radiograph and writes `WIDTH HEIGHT`, a line break, and its intensities as little-endian f32, row by row.
//!
//!     cargo run --release --example intensities -- chest.dcm > chest.raw

use anatomix::Radiograph;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: intensities FILE")?;
    let radiograph = Radiograph::open(path).map_err(|error| anatomix::Error::from(error).full_message())?;
    let bytes: Vec<u8> = radiograph.intensities()?.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} {}", radiograph.width(), radiograph.height())?;
    out.write_all(&bytes)?;
    Ok(())
}
