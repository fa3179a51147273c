//! Radiographs: reading them, and preparing them for the network.

mod decoded;
mod dicom;
mod entropy;
mod error;
mod hash;
mod header;
mod identity;
pub(crate) mod memory;
mod options;
mod preprocess;
mod raster;
mod resize;
pub(crate) mod shown;
mod sides;
mod stored;

pub use dicom::{is_dicom, sides as dicom_sides};
pub use error::RadiographError;
pub use header::{Header, Orientation, PixelHistory};
pub(crate) use identity::{Identity, Source, is_date, is_time, representation};
pub use options::ReadOptions;
pub use preprocess::{Histogram, Preprocess};
pub(crate) use sides::check_sides;

use crate::files;
use crate::hash::Hasher;
use crate::parallel;
use decoded::{Decoded, Noticed};
use hash::{FileDigest, FileHasher};
use ndarray::ArrayView2;
use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use stored::{Depth, Stored};

/// Largest accepted file in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// A frontal chest radiograph as intensities in display polarity: air dark, bone bright.
///
/// Rows and columns are those of the picture as it is displayed. If the EXIF data of a JPEG or PNG say that the picture has to be rotated,
/// it is rotated first, and all boxes are in pixels of the rotated picture. DICOM pixels are not rotated; see [`Header::orientation`].
///
/// # Memory
/// A radiograph holds at most two bytes per pixel, or the file, and at most [`MAX_PIXELS`](Self::MAX_PIXELS) pixels. Reading one takes at
/// most [`BYTES_PER_PIXEL`](Self::BYTES_PER_PIXEL) bytes per pixel, four times the file's size and some megabytes. Clones share the pixels.
/// Whatever allocates memory in proportion to the image fails with [`RadiographError::Memory`] if there is too little.
#[derive(Clone, Debug)]
pub struct Radiograph {
    width: u32,
    height: u32,
    stored: Stored,
    /// Of every pixel, computed when they are first requested: the network's input is made without them.
    intensities: OnceLock<Arc<Vec<f32>>>,
    header: Header,
    source: Source,
    noticed: Noticed,
    sha256: FileDigest,
    name: String,
}

impl Radiograph {
    /// Largest accepted number of pixels, several times that of a radiograph.
    pub const MAX_PIXELS: u64 = sides::MAX_PIXELS;
    /// Largest amount of memory for reading a radiograph, in bytes per pixel.
    pub const BYTES_PER_PIXEL: u64 = 12;

    /// Opens a DICOM, PNG or JPEG file. Its first bytes decide which it is, not its name. Only regular files are opened, and at most 1 GiB
    /// is read. It is read on the threads of the caller's rayon pool, if there is one, else on a thread for each core, or on the calling
    /// thread if the system refuses more.
    ///
    /// # Errors
    /// [`RadiographError`], naming the file, what is wrong with it and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RadiographError> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// Opens a file as [`Radiograph::open`] does, with options.
    ///
    /// # Errors
    /// As [`Radiograph::open`], and if the file does not have what is chosen.
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self, RadiographError> {
        let path = path.as_ref();
        if path.as_os_str().is_empty() {
            return Err(RadiographError::NoPath);
        }
        let name = path.display().to_string();
        let bytes = read(path, &name)?;
        Self::from_file(bytes.into(), &name, options)
    }

