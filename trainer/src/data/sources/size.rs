//! Sizes of images, read from their headers: nothing is decoded.

use super::skipped::{At, Reason, Skipped};
use anatomix::Radiograph;
use anatomix::parts::radiograph::{dicom_sides, is_dicom};
use std::io::{BufReader, Read, Result, Seek};
use std::path::Path;

/// Bytes of a DICOM file that its header has to end in.
const HEADER: u64 = 16 << 20;
/// Bytes that most headers end in.
const SHORT_HEADER: u64 = 64 << 10;

/// Width and height of a DICOM, PNG or JPEG file. A file that is missing or unreadable is noted and `None`.
pub fn of(path: &Path, skipped: &mut Skipped) -> Option<(u32, u32)> {
    let at = At::file(path);
    match sides(path) {
        Ok(Ok((width, height))) if width > 0 && height > 0 && u64::from(width) * u64::from(height) <= Radiograph::MAX_PIXELS => {
            return Some((width, height));
        }
        Ok(Ok((width, height))) => skipped.note(Reason::ImageUnreadable, at, format!("it has {width} x {height} pixels")),
        Ok(Err(message)) => skipped.note(Reason::ImageUnreadable, at, message),
        Err(error) => skipped.note(Reason::ImageMissing, at, error),
    }
    None
}

fn sides(path: &Path) -> Result<std::result::Result<(u32, u32), String>> {
    let mut file = anatomix::parts::files::open(path)?;
    let mut start = Vec::new();
    (&mut file).take(SHORT_HEADER).read_to_end(&mut start)?;
    let name = path.display().to_string();
    if is_dicom(&start) {
        let read = dicom_sides(&start, &name).or_else(|error| {
            // A private element can be large.
            let more = start.len() as u64 == SHORT_HEADER && (&mut file).take(HEADER).read_to_end(&mut start).is_ok();
            if more { dicom_sides(&start, &name) } else { Err(error) }
        });
        return Ok(read.map(|[width, height]| (width, height)).map_err(|error| error.to_string()));
    }
    file.rewind()?;
    let found = imagesize::reader_size(BufReader::new(file)).map_err(|e| e.to_string());
    Ok(found.and_then(|size| {
        let sides = (u32::try_from(size.width), u32::try_from(size.height));
        if let (Ok(width), Ok(height)) = sides { Ok((width, height)) } else { Err("its sides are not those of an image".into()) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_the_size() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            anatomix_phantom::dataset::Options { out: folder.path().into(), count: 1, seed: 0, size: 96, dicom_every: 1, markers: true };
        anatomix_phantom::dataset::write(&options, |_| ()).unwrap();
        let mut skipped = Skipped::default();
        for kind in ["images/phantom-0000000.png", "dicom/phantom-0000000.dcm"] {
            let path = folder.path().join(kind);
            let radiograph = Radiograph::open(&path).unwrap();
            assert_eq!(of(&path, &mut skipped), Some((radiograph.width(), radiograph.height())), "{kind}");
            // The pixels are not needed.
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            assert_eq!(of(&path, &mut skipped), Some((radiograph.width(), radiograph.height())), "{kind}, cut");
            for end in [0, 4, 20, 140, 300] {
                std::fs::write(&path, &bytes[..end]).unwrap();
                of(&path, &mut skipped);
            }
        }
        assert!(skipped.count(Reason::ImageUnreadable) >= 8, "{skipped:?}");
        assert_eq!(of(&folder.path().join("none.png"), &mut skipped), None);
        assert_eq!(skipped.count(Reason::ImageMissing), 1);
    }
}
