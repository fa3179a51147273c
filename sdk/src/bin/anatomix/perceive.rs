//! `anatomix perceive`: structures, sentences, labels and flags of radiographs.

use crate::common::{Failure, Kept, Options, bar, complain, seconds};
use crate::documents::{Documents, Kind};
use crate::image::Reading;
use crate::print;
use crate::shown::out;
use anatomix::output::{Overlay, PerceiveRecord};
use anatomix::parts::{files, parallel, radiograph::is_dicom};
use anatomix::{Engine, Error, PerceiveOptions, Radiograph, Study};
use clap::Args;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Find the 36 structures of radiographs, with a sentence for each, and score 14 labels
///
/// If an image fails, the others are perceived, and the exit code is 1.
#[derive(Args)]
pub struct Perceive {
    /// DICOM, PNG or JPEG files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Draw the boxes over the radiograph, as a PNG file; for several images name an existing folder, which gets NAME.overlay.png for each
    #[arg(long, value_name = "PNG")]
    overlay: Option<PathBuf>,
    /// Give an image up that is not perceived after this time; images that are perceived together share it [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    deadline: Option<Duration>,
    #[command(flatten)]
    documents: Documents,
    #[command(flatten)]
    reading: Reading,
}

/// An image with the files that are written for it.
struct Image<'a> {
    path: &'a Path,
    overlay: Option<PathBuf>,
    documents: Vec<(Kind, PathBuf)>,
}

impl Image<'_> {
    /// The options that name its files.
    fn outs(&self) -> impl Iterator<Item = (&str, &Path)> {
        let documents = self.documents.iter().map(|(kind, path)| (kind.option(), path.as_path()));
        self.overlay.as_deref().map(|path| ("--overlay", path)).into_iter().chain(documents)
    }
}

