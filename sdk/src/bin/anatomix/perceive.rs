//! `anatomix perceive`: structures, sentences, labels and flags of radiographs.

use crate::common::{Failure, Kept, Options, bar, complain, seconds};
use crate::print;
use crate::shown::out;
use anatomix::output::{Overlay, PerceiveRecord};
use anatomix::parts::parallel;
use anatomix::{Engine, Error, PerceiveOptions, Radiograph, Study};
use clap::Args;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
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
}

impl Perceive {
    pub fn run(&self, options: &Options) -> Result<(), Failure> {
        let overlays = self.overlays()?;
        let inputs = self.images.iter().chain(&options.onnxruntime).map(PathBuf::as_path);
        let kept = Kept::new(inputs, &options.bundle()?);
        overlays.iter().flatten().try_for_each(|path| kept.check("--overlay", path))?;
        let engine = options.engine(true)?;
        let progress = match self.images.len() {
            1 => ProgressBar::hidden(),
            count => bar(count as u64, "{wide_bar} {pos}/{len}  {per_sec}  {eta} left"),
        };
        let mut failed = false;
        let images: Vec<(&PathBuf, Option<PathBuf>)> = self.images.iter().zip(overlays).collect();
        for batch in images.chunks(engine.batch()) {
            for ((_, overlay), made) in batch.iter().zip(perceive(&engine, batch, self.deadline)?) {
                match made.and_then(|(radiograph, study)| self.show(&radiograph, &study, overlay.as_deref(), &progress)) {
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

    fn show(&self, radiograph: &Radiograph, study: &Study, overlay: Option<&Path>, progress: &ProgressBar) -> Result<(), Failure> {
        if let Some(path) = overlay {
            Overlay::of_study(study, radiograph).write(path).map_err(Error::from)?;
        }
        progress.suspend(|| if self.json { Ok(out().json(&PerceiveRecord::from(study))?) } else { print::study(study) })
    }

    /// The path of each image's overlay.
    fn overlays(&self) -> Result<Vec<Option<PathBuf>>, Failure> {
        let Some(out) = &self.overlay else { return Ok(vec![None; self.images.len()]) };
        if self.images.len() == 1 {
            return Ok(vec![Some(out.clone())]);
        }
        if !out.is_dir() {
            let message = format!("--overlay {} is not a folder; for several images name an existing one", out.display());
            return Err(Failure::Usage(message));
        }
        let mut taken = BTreeMap::new();
        let place = |image: &PathBuf| {
            let mut name = image.file_stem().unwrap_or_default().to_owned();
            name.push(".overlay.png");
            let path = out.join(name);
            match taken.insert(path.clone(), image.clone()) {
                Some(other) => {
                    let (path, one, other) = (path.display(), image.display(), other.display());
                    Err(Failure::Usage(format!("{other} and {one} would both be drawn to {path}; perceive them one by one")))
                }
                None => Ok(Some(path)),
            }
        };
        self.images.iter().map(place).collect()
    }
}

/// A radiograph with its study, or why there is none.
type Perceived = Result<(Radiograph, Study), Failure>;

/// The study of each image of a batch, in order, or why it failed. The deadline counts from now.
fn perceive(engine: &Engine, batch: &[(&PathBuf, Option<PathBuf>)], deadline: Option<Duration>) -> Result<Vec<Perceived>, Failure> {
    let begin = Instant::now();
    let open = |(image, _): &(&PathBuf, Option<PathBuf>)| Radiograph::open(image).map_err(Error::from);
    let opened: Vec<Result<Radiograph, Error>> = parallel::map(batch, open);
    let (mut whole, mut failures) = (Vec::new(), Vec::new());
    for radiograph in opened {
        failures.push(radiograph.map(|radiograph| whole.push(radiograph)).err());
    }
    let mut options = PerceiveOptions::new();
    options.deadline = deadline.map(|time| time.saturating_sub(begin.elapsed()));
    let studies = engine.studies_with(&whole, &options)?;
    let mut made = whole.into_iter().zip(studies);
    let outcomes = failures.into_iter().filter_map(|failure| match failure {
        Some(error) => Some(Err(error.into())),
        None => made.next().map(|(radiograph, study)| match study {
            Ok(study) => Ok((radiograph, study)),
            Err(Error::Stopped(error)) => Err(Failure::Message(format!("{} was not perceived: {error}", radiograph.name()))),
            Err(error) => Err(error.into()),
        }),
    });
    Ok(outcomes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perceive(images: &[&str], overlay: &Path) -> Perceive {
        Perceive { images: images.iter().map(PathBuf::from).collect(), json: false, overlay: Some(overlay.into()), deadline: None }
    }

    #[test]
    fn every_image_has_its_own_overlay() {
        let folder = std::env::temp_dir();
        let places = perceive(&["a/x.dcm", "y.png"], &folder).overlays().unwrap_or_else(|_| panic!("refused"));
        assert_eq!(places, ["x.overlay.png", "y.overlay.png"].map(|name| Some(folder.join(name))));
        let wrong = [perceive(&["a/x.dcm", "b/x.png"], &folder), perceive(&["x", "y"], Path::new("no/such"))];
        assert!(wrong.iter().all(|command| matches!(command.overlays(), Err(Failure::Usage(_)))));
    }
}
