//! Several studies at once.

use super::call::{Failure, Handle, Out, call, on};
use super::engine::anx_engine;
use super::error::anx_error;
use super::status::anx_status;
use super::strings::path;
use super::study::{anx_study, array, name};
use crate::radiograph::{Radiograph, RadiographError};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use std::ffi::{c_char, c_void};
use std::path::PathBuf;

/// Opens the files of several radiographs and perceives them together: the studies are those that anx_study_from_file
/// makes of each. Files are read side by side, and several images are looked at in one run of the perception module, as
/// many as its input's size allows in bounded memory (8, or fewer); any number may be given.
///
/// paths: the files, borrowed for the call. count: how many there are; with 0 nothing happens.
/// studies: room for count pointers; takes the new studies in the order of the paths, each of which the caller frees with
/// anx_study_free; all of them NULL on failure.
/// Fails as anx_study_from_file, for the first file that cannot be read; the message names it. To learn which of the
/// others can be, open them one by one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_studies_from_files(
    engine: *const anx_engine,
    paths: *const *const c_char,
    count: usize,
    studies: *mut *mut anx_study,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        several(engine, count, studies, error, || {
            let paths = array(paths, count, "paths")?;
            let paths = paths.iter().map(|&file| path(file, "paths")).collect::<Result<Vec<PathBuf>, Failure>>()?;
            Ok((paths, |path: &PathBuf| Radiograph::open(path)))
        })
    }
}

/// A file that is in memory. This struct never grows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_file {
    /// Its content.
    pub bytes: *const u8,
    /// How many bytes.
    pub size: usize,
    /// Stands for it in messages and as the study's name, or NULL.
    pub name: *const c_char,
}

/// Like anx_studies_from_files for files that are in memory already: the studies are those that anx_study_from_bytes makes of
/// each.
///
/// files: their contents, borrowed for the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_studies_from_bytes(
    engine: *const anx_engine,
    files: *const anx_file,
    count: usize,
    studies: *mut *mut anx_study,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        several(engine, count, studies, error, || {
            let files = array(files, count, "files")?;
            let files = files.iter().map(|file| Ok((array(file.bytes, file.size, "files")?, name(file.name)?)));
            let files = files.collect::<Result<Vec<(&[u8], &str)>, Failure>>()?;
            Ok((files, |&(bytes, name): &(&[u8], &str)| Radiograph::from_bytes(bytes, name)))
        })
    }
}

/// An image that is in memory as grey pixels. This struct never grows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_pixels {
    /// Row by row from the top, without gaps, as anx_study_from_pixels_u8 or anx_study_from_pixels_u16 takes them.
    pub values: *const c_void,
    /// How many there are, width * height, so that a mistake is noticed.
    pub count: usize,
    /// 32 to 20000.
    pub width: u32,
    /// 32 to 20000.
    pub height: u32,
    /// Bits of each: 8 or 16.
    pub bits: u32,
}

/// Pixels of one image.
enum Pixels<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
}

impl anx_pixels {
    /// # Safety
    /// `values` is NULL or readable, as many as are said.
    unsafe fn read<'a>(&self) -> Result<Pixels<'a>, Failure> {
        // SAFETY: the same promise; alignment is looked at.
        unsafe {
            match self.bits {
                8 => Ok(Pixels::U8(array(self.values.cast(), self.count, "images.values")?)),
                16 => Ok(Pixels::U16(array(self.values.cast(), self.count, "images.values")?)),
                bits => Err(Failure::argument("images", format!("has pixels of {bits} bits; pass 8 or 16"))),
            }
        }
    }
}

/// Like anx_studies_from_files for images that are in memory as grey pixels: the studies are those that anx_study_from_pixels_u8 or
/// anx_study_from_pixels_u16 makes of each.
///
/// images: their pixels, borrowed for the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_studies_from_pixels(
    engine: *const anx_engine,
    images: *const anx_pixels,
    count: usize,
    studies: *mut *mut anx_study,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        several(engine, count, studies, error, || {
            let images = array(images, count, "images")?;
            let images = images.iter().map(|image| Ok((image.width, image.height, image.read()?)));
            let images = images.collect::<Result<Vec<_>, Failure>>()?;
            Ok((images, |(width, height, pixels): &(u32, u32, Pixels)| match pixels {
                Pixels::U8(pixels) => Radiograph::from_pixels_u8(*width, *height, pixels),
                Pixels::U16(pixels) => Radiograph::from_pixels_u16(*width, *height, pixels),
            }))
        })
    }
}

/// Perceives what `sources` gives, each opened by the function beside it.
///
/// # Safety
/// Each pointer NULL or valid.
unsafe fn several<S: Sync, O: Fn(&S) -> Result<Radiograph, RadiographError> + Sync>(
    engine: *const anx_engine,
    count: usize,
    studies: *mut *mut anx_study,
    error: *mut *mut anx_error,
    sources: impl FnOnce() -> Result<(Vec<S>, O), Failure>,
) -> anx_status {
    // SAFETY: the same promise.
    unsafe {
        call(error, || {
            let outs = places(studies, count)?;
            on(engine, |engine| {
                if count == 0 {
                    return Ok(());
                }
                let (sources, open) = sources()?;
                let mut made = Vec::with_capacity(count);
                for batch in sources.chunks(engine.engine.batch()) {
                    let opened: Vec<_> = engine.engine.within(|| batch.par_iter().map(&open).collect());
                    made.extend(engine.engine.studies(&opened.into_iter().collect::<Result<Vec<_>, _>>()?)?);
                }
                outs.into_iter().zip(made).for_each(|(out, study)| out.give(anx_study::new(study)));
                Ok(())
            })
        })
    }
}

/// # Safety
/// NULL or `count` writable pointers.
unsafe fn places<H: Handle>(first: *mut *mut H, count: usize) -> Result<Vec<Out<H>>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the same promise. The values are not read: only NULL, alignment and size are looked at.
    unsafe { array(first.cast_const().cast::<std::mem::MaybeUninit<*mut H>>(), count, "studies")? };
    // SAFETY: there are as many, by the caller's promise.
    (0..count).map(|index| unsafe { Out::new(first.add(index)) }).collect()
}
