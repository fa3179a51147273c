//! From the data sets that one has to a prepared folder.

use super::config::Config;
use super::draw::Draw;
use super::folder::Folder;
use super::held_out::HeldOut;
use super::making::Making;
use super::mimic::Mimic;
use super::padchest::{self, PadChest};
use super::phantom::Phantoms;
use super::record::{Image, Source};
use super::set::Set;
use super::slake::Slake;
use super::summary::Summary;
use super::templates::Templates;
use super::vindr::Vindr;
use crate::data::sources::skipped::Skipped;
use crate::data::sources::slake;
use crate::data::sources::split::Split;
use crate::progress;
use anatomix::parts::hash::Digest;
use anatomix::{PixelBox, STRUCTURE_COUNT, Structure};
use anyhow::{Result, bail};
use rand::seq::IndexedRandom;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Number of images whose samples are in memory at once.
const BATCH: usize = 256;

/// Prepares a folder. If `strict`, the first thing that is not as published is an error.
///
/// # Errors
/// If the templates are wrong, something cannot be written, or by `strict`.
pub fn prepare(config: &Config, out: &Path, strict: bool) -> Result<Summary> {
    let (templates, bytes) = Templates::read(config.templates.as_deref())?;
    let folder = Folder::create(out, &config.database_splits)?;
    let (mut held, mut skipped) = (HeldOut::new(config.on_leak), Skipped::default());
    let folders = &config.sources;
    // Everything but scene graphs, reports and images is read first, because splits of one set concern the others.
    let mimic = Mimic::read(folders, &mut held, &mut skipped);
    let vindr = Vindr::read(config, &mut held, &mut skipped);
    let padchest = PadChest::read(folders, &mut held, &mut skipped);
    let slake = Slake::read(folders, &mut held, &mut skipped);
    let phantoms = Phantoms::read(folders, &mut held, &mut skipped);
    let draw = Draw { seed: config.seed, templates: &templates };
    let summary = Summary::new(config, Digest::of(&bytes).to_string(), &held);
    let out = std::path::absolute(out)?;
    let mut writing = Writing { out, folder, skipped, summary, strict, draw, held: &held, structures: BTreeMap::new() };
    writing.check()?;
    if let Some(mimic) = &mimic {
        writing.source(Source::MimicCxrJpg, folders.mimic_cxr_jpg.clone(), mimic.len(), |index, making| mimic.make(index, making))?;
    }
    if let Some(vindr) = &vindr {
        writing.source(Source::VindrCxr, folders.vindr_cxr.clone(), vindr.len(), |index, making| vindr.make(index, making))?;
    }
    if let Some(padchest) = &padchest {
        writing
            .source(Source::PadchestGr, padchest::images_folder(folders), padchest.len(), |index, making| padchest.make(index, making))?;
    }
    if let Some(slake) = &slake {
        let images = folders.slake.as_deref().map(slake::images);
        writing.source(Source::Slake, images, slake.len(), |index, making| slake.make(index, making))?;
    }
    if let Some(phantoms) = &phantoms {
        writing.source(Source::Phantom, folders.phantom.clone(), phantoms.len(), |index, making| phantoms.make(index, making))?;
    }
    writing.finish()
}

/// The folder in the making.
struct Writing<'a> {
    out: PathBuf,
    folder: Folder,
    skipped: Skipped,
    summary: Summary,
    strict: bool,
    draw: Draw<'a>,
    held: &'a HeldOut,
    /// How often each structure was asked for, by split.
    structures: BTreeMap<Split, [u64; STRUCTURE_COUNT]>,
}

impl Writing<'_> {
    /// Writes the images of a source with their samples, in order. They are made in parallel.
    fn source(
        &mut self,
        source: Source,
        folder: Option<PathBuf>,
        count: usize,
        make: impl Fn(usize, &mut Making) -> Option<Image> + Sync,
    ) -> Result<()> {
        if let Some(folder) = folder {
            self.summary.folders.insert(source.name().into(), relative(std::path::absolute(folder)?, &self.out));
        }
        let bar = progress::bar(count as u64, source.name());
        let (draw, held) = (self.draw, self.held);
        for start in (0..count).step_by(BATCH) {
            let made: Vec<(Option<Image>, Making)> = (start..count.min(start + BATCH))
                .into_par_iter()
                .map(|index| {
                    let mut making = Making::new(draw, held);
                    let image = make(index, &mut making);
                    bar.inc(1);
                    (image, making)
                })
                .collect();
            for (image, making) in made {
                let Making { skipped, samples, .. } = making;
                self.skipped.absorb(skipped);
                for (set, sample) in &samples {
                    self.folder.sample(*set, sample)?;
                }
                if let Some(image) = image {
                    self.image(source, &image)?;
                }
            }
            self.check()?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Writes an image, and asks for one of its structures.
    fn image(&mut self, source: Source, image: &Image) -> Result<()> {
        self.folder.image(image)?;
        let own = self.summary.images.entry(source.name().into()).or_default();
        let Some(split) = image.split else {
            own.held_out += 1;
            return Ok(());
        };
        *own.splits.entry(split).or_default() += 1;
        let boxes: Vec<(Structure, PixelBox)> = Structure::all().zip(&image.boxes).filter_map(|(s, b)| Some((s, (*b)?))).collect();
        if boxes.is_empty() {
            return Ok(());
        }
        *self.summary.annotated.entry(split).or_default() += 1;
        if source == Source::Phantom {
            // They bring their own questions.
            return Ok(());
        }
        // The structure that was asked for least often, so that all structures are asked for equally often.
        let counts = self.structures.entry(split).or_insert([0; STRUCTURE_COUNT]);
        let least = boxes.iter().map(|(structure, _)| counts[structure.index()]).min().unwrap_or_default();
        let rare: Vec<_> = boxes.iter().filter(|(structure, _)| counts[structure.index()] == least).collect();
        let Some(&&(structure, bounds)) = rare.choose(&mut self.draw.rng(Set::AnatomyGrounding, &image.id)) else { return Ok(()) };
        counts[structure.index()] += 1;
        let sample = self.draw.on(Set::AnatomyGrounding, image, split).anatomy_grounding(structure, bounds);
        self.folder.sample(Set::AnatomyGrounding, &sample)
    }

    /// Stops at the first damage if that is asked for.
    fn check(&self) -> Result<()> {
        match self.skipped.first_damage().filter(|_| self.strict) {
            Some(entry) => bail!("{entry}; mend the data, or prepare without --strict to skip what is damaged"),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Summary> {
        self.summary.count_samples(&self.folder.counts());
        self.summary.count_skipped(&self.skipped);
        self.summary.sentences = self.folder.sentences();
        self.folder.install(&self.summary, &self.skipped)?;
        Ok(self.summary)
    }
}

/// `folder` as seen from `out` if `out` lies inside it, so that both can be moved together.
fn relative(folder: PathBuf, out: &Path) -> PathBuf {
    match out.strip_prefix(&folder) {
        Ok(inside) => inside.components().map(|_| "..").collect(),
        Err(_) => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_around_the_prepared_one_is_relative() {
        let relative = |folder: &str, out: &str| relative(folder.into(), Path::new(out));
        assert_eq!(relative("/data/phantoms", "/data/phantoms/prepared"), Path::new(".."));
        assert_eq!(relative("/data", "/data/a/b"), Path::new("../.."));
        assert_eq!(relative("/data/slake", "/data/prepared"), Path::new("/data/slake"));
    }
}
