//! Perceiving: from radiographs to studies.

use super::limits::{Limits, PerceiveOptions};
use super::{Engine, Subject};
use crate::control::StoppedError;
use crate::error::{Error, Result};
use crate::geometry::Letterbox;
use crate::log::LogLevel;
use crate::parallel;
use crate::perception::{Perception, flags};
use crate::provenance::Timing;
use crate::radiograph::Radiograph;
use crate::study::Study;
use std::time::Instant;

/// Measures the time of each step in milliseconds.
#[derive(Clone)]
struct Clock {
    timing: Timing,
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { timing: Timing::default(), since: Instant::now() }
    }

    /// Ends a step that was done for `count` radiographs together.
    fn lap(&mut self, step: fn(&mut Timing) -> &mut Option<f64>, count: usize) {
        *step(&mut self.timing) = Some(self.since.elapsed().as_secs_f64() * 1e3 / count as f64);
        self.restart();
    }

    fn restart(&mut self) {
        self.since = Instant::now();
    }
}

/// How many of these count as done: those that were not stopped.
fn count_done(studies: &[Result<Study>]) -> usize {
    studies.iter().filter(|study| !matches!(study, Err(Error::Stopped(_)))).count()
}

impl Engine {
    /// Perceives a radiograph and retrieves a sentence for each structure. The language model is not used until the first question.
    ///
    /// # Errors
    /// If a graph fails, or a part of the sentence database that is used is damaged.
    pub fn study(&self, radiograph: &Radiograph) -> Result<Study> {
        self.study_within(radiograph, &Limits::default())
    }

    /// Perceives a radiograph as [`Engine::study`] does, but can be stopped by a deadline or a cancel handle. Preprocessing is not
    /// interrupted; the run of the perception module is, between two of its operators. The engine can be used as before afterwards.
    ///
    /// ```no_run
    /// # fn main() -> anatomix::Result<()> {
    /// # use anatomix::error::StoppedError;
    /// # use anatomix::{Engine, Error, PerceiveOptions, Radiograph};
    /// # let engine = Engine::builder().open("examples/reference-bundle")?;
    /// let options = PerceiveOptions::new().deadline(std::time::Duration::from_secs(2));
    /// match engine.study_with(&Radiograph::open("chest.dcm")?, &options) {
    ///     Err(Error::Stopped(StoppedError::Deadline)) => println!("not perceived within two seconds"),
    ///     study => println!("{} flags", study?.flags().len()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::study`], and [`StoppedError`] if the call was stopped before the perception module was finished.
    pub fn study_with(&self, radiograph: &Radiograph, options: &PerceiveOptions) -> Result<Study> {
        self.study_within(radiograph, &self.limits(options, 1)?)
    }