impl Perceive {
    pub fn run(&self, options: &Options) -> Result<(), Failure> {
        let images = self.images()?;
        let files = options.inputs();
        let inputs = self.images.iter().chain(&files).map(PathBuf::as_path);
        let kept = Kept::new(inputs, &options.bundle()?);
        kept.check_all(images.iter().flat_map(Image::outs))?;
        let mut failed = false;
        // An image that is not a DICOM file, as a document needs it, fails before the bundle is opened.
        let images: Vec<Image> = images.into_iter().filter(|image| self.may_be_documented(image, &mut failed)).collect();
        if images.is_empty() {
            return Err(Failure::Reported);
        }
        let engine = options.engine(true)?;
        let progress = match images.len() {
            1 => ProgressBar::hidden(),
            count => bar(count as u64, "{wide_bar} {pos}/{len}  {per_sec}  {eta} left"),
        };
        for batch in images.chunks(engine.batch_size()) {
            for (image, made) in batch.iter().zip(self.perceive(&engine, batch)?) {
                match made.and_then(|(radiograph, study)| self.show(&radiograph, &study, image, &progress)) {
                    Err(Failure::Message(message)) => {
                        progress.suspend(|| complain(&message));
                        failed = true;
                    }
                    done => done?,
                }
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        if failed { Err(Failure::Reported) } else { Ok(()) }
    }

    fn show(&self, radiograph: &Radiograph, study: &Study, image: &Image, progress: &ProgressBar) -> Result<(), Failure> {
        if let Some(path) = &image.overlay {
            Overlay::of_study(study, radiograph).map_err(Error::from)?.write(path).map_err(Error::from)?;
        }
        for (kind, path) in &image.documents {
            self.documents.write(*kind, study, Some(radiograph), &[], path)?;
        }
        progress.suspend(|| if self.json { Ok(out().json(&PerceiveRecord::from(study))?) } else { print::study(study) })
    }

    /// Whether documents can be made of this image if some are wanted, as far as its first bytes say; else prints why not. A file that
    /// cannot be read fails later.
    fn may_be_documented(&self, image: &Image, failed: &mut bool) -> bool {
        let mut start = Vec::new();
        let read = files::open(image.path).and_then(|file| file.take(256).read_to_end(&mut start));
        let option = image.documents.first().map(|(kind, _)| kind.option());
        let may_be = option.is_none() || read.is_err() || is_dicom(&start);
        if !may_be {
            let what = "a DICOM object or FHIR bundle cannot be made from it, because it is not a DICOM file";
            let option = option.unwrap_or_default();
            complain(&format!("{}: {what}; leave {option} out, or give the DICOM file that it was made from", image.path.display()));
            *failed = true;
        }
        may_be
    }

    /// The images with the paths of their files.
    fn images(&self) -> Result<Vec<Image<'_>>, Failure> {
        let overlays = self.places("--overlay", self.overlay.as_deref(), ".overlay.png")?;
        let mut images: Vec<Image> = Vec::with_capacity(self.images.len());
        images.extend(self.images.iter().zip(overlays).map(|(path, overlay)| Image { path, overlay, documents: Vec::new() }));
        for (kind, place) in self.documents.places() {
            let places = self.places(kind.option(), Some(place), kind.ending())?;
            images.iter_mut().zip(places).for_each(|(image, place)| image.documents.extend(place.map(|place| (kind, place))));
        }
        Ok(images)
    }

    /// Where an option writes its file for each image.
    fn places(&self, option: &str, out: Option<&Path>, ending: &str) -> Result<Vec<Option<PathBuf>>, Failure> {
        let Some(out) = out else { return Ok(vec![None; self.images.len()]) };
        if self.images.len() == 1 {
            return Ok(vec![Some(out.into())]);
        }
        if !out.is_dir() {
            let message = format!("{option} {} is not a folder; for several images name an existing one", out.display());
            return Err(Failure::Usage(message));
        }
        let mut taken = BTreeMap::new();
        let place = |image: &PathBuf| {
            let mut name = base_name(image);
            name.push(ending);
            let path = out.join(name);
            match taken.insert(path.clone(), image.clone()) {
                Some(other) => {
                    let (path, one, other) = (path.display(), image.display(), other.display());
                    Err(Failure::Usage(format!("{other} and {one} would both be written to {path}; perceive them one by one")))
                }
                None => Ok(Some(path)),
            }
        };
        self.images.iter().map(place).collect()
    }
}

/// The name of an image's file without its extension. The end of a UID, by which archives name files, is not an extension.
fn base_name(image: &Path) -> OsString {
    let is_number = image.extension().is_some_and(|end| end.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let name = if is_number { image.file_name() } else { image.file_stem() };
    name.unwrap_or_default().to_owned()
}

/// A radiograph with its study, or why there is none.
type Perceived = Result<(Radiograph, Study), Failure>;

impl Perceive {
    /// The study of each image of a batch, in order, or why it failed. The deadline counts from now.
    fn perceive(&self, engine: &Engine, batch: &[Image]) -> Result<Vec<Perceived>, Failure> {
        let begin = Instant::now();
        let open = |image: &Image| {
            let radiograph = self.reading.open(image.path)?;
            self.documents.check(&radiograph)?;
            Ok(radiograph)
        };
        let opened: Vec<Result<Radiograph, Failure>> = parallel::map(batch, open);
        let (mut whole, mut failures) = (Vec::new(), Vec::new());
        for radiograph in opened {
            failures.push(radiograph.map(|radiograph| whole.push(radiograph)).err());
        }
        let mut options = PerceiveOptions::new();
        options.deadline = self.deadline.map(|time| time.saturating_sub(begin.elapsed()));
        let studies = engine.studies_with(&whole, &options)?;
        let mut made = whole.into_iter().zip(studies);
        let outcomes = failures.into_iter().filter_map(|failure| match failure {
            Some(failure) => Some(Err(failure)),
            None => made.next().map(|(radiograph, study)| match study {
                Ok(study) => Ok((radiograph, study)),
                Err(Error::Stopped(error)) => Err(Failure::Message(format!("{} was not perceived: {error}", radiograph.name()))),
                Err(error) => Err(error.into()),
            }),
        });
        Ok(outcomes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perceive(images: &[&str], overlay: &Path) -> Perceive {
        let images = images.iter().map(PathBuf::from).collect();
        Perceive {
            images,
            json: false,
            overlay: Some(overlay.into()),
            deadline: None,
            documents: Documents::default(),
            reading: Reading::default(),
        }
    }

    #[test]
    fn every_image_has_its_own_overlay() {
        let folder = std::env::temp_dir();
        let command = perceive(&["a/x.dcm", "y.png"], &folder);
        let places: Vec<_> = command.images().unwrap_or_else(|_| panic!("refused")).into_iter().map(|image| image.overlay).collect();
        assert_eq!(places, ["x.overlay.png", "y.overlay.png"].map(|name| Some(folder.join(name))));
        let wrong = [perceive(&["a/x.dcm", "b/x.png"], &folder), perceive(&["x", "y"], Path::new("no/such"))];
        assert!(wrong.iter().all(|command| matches!(command.images(), Err(Failure::Usage(_)))));
    }
}