    /// Reads a DICOM, PNG or JPEG file from memory. `name` is its name in messages.
    ///
    /// # Errors
    /// [`RadiographError`], as [`Radiograph::open`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, RadiographError> {
        Self::from_bytes_with(bytes, name, &ReadOptions::default())
    }

    /// Reads a file from memory as [`Radiograph::from_bytes`] does, with options.
    ///
    /// # Errors
    /// As [`Radiograph::open_with`].
    pub fn from_bytes_with(bytes: &[u8], name: &str, options: &ReadOptions) -> Result<Self, RadiographError> {
        Self::from_file(bytes.into(), name, options)
    }

    fn from_file(bytes: Cow<[u8]>, name: &str, options: &ReadOptions) -> Result<Self, RadiographError> {
        if bytes.is_empty() {
            return Err(RadiographError::Empty { name: name.into() });
        }
        let (mut hash, is_decoded) = (FileHasher::default(), AtomicBool::new(false));
        let decode = || {
            // Decoders can panic on damaged data. Nothing of a failed attempt is kept.
            let decoded = catch_unwind(AssertUnwindSafe(|| match dicom::is_dicom(&bytes) {
                true => dicom::decode(&bytes, name, options),
                false => raster::decode(&bytes, name, options),
            }));
            is_decoded.store(true, Ordering::Relaxed);
            let failed = |_| RadiographError::Damaged { name: name.into(), message: "its decoder failed".into(), source: None };
            decoded.map_err(failed).flatten()
        };
        let (decoded, ()) = parallel::join(decode, || hash.see_until(&bytes, &is_decoded));
        let Decoded { width, height, samples, levels, header, source, noticed } = decoded?;
        let (depth, within) = (samples.depth, samples.within(&bytes));
        let (stored, sha256) = match (samples.bytes, within) {
            // The whole file is kept, so its hash can be finished later.
            (Cow::Borrowed(_), Some(at)) if matches!(bytes, Cow::Owned(_)) => {
                (Stored::part(depth, bytes.into_owned(), at, levels), FileDigest::begun(hash))
            }
            (pixels, _) => {
                let owned = || match pixels {
                    Cow::Borrowed(pixels) => memory::copied(pixels, name),
                    Cow::Owned(pixels) => Ok(pixels),
                };
                let (pixels, hash) = parallel::join(owned, || hash.finish(&bytes));
                (Stored::new(depth, pixels?, levels), hash.into())
            }
        };
        Self::build([width, height], stored, Facts { header, source, noticed }, sha256, name)
    }

    /// Makes a radiograph of 8-bit grey pixels, row by row, in which bone is bright. For the opposite see [`Radiograph::inverted`].
    ///
    /// # Errors
    /// If the sides are out of range or do not match the number of pixels, or there is too little memory.
    pub fn from_pixels_u8(width: u32, height: u32, pixels: &[u8]) -> Result<Self, RadiographError> {
        Self::from_pixels([width, height], Depth::One, pixels.len(), |bytes| bytes.extend_from_slice(pixels))
    }

    /// Makes a radiograph of 16-bit grey pixels, row by row, in which bone is bright; 0 is black and 65535 white. For the opposite see
    /// [`Radiograph::inverted`].
    ///
    /// # Errors
    /// If the sides are out of range or do not match the number of pixels, or there is too little memory.
    pub fn from_pixels_u16(width: u32, height: u32, pixels: &[u16]) -> Result<Self, RadiographError> {
        let write = |bytes: &mut Vec<u8>| bytes.extend(pixels.iter().flat_map(|pixel| pixel.to_le_bytes()));
        Self::from_pixels([width, height], Depth::Two, pixels.len(), write)
    }

    fn from_pixels(sides: [u32; 2], depth: Depth, count: usize, write: impl FnOnce(&mut Vec<u8>)) -> Result<Self, RadiographError> {
        const NAME: &str = "pixels";
        let [width, height] = sides;
        check_sides(width, height, NAME)?;
        if count != width as usize * height as usize {
            return Err(RadiographError::PixelCount { name: NAME.into(), width, height, found: count });
        }
        let mut pixels = memory::room(count * depth.bytes(), NAME)?;
        write(&mut pixels);
        // Images of other sides or bits may have the same bytes.
        let mut hash = Hasher::default();
        hash.update(format!("pixels {width} x {height} x {}\n", 8 * depth.bytes()).as_bytes());
        hash.update(&pixels);
        let hash = hash.finish().to_string();
        let source = Err("it was given as pixels; give the DICOM file that they come from".into());
        let facts = Facts { header: Header::default(), source, noticed: Noticed::default() };
        Self::build(sides, Stored::new(depth, pixels, depth.shares()), facts, hash.into(), NAME)
    }

    fn build(
        [width, height]: [u32; 2],
        stored: Stored,
        Facts { header, source, noticed }: Facts,
        sha256: FileDigest,
        name: &str,
    ) -> Result<Self, RadiographError> {
        check_sides(width, height, name)?;
        if stored.len() != width as usize * height as usize {
            return Err(RadiographError::PixelCount { name: name.into(), width, height, found: stored.len() });
        }
        Ok(Self { width, height, stored, intensities: OnceLock::new(), header, source, noticed, sha256, name: name.into() })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Intensities 0..1, `[height, width]`. They are computed when they are first requested, and then take four bytes per pixel.
    ///
    /// # Errors
    /// [`RadiographError::Memory`].
    pub fn intensities(&self) -> Result<ArrayView2<'_, f32>, RadiographError> {
        let values = match self.intensities.get() {
            Some(values) => values,
            None => {
                // Not inside `get_or_init`: a thread of the pool could take up work there that waits for the same cell.
                let mut values = memory::filled(0.0, self.stored.len(), &self.name)?;
                let width = self.width as usize;
                parallel::map(values.chunks_mut(width).enumerate(), |(row, out)| self.row(row, out));
                self.intensities.get_or_init(|| Arc::new(values))
            }
        };
        Ok(ArrayView2::from_shape((self.height as usize, self.width as usize), values)
            .unwrap_or_else(|_| unreachable!("the constructor compared the sides with the number of pixels")))
    }

    /// Writes the intensities of a row, 0..1, to `out`, which is as long as the row.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        self.stored.look_up(row * self.width as usize, self.stored.levels(), out, |level| level);
    }

    /// The intensity below which this share of the pixels lies, and the one above which it lies. Both are multiples of 1/4095.
    pub fn percentiles(&self, share: f64) -> (f32, f32) {
        const LAST: f32 = 4095.0;
        let mut counts = [0u64; LAST as usize + 1];
        for (&count, level) in self.stored.counts().iter().zip(self.stored.levels()) {
            counts[(level.clamp(0.0, 1.0) * LAST) as usize] += u64::from(count);
        }
        let outside = (self.stored.len() as f64 * share) as u64;
        let bins = || counts.iter().enumerate();
        (reach(bins(), outside) as f32 / LAST, reach(bins().rev(), outside) as f32 / LAST)
    }

    /// What the header of a DICOM file says; empty for other formats.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The identity of a DICOM file, or why there is none.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// What was noticed while the pixels were read.
    pub(crate) fn noticed(&self) -> &Noticed {
        &self.noticed
    }

    /// SHA-256 of the file in hexadecimal. If there was no file, it is that of a line of text, `pixels WIDTH x HEIGHT x BITS` and a line
    /// feed, and of the pixels after it, row by row and little-endian. An image that was mirrored or inverted is another one: its hash is
    /// that of a line of text, `mirrored HASH`, `inverted HASH` or `mirrored inverted HASH` and a line feed, with the hash from before. For
    /// an uncompressed file the hash is finished when it is first requested; [`crate::Engine::study`] requests it while perception runs.
    pub fn sha256(&self) -> &str {
        self.sha256.of(self.stored.bytes())
    }

    /// The file's path, or the name that was given for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mirror image, left and right swapped.
    ///
    /// # Errors
    /// [`RadiographError::Memory`].
    pub fn mirrored(&self) -> Result<Self, RadiographError> {
        let stored = self.stored.mirrored(self.width as usize, &self.name)?;
        Ok(Self {
            stored,
            intensities: OnceLock::new(),
            header: self.header.clone(),
            // Boxes in the mirror image are none in the file's.
            source: Err("it is a mirror image of its file; give the file itself".into()),
            noticed: self.noticed.clone(),
            sha256: self.sha256.mirrored(self.stored.bytes()),
            name: self.name.clone(),
            ..*self
        })
    }

    /// With bright and dark swapped, for pixels in which air is bright, as in DICOM's MONOCHROME1.
    #[must_use]
    pub fn inverted(self) -> Self {
        Self { stored: self.stored.inverted(), intensities: OnceLock::new(), sha256: self.sha256.inverted(), ..self }
    }

    /// The network's input, `size * size` values 0..1; see [`Preprocess`].
    ///
    /// # Errors
    /// [`RadiographError::Memory`].
    pub fn preprocess(&self, preprocess: &Preprocess) -> Result<Vec<f32>, RadiographError> {
        preprocess.apply(&self.stored, self.width, self.height, &self.name)
    }
}

/// What a radiograph is built of beside its pixels.
struct Facts {
    header: Header,
    source: Source,
    noticed: Noticed,
}

/// All bytes of a file.
fn read(path: &Path, name: &str) -> Result<Vec<u8>, RadiographError> {
    if path.is_dir() {
        return Err(RadiographError::Folder { name: name.into() });
    }
    let bytes = files::read(path, MAX_BYTES).map_err(|source| match source.kind() {
        ErrorKind::FileTooLarge => RadiographError::TooLarge { name: name.into(), limit: MAX_BYTES },
        ErrorKind::OutOfMemory => {
            let size = fs::metadata(path).map_or(MAX_BYTES, |metadata| metadata.len());
            RadiographError::Memory { name: name.into(), bytes: size as usize }
        }
        _ => RadiographError::Read { name: name.into(), source },
    })?;
    memory::available(0, name)?;
    Ok(bytes)
}

/// The first bin at which the counts add up to more than `outside`.
fn reach<'a>(mut bins: impl Iterator<Item = (usize, &'a u64)>, outside: u64) -> usize {
    let mut sum = 0;
    bins.find(|(_, count)| {
        sum += **count;
        sum > outside
    })
    .map_or(0, |(bin, _)| bin)
}
