//! Radiographs: opening them, and preparing them for the network.

mod dicom;
mod error;
mod header;
mod preprocess;
mod raster;

pub use error::RadiographError;
pub use header::{Header, Orientation};
pub use preprocess::{Histogram, Preprocess};

use ndarray::{ArrayView2, ArrayView2 as View};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::Path;

/// Largest accepted file in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Smallest and largest accepted side in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 32..=20_000;
/// Most accepted pixels, several times what a radiograph has: it bounds what a small file can make us allocate.
const MAX_PIXELS: u64 = 100_000_000;

/// A frontal chest radiograph as intensities in display polarity: air dark, bone bright.
#[derive(Clone, Debug)]
pub struct Radiograph {
    width: u32,
    height: u32,
    intensities: Vec<f32>,
    header: Header,
    sha256: String,
    name: String,
}

impl Radiograph {
    /// Opens a DICOM, PNG or JPEG file; what it is follows from its first bytes, not from its name.
    ///
    /// # Errors
    /// [`RadiographError`], naming the file, what is wrong with it and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RadiographError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |source| RadiographError::Read { name: name.clone(), source };
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            return Err(RadiographError::Folder { name });
        }
        let too_large = RadiographError::TooLarge { name: name.clone(), limit: MAX_BYTES };
        if metadata.len() > MAX_BYTES {
            return Err(too_large);
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        let mut file = fs::File::open(path).map_err(failed)?.take(MAX_BYTES + 1);
        file.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(too_large);
        }
        Self::from_bytes(&bytes, &name)
    }

    /// Reads a DICOM, PNG or JPEG file from memory; `name` stands for it in messages.
    ///
    /// # Errors
    /// [`RadiographError`], as [`Radiograph::open`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, RadiographError> {
        if bytes.is_empty() {
            return Err(RadiographError::Empty { name: name.into() });
        }
        let decode = || if dicom::is_dicom(bytes) { dicom::decode(bytes, name) } else { raster::decode(bytes, name) };
        let (decoded, hash) = rayon::join(decode, || format!("{:x}", Digest256(Sha256::digest(bytes).into())));
        Self::build(decoded?, hash, name)
    }

    /// From 8-bit grey pixels, row by row, bright for dense.
    ///
    /// # Errors
    /// If the sides are out of range or do not match the number of pixels.
    pub fn from_pixels_u8(width: u32, height: u32, pixels: &[u8]) -> Result<Self, RadiographError> {
        let values = pixels.iter().map(|&v| f32::from(v) / 255.0).collect();
        let hash = format!("{:x}", Digest256(Sha256::digest(pixels).into()));
        Self::build(Decoded { width, height, intensities: values, header: Header::default() }, hash, "pixels")
    }

    /// From 16-bit grey pixels, row by row, bright for dense; 0 is black and 65535 white.
    ///
    /// # Errors
    /// If the sides are out of range or do not match the number of pixels.
    pub fn from_pixels_u16(width: u32, height: u32, pixels: &[u16]) -> Result<Self, RadiographError> {
        let values = pixels.iter().map(|&v| f32::from(v) / 65535.0).collect();
        let mut hash = Sha256::new();
        for pixel in pixels {
            hash.update(pixel.to_le_bytes());
        }
        let hash = format!("{:x}", Digest256(hash.finalize().into()));
        Self::build(Decoded { width, height, intensities: values, header: Header::default() }, hash, "pixels")
    }

    fn build(decoded: Decoded, sha256: String, name: &str) -> Result<Self, RadiographError> {
        let Decoded { width, height, intensities, header } = decoded;
        check_sides(width, height, name)?;
        if intensities.len() != width as usize * height as usize {
            return Err(RadiographError::PixelCount { name: name.into(), width, height, found: intensities.len() });
        }
        Ok(Self { width, height, intensities, header, sha256, name: name.into() })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Intensities 0..1, `[height, width]`.
    pub fn intensities(&self) -> ArrayView2<'_, f32> {
        View::from_shape((self.height as usize, self.width as usize), &self.intensities)
            .unwrap_or_else(|_| unreachable!("the constructor compared the sides with the number of pixels"))
    }

    /// The intensities below and above which this share of the pixels lies, to 1/4095.
    pub fn percentiles(&self, share: f64) -> (f32, f32) {
        const LAST: f32 = 4095.0;
        let mut counts = [0u64; LAST as usize + 1];
        for value in &self.intensities {
            counts[(value.clamp(0.0, 1.0) * LAST) as usize] += 1;
        }
        let outside = (self.intensities.len() as f64 * share) as u64;
        let bins = || counts.iter().enumerate();
        (reach(bins(), outside) as f32 / LAST, reach(bins().rev(), outside) as f32 / LAST)
    }

    /// What the file says about itself; empty for anything but DICOM.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 of the file, or of the pixels where there was no file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The file's path, or what stands for it in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mirror image, left and right swapped.
    pub fn mirrored(&self) -> Self {
        let mut out = self.clone();
        for row in out.intensities.chunks_exact_mut(self.width as usize) {
            row.reverse();
        }
        out
    }

    /// The network's input, `size * size` values 0..1; see [`Preprocess::apply`].
    pub fn preprocess(&self, preprocess: &Preprocess) -> Vec<f32> {
        preprocess.apply(&self.intensities, self.width, self.height)
    }
}

/// The bin at which more than `outside` values were passed.
fn reach<'a>(mut bins: impl Iterator<Item = (usize, &'a u64)>, outside: u64) -> usize {
    let mut passed = 0;
    bins.find(|(_, count)| {
        passed += **count;
        passed > outside
    })
    .map_or(0, |(bin, _)| bin)
}

/// What a decoder gives.
pub(crate) struct Decoded {
    pub width: u32,
    pub height: u32,
    /// `width * height` values 0..1.
    pub intensities: Vec<f32>,
    pub header: Header,
}

/// Before anything of that size is allocated.
pub(crate) fn check_sides(width: u32, height: u32, name: &str) -> Result<(), RadiographError> {
    if SIDES.contains(&width) && SIDES.contains(&height) && u64::from(width) * u64::from(height) <= MAX_PIXELS {
        return Ok(());
    }
    let (least, most) = (*SIDES.start(), *SIDES.end());
    Err(RadiographError::Sides { name: name.into(), width, height, least, most, pixels: MAX_PIXELS })
}

/// Writes a digest in hexadecimal.
pub(crate) struct Digest256(pub [u8; 32]);

impl std::fmt::LowerHex for Digest256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
