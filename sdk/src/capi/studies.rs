//! Making several studies at once.

use super::call::make_each;
use super::engine::anx_engine;
use super::error::anx_error;
use super::failure::{Failure, catch};
use super::handle::with;
use super::perceive::{Way, anx_perceive_options, name, way};
use super::pixels::{Pixels, anx_pixels, read_pixels};
use super::status::anx_status::{self, ANX_DEADLINE, ANX_STOPPED};
use super::strings::path;
use super::study::{anx_study, array};
use crate::engine::Engine;
use crate::parallel;
use crate::radiograph::{Radiograph, ReadOptions};
use std::ffi::c_char;
use std::path::PathBuf;

/// Opens the files of several radiographs and perceives them together: the studies are those that anx_study_from_file
/// makes of each. Files are read in parallel, and one run of the perception module takes several images: 8, or fewer if the bundle's input
/// is large. Any number of files may be given.
///
/// paths: the files, borrowed for the call. count: how many there are; with 0 nothing happens. options: NULL for the defaults; a stop or
/// a deadline ends the whole call: studies that are made by then are given, and all others fail.
/// studies: room for count pointers; takes the new studies in the order of the paths, each of which the caller frees with
/// anx_study_free; NULL for each file that failed. errors: NULL, or room for count pointers; takes why each file failed, which
/// the caller frees with anx_error_free; NULL for each study that was made.
/// A file that fails does not affect the others: their studies are returned and belong to the caller, whatever the call returns. It
/// returns ANX_OK if all studies were made, else the status of the first file that failed, and error is about that file. With an argument
/// that cannot be used it returns ANX_INVALID_ARGUMENT, which no file fails with: there are no studies, and all errors are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_studies_from_files(
    engine: *const anx_engine,
    paths: *const *const c_char,
    count: usize,
    options: *const anx_perceive_options,
    studies: *mut *mut anx_study,
    errors: *mut *mut anx_error,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        several(engine, count, options, studies, errors, error, || {
            let paths = array(paths, count, "paths")?;
            let paths = paths.iter().enumerate().map(|(index, &file)| path(file, &format!("paths[{index}]")));
            let paths = paths.collect::<Result<Vec<PathBuf>, Failure>>()?;
            Ok((paths, |path: &PathBuf, read: &ReadOptions| Radiograph::open_with(path, read)))
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
    /// Stands for it in messages and as the study's name; NULL for "bytes".
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
    options: *const anx_perceive_options,
    studies: *mut *mut anx_study,
    errors: *mut *mut anx_error,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        several(engine, count, options, studies, errors, error, || {
            let files = array(files, count, "files")?;
            let files = files.iter().enumerate().map(|(index, file)| {
                let field = |field: &str| format!("files[{index}].{field}");
                Ok((array(file.bytes, file.size, &field("bytes"))?, name(file.name, &field("name"))?))
            });
            let files = files.collect::<Result<Vec<(&[u8], &str)>, Failure>>()?;
            Ok((files, |&(bytes, name): &(&[u8], &str), read: &ReadOptions| Radiograph::from_bytes_with(bytes, name, read)))
        })
    }
}

/// Like anx_studies_from_files for images that are in memory as grey pixels: the studies are those that anx_study_from_pixels makes of
/// each.
///
/// images: count pointers to images.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_studies_from_pixels(
    engine: *const anx_engine,
    images: *const *const anx_pixels,
    count: usize,
    options: *const anx_perceive_options,
    studies: *mut *mut anx_study,
    errors: *mut *mut anx_error,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        several(engine, count, options, studies, errors, error, || {
            let images = array(images, count, "images")?;
            let images = images.iter().enumerate().map(|(index, &image)| read_pixels(image, &format!("images[{index}]")));
            let images = images.collect::<Result<Vec<_>, Failure>>()?;
            Ok((images, |pixels: &Pixels, read: &ReadOptions| pixels.open_with(read)))
        })
    }
}

/// Perceives what `sources` gives, each opened by the function beside it.
///
/// # Safety
/// Each pointer NULL or valid.
unsafe fn several<S: Sync, E: Into<Failure>, O: Fn(&S, &ReadOptions) -> Result<Radiograph, E> + Sync>(
    engine: *const anx_engine,
    count: usize,
    options: *const anx_perceive_options,
    studies: *mut *mut anx_study,
    errors: *mut *mut anx_error,
    error: *mut *mut anx_error,
    sources: impl FnOnce() -> Result<(Vec<S>, O), Failure>,
) -> anx_status {
    // SAFETY: the same promise.
    unsafe {
        make_each("studies", studies, errors, count, error, || {
            with(engine, |engine| {
                if count == 0 {
                    return Ok(Vec::new());
                }
                let way = way(options, count, &engine.engine)?;
                let (sources, open) = sources()?;
                let open = |source: &S| open(source, &way.read);
                let mut made = Vec::with_capacity(sources.len());
                for batch in sources.chunks(engine.engine.batch_size()) {
                    made.extend(perceive(&engine.engine, batch, &open, &way));
                }
                Ok(made)
            })
        })
    }
}

