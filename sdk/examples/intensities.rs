//! Opens a radiograph and writes `WIDTH HEIGHT`, a line break, and its intensities as little-endian f32, row by row. The second argument
//! chooses a window; with `-` instead of a file, the file is read from standard input.
//!
//!     cargo run --release --example intensities -- chest.dcm 1 > chest.raw

use anatomix::{Radiograph, ReadOptions};
use std::error::Error;
use std::io::{Read, Write};
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
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: intensities FILE|- [WINDOW]")?;
    let options = ReadOptions::new().window(arguments.next().map_or(Ok(1), |window| window.parse())?);
    let radiograph = if path == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        Radiograph::from_bytes_with(&bytes, "standard input", &options)
    } else {
        Radiograph::open_with(path, &options)
    };
    let radiograph = radiograph.map_err(|error| anatomix::Error::from(error).full_message())?;
    let bytes: Vec<u8> = radiograph.intensities()?.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} {}", radiograph.width(), radiograph.height())?;
    out.write_all(&bytes)?;
    Ok(())
}