    /// Perceives several radiographs. The results are those of [`Engine::study`] for each, in the same order; one that fails does not
    /// affect the others. They are preprocessed in parallel, and one run of the perception module takes up to [`Engine::batch_size`] of
    /// them.
    /// The timing of each is its share of the time that they took together.
    ///
    /// ```no_run
    /// # fn main() -> anatomix::Result<()> {
    /// use anatomix::{Engine, Radiograph};
    /// let engine = Engine::builder().open("examples/reference-bundle")?;
    /// let radiographs = [Radiograph::open("a.dcm")?, Radiograph::open("b.dcm")?];
    /// for (radiograph, study) in radiographs.iter().zip(engine.studies(&radiographs)) {
    ///     match study {
    ///         Ok(study) => println!("{}: {} flags", study.name(), study.flags().len()),
    ///         Err(error) => eprintln!("{}: {error}", radiograph.name()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn studies(&self, radiographs: &[Radiograph]) -> Vec<Result<Study>> {
        self.studies_within(radiographs, &Limits::default())
    }

    /// Perceives several radiographs as [`Engine::studies`] does, but can be stopped by a deadline or a cancel handle. A stop ends the
    /// whole call: studies that are finished by then are returned, the results of all others are [`StoppedError`].
    ///
    /// # Errors
    /// If ONNX Runtime or the system lacks the memory or the thread that a limit takes; nothing is perceived then.
    pub fn studies_with(&self, radiographs: &[Radiograph], options: &PerceiveOptions) -> Result<Vec<Result<Study>>> {
        Ok(self.studies_within(radiographs, &self.limits(options, radiographs.len())?))
    }

    /// The largest number of radiographs that one run of [`Engine::studies`] takes: 8, or fewer if the bundle's input is so large that
    /// the run would take much memory. Programs that open files for it need not open more than this at a time.
    pub fn batch_size(&self) -> usize {
        self.0.module.batch()
    }

    /// The limits of a call that begins now and perceives `count` radiographs.
    ///
    /// # Errors
    /// If ONNX Runtime or the system lacks the memory or the thread for it.
    pub(crate) fn limits(&self, options: &PerceiveOptions, count: usize) -> Result<Limits> {
        Limits::new(options, count, &self.0.timer)
    }

    /// [`Engine::study_with`] within the limits of a call that has begun.
    pub(crate) fn study_within(&self, radiograph: &Radiograph, limits: &Limits) -> Result<Study> {
        let study = self.within(|| self.perceive(radiograph, limits));
        limits.advance(count_done(std::slice::from_ref(&study)));
        study
    }

    /// [`Engine::studies_with`] within the limits of a call that has begun.
    pub(crate) fn studies_within(&self, radiographs: &[Radiograph], limits: &Limits) -> Vec<Result<Study>> {
        let perceive = |batch| {
            let studies = self.perceive_batch(batch, limits);
            limits.advance(count_done(&studies));
            studies
        };
        self.within(|| radiographs.chunks(self.batch_size()).flat_map(perceive).collect())
    }

    fn perceive(&self, radiograph: &Radiograph, limits: &Limits) -> Result<Study> {
        let engine = &self.0;
        limits.check()?;
        let mut clock = Clock::start();
        let images = [radiograph.preprocess(&engine.bundle.manifest().preprocess)?];
        clock.lap(|timing| &mut timing.preprocess, 1);
        limits.check()?;
        // The rest of the file's hash is computed meanwhile.
        let (perceptions, _) = parallel::join(|| engine.module.run_batch(&images, limits.stop()), || radiograph.sha256());
        clock.lap(|timing| &mut timing.perceive, 1);
        let perceptions = limits.of_run(perceptions)?;
        let perception = perceptions.into_iter().next().unwrap_or_else(|| unreachable!("a run gives a perception for each image"));
        self.perceived(radiograph, perception, clock)
    }

    /// Perceives radiographs in one run of the perception module. If that run fails, each is perceived by itself.
    fn perceive_batch(&self, batch: &[Radiograph], limits: &Limits) -> Vec<Result<Study>> {
        let engine = &self.0;
        let stopped = |error: StoppedError| batch.iter().map(|_| Err(error.into())).collect();
        if let Err(error) = limits.check() {
            return stopped(error);
        }
        let preprocess = &engine.bundle.manifest().preprocess;
        let mut clock = Clock::start();
        let prepared = parallel::map(batch, |radiograph| radiograph.preprocess(preprocess));
        clock.lap(|timing| &mut timing.preprocess, batch.len());
        if let Err(error) = limits.check() {
            return stopped(error);
        }
        let mut images = Vec::with_capacity(batch.len());
        let failures: Vec<_> = prepared.into_iter().map(|one| one.map(|image| images.push(image)).err()).collect();
        let hash = || parallel::map(batch, |radiograph| _ = radiograph.sha256());
        let (perceptions, _) = parallel::join(|| engine.module.run_batch(&images, limits.stop()), hash);
        clock.lap(|timing| &mut timing.perceive, batch.len());
        let mut perceptions = match limits.of_run(perceptions) {
            Ok(perceptions) => perceptions.into_iter(),
            Err(Error::Stopped(error)) => return stopped(error),
            Err(error) => {
                engine.log.write(LogLevel::Warning, || {
                    let (count, error) = (images.len(), error.full_message());
                    format!("a run on {count} radiographs failed, so each is perceived by itself: {error}")
                });
                return batch.iter().map(|radiograph| self.perceive(radiograph, limits)).collect();
            }
        };
        let studies = batch.iter().zip(failures).filter_map(|(radiograph, failure)| match failure {
            Some(error) => Some(Err(error.into())),
            None => {
                let study = self.perceived(radiograph, perceptions.next()?, clock.clone());
                clock.restart();
                Some(study)
            }
        });
        studies.collect()
    }

    /// The study of a perception, with its flags.
    fn perceived(&self, radiograph: &Radiograph, perception: Perception, mut clock: Clock) -> Result<Study> {
        let letterbox = Letterbox::new(radiograph.width(), radiograph.height());
        let (source, pixels) = (radiograph.source().clone(), radiograph.header().history.clone());
        let subject = Subject { name: radiograph.name(), letterbox, input_sha256: radiograph.sha256(), source, pixels };
        let mut study = self.0.assemble(subject, perception)?;
        clock.lap(|timing| &mut timing.retrieve, 1);
        study.timing = clock.timing;
        study.flags = flags::of_radiograph(radiograph);
        let margins: Vec<f32> = study.structures.iter().map(|s| s.sentence.margin).collect();
        study.flags.extend(flags::of_perception(&study.perception.boxes, &margins, radiograph.header().orientation));
        self.0.log.write(LogLevel::Debug, || study.describe());
        Ok(study)
    }
}