/// The study of each source of a batch, in order, or why it failed. If opening one panics, that one failed.
fn perceive<S: Sync, E: Into<Failure>>(
    engine: &Engine,
    batch: &[S],
    open: &(impl Fn(&S) -> Result<Radiograph, E> + Sync),
    way: &Way,
) -> Vec<Result<anx_study, Failure>> {
    let limits = &way.limits;
    let open = |source: &S| {
        catch(|| {
            limits.check()?;
            open(source).map_err(Into::into).and_then(|radiograph| way.turned(radiograph))
        })
    };
    let opened: Vec<Result<Radiograph, Failure>> = engine.within(|| parallel::map(batch, open));
    let mut whole = Vec::new();
    let failures: Vec<Option<Failure>> = opened.into_iter().map(|one| one.map(|radiograph| whole.push(radiograph)).err()).collect();
    limits.advance(failures.iter().flatten().filter(|failure| !matches!(failure.status, ANX_STOPPED | ANX_DEADLINE)).count());
    let mut made = engine.studies_within(&whole, limits).into_iter().zip(whole);
    let outcomes = failures.into_iter().filter_map(|failure| match failure {
        Some(failure) => Some(Err(failure)),
        None => made.next().map(|(study, radiograph)| Ok(way.study(study?, radiograph))),
    });
    outcomes.collect()
}

#[cfg(test)]
mod tests {
    use super::super::engine::{anx_engine_free, anx_engine_open, anx_engine_options};
    use super::super::handle::Handle;
    use super::super::options::anx_switch;
    use super::super::study::anx_study_free;
    use super::*;
    use std::path::Path;
    use std::ptr::{null, null_mut};

    #[test]
    fn a_panic_on_one_image_takes_nothing_from_the_others_nor_from_the_engine() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let bundle = std::ffi::CString::new(root.join("examples/reference-bundle").display().to_string()).unwrap();
        let (struct_size, golden_check) = (size_of::<anx_engine_options>(), anx_switch::ANX_SWITCH_OFF as usize);
        // SAFETY: all zero means every default.
        let options = anx_engine_options { struct_size, golden_check, ..unsafe { std::mem::zeroed() } };
        let (mut engine, mut error) = (null_mut(), null_mut());
        let open = |path: &&str, read: &ReadOptions| match path.is_empty() {
            true => panic!("provoked by a test"),
            false => Radiograph::open_with(root.join(path), read),
        };
        let paths = ["examples/phantom.dcm", "", "examples/phantom.dcm"];
        // SAFETY: valid pointers, as many as are said; handles are live until they are freed, once.
        unsafe {
            assert_eq!(anx_engine_open(bundle.as_ptr(), &options, &mut engine, &mut error), anx_status::ANX_OK);
            let (mut studies, mut errors) = ([null_mut(); 3], [null_mut(); 3]);
            let status = several(engine, 3, null(), studies.as_mut_ptr(), errors.as_mut_ptr(), &mut error, || Ok((paths.to_vec(), open)));
            assert_eq!(status, anx_status::ANX_PANIC);
            assert_eq!(studies.map(<*mut anx_study>::is_null), [false, true, false]);
            assert_eq!(errors.map(<*mut anx_error>::is_null), [true, false, true]);
            [error, errors[1]].into_iter().for_each(|error| Handle::free(error));
            studies.into_iter().for_each(|study| anx_study_free(study));
            // A panic on the engine itself, and the engine after it.
            let status =
                super::super::perceive::perceive(engine, null(), &mut studies[0], null_mut(), || Ok(""), |path, read| open(&path, read));
            assert_eq!((status, studies[0].is_null()), (anx_status::ANX_PANIC, true));
            let status = super::super::perceive::perceive(
                engine,
                null(),
                &mut studies[0],
                null_mut(),
                || Ok(paths[0]),
                |path, read| open(&path, read),
            );
            assert_eq!((status, studies[0].is_null()), (anx_status::ANX_OK, false));
            anx_study_free(studies[0]);
            anx_engine_free(engine);
        }
    }
}
