//! Writes a data set: `dataset FOLDER FIRST_SEED COUNT`.

use anatomix_phantom::dataset::{Options, write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, seed, count] = arguments.as_slice() else { return Err("usage: dataset FOLDER FIRST_SEED COUNT".into()) };
    write(&Options { out: folder.into(), count: count.parse()?, seed: seed.parse()?, size: 320, dicom_every: 0 }, |_| ())?;
    Ok(())
}
