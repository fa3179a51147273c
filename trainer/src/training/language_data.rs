//! What a step of the language model's stages takes of an image, and how it is loaded.

use super::config::LanguageStage;
use super::perception_outputs::{Outputs, Perceiver, Sizes, from_bytes, to_bytes};
use crate::data::loading::ahead::Ahead;
use crate::data::loading::index::Index;
use crate::data::loading::pictures::Pictures;
use crate::data::loading::settings::{Loading, Perceived};
use crate::data::loading::store::Store;
use crate::data::samples::record::{Image, Sample};
use crate::data::sources::split::Split;
use crate::progress;
use anatomix::Task;
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::Instant;
use tch::Tensor;

/// Number of images that are perceived at once.
const BATCH: usize = 16;

/// Where the outputs of the perception module are.
#[derive(Clone, Debug)]
pub enum Features {
    /// Contexts are made of annotations.
    None,
    /// On disk.
    Stored(Store),
    /// Nowhere: the step computes them from the image.
    Computed,
}

/// An image with what is asked about it.
pub struct Loaded {
    /// The image's record.
    pub image: Image,
    /// The samples on it.
    pub samples: Vec<Sample>,
    /// Outputs of the perception module for the image and the mirrored image, if they are known.
    pub outputs: Option<Box<[Outputs; 2]>>,
    /// The preprocessed image, if the step computes the outputs.
    pub picture: Option<Vec<u8>>,
}

/// Loads the images of a split with their samples. It is shared by threads.
#[derive(Clone)]
pub struct Loader {
    index: Arc<Index>,
    pictures: Arc<Pictures>,
    images: Arc<Vec<u32>>,
    split: Split,
    features: Features,
    sizes: Sizes,
}

impl Loader {
    /// The images of a split that a stage can use, at most so many.
    ///
    /// # Errors
    /// If there are none.
    pub fn new(
        (index, pictures): (&Arc<Index>, &Arc<Pictures>),
        (stage, split): (LanguageStage, Split),
        features: Features,
        sizes: Sizes,
        most: usize,
    ) -> Result<Self> {
        let mut images = index.with_samples(split, |task| stage != LanguageStage::Align || task == Task::Report);
        if stage == LanguageStage::Base {
            images.retain(|&image| index.is_annotated(image, split));
        }
        images.truncate(most);
        let what = match stage {
            LanguageStage::Base => "instruction samples and boxes of structures",
            LanguageStage::Align => "a report",
            LanguageStage::Instruct => "instruction samples",
        };
        let folder = index.prepared.folder.display();
        ensure!(!images.is_empty(), "{folder} has no images of the split {} with {what}", split.name());
        Ok(Self { index: index.clone(), pictures: pictures.clone(), images: Arc::new(images), split, features, sizes })
    }

    /// The number of samples on each image, of such tasks.
    pub fn counts<'a>(&'a self, wanted: impl Fn(Task) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
        self.index.counts(&self.images, self.split, wanted)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The name of an image.
    pub fn name(&self, at: usize) -> String {
        let image = self.images.get(at).and_then(|&number| self.index.image(number).ok());
        image.map_or_else(|| format!("image {at}"), |image| image.id)
    }

    fn record(&self, at: usize) -> Result<(u32, Image)> {
        let number = *self.images.get(at).with_context(|| format!("there is no image {at}"))?;
        Ok((number, self.index.image(number)?))
    }

    /// Loads the image with this index; `None` if it cannot be read and is to be skipped.
    ///
    /// # Errors
    /// If something of it cannot be read.
    pub fn load(&self, at: usize) -> Result<Option<Loaded>> {
        let (number, image) = self.record(at)?;
        let samples = self.index.samples(number, &image, self.split)?;
        let (mut outputs, mut picture) = (None, None);
        match &self.features {
            Features::None => {}
            Features::Computed => {
                picture = self.pictures.read(&self.index.prepared.path(&image)?, image.size())?;
                if picture.is_none() {
                    return Ok(None);
                }
            }
            Features::Stored(store) => {
                let path = self.index.prepared.path(&image)?;
                let name = match Store::name_for(&path) {
                    Ok(name) => name,
                    // It could not be perceived either.
                    Err(_) if self.pictures.skips() => {
                        self.pictures.skip();
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                let found = store.get(&name).and_then(|bytes| from_bytes(&self.sizes, &bytes));
                if found.is_none() && self.pictures.skips() && !store.has(&name) {
                    self.pictures.skip();
                    return Ok(None);
                }
                let damaged =
                    || format!("the perceived features of {} in {} are damaged; delete that file", image.id, store.path(&name).display());
                outputs = Some(Box::new(found.with_context(damaged)?));
            }
        }
        Ok(Some(Loaded { image, samples, outputs, picture }))
    }

    /// Starts reading ahead in this order.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn ahead(
        &self,
        loading: &Loading,
        batch: usize,
        items: impl Iterator<Item = usize> + Send + 'static,
    ) -> Result<Ahead<Option<Loaded>>> {
        let own = self.clone();
        Ahead::start(loading.workers, loading.prefetch * batch, items, move |at| own.load(at))
    }

    /// The images whose outputs are not in the store.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub fn missing(&self) -> Result<Vec<usize>> {
        let Features::Stored(store) = &self.features else { return Ok(Vec::new()) };
        let mut missing = Vec::new();
        for at in 0..self.len() {
            let (_, image) = self.record(at)?;
            // A file that cannot be reached is an error, or skipped, where it is read.
            if !Store::name_for(&self.index.prepared.path(&image)?).is_ok_and(|name| store.has(&name)) {
                missing.push(at);
            }
        }
        Ok(missing)
    }

    /// Perceives the images that are not in the store, and keeps the outputs.
    ///
    /// # Errors
    /// If an image cannot be read, or something cannot be written.
    pub fn perceive(&self, missing: Vec<usize>, perceiver: &Perceiver, loading: &Loading) -> Result<()> {
        let Features::Stored(store) = &self.features else { return Ok(()) };
        let started = Instant::now();
        let bar = progress::bar(missing.len() as u64, "perceiving");
        let own = self.clone();
        let items = missing.clone().into_iter();
        let mut pictures = Ahead::start(loading.workers, loading.prefetch * BATCH, items, move |at| {
            let (_, image) = own.record(at)?;
            let path = own.index.prepared.path(&image)?;
            Ok(own.pictures.read(&path, image.size())?.map(|picture| (path, picture)))
        })?;
        for chunk in missing.chunks(BATCH) {
            let read = chunk.iter().map(|&at| pictures.take(at)).collect::<Result<Vec<_>>>()?;
            let read: Vec<_> = read.into_iter().flatten().collect();
            if !read.is_empty() {
                let images = self.pictures.batch(read.iter().map(|(_, picture)| picture.as_slice()))?;
                for ((path, _), both) in read.iter().zip(both(perceiver, &images)?) {
                    store.put(&Store::name_for(path)?, &to_bytes(&both))?;
                }
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        let each = started.elapsed().as_secs_f64() * 1e3 / missing.len() as f64;
        progress::say(&format!("perceived {} images, {each:.0} ms an image", missing.len()));
        Ok(())
    }

    /// The outputs of a batch, of each image or its mirrored image as `flips` says. They are computed if they are not known.
    ///
    /// # Errors
    /// If they are to be computed and the image is not there.
    pub fn outputs(&self, loaded: &[Loaded], flips: &[bool], perceiver: Option<&Perceiver>) -> Result<Vec<Outputs>> {
        let stored = || loaded.iter().zip(flips).map(|(one, &flip)| Some(one.outputs.as_ref()?[usize::from(flip)].clone())).collect();
        if let Some(all) = stored() {
            return Ok(all);
        }
        let perceiver = perceiver.context("there is no perception module")?;
        let pictures = loaded.iter().map(|one| one.picture.as_deref().context("an image is not loaded")).collect::<Result<Vec<_>>>()?;
        let images = self.pictures.batch(pictures.into_iter())?;
        let rows = (0..).zip(flips).map(|(row, &flip)| if flip { images.get(row).flip([2]) } else { images.get(row) });
        perceiver.perceive(&Tensor::stack(&rows.collect::<Vec<_>>(), 0))
    }

    /// Loads all images with their outputs, for a split that is small.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn whole(&self, perceiver: Option<&Perceiver>, loading: &Loading) -> Result<Vec<Loaded>> {
        let mut ahead = self.ahead(loading, BATCH, 0..self.len())?;
        let mut all: Vec<Loaded> = (0..self.len()).filter_map(|at| ahead.take(at).transpose()).collect::<Result<_>>()?;
        if let (Features::Computed, Some(perceiver)) = (&self.features, perceiver) {
            let started = Instant::now();
            for chunk in all.chunks_mut(BATCH) {
                let images = self.pictures.batch(chunk.iter().filter_map(|one| one.picture.as_deref()))?;
                for (one, both) in chunk.iter_mut().zip(both(perceiver, &images)?) {
                    (one.outputs, one.picture) = (Some(Box::new(both)), None);
                }
            }
            let each = started.elapsed().as_secs_f64() * 1e3 / (2 * all.len().max(1)) as f64;
            progress::say(&format!("perceiving takes {each:.0} ms an image in each step"));
        }
        Ok(all)
    }

    /// How often an image was skipped.
    pub fn skipped(&self) -> u64 {
        self.pictures.skipped()
    }
}

/// What keeping or computing the features of so many images costs, in words.
pub fn price(how: Perceived, sizes: &Sizes, images: usize) -> String {
    let (each, count) = (2 * sizes.bytes() as u64, images as u64);
    match how {
        Perceived::Cache => {
            format!("perceived features: {each} bytes an image on disk, {} MB for {count} images", (each * count).div_ceil(1_000_000))
        }
        Perceived::Step => format!("perceived features: computed in each step; to keep them would take {each} bytes an image"),
    }
}

/// Outputs for images and for their mirrored images.
fn both(perceiver: &Perceiver, images: &Tensor) -> Result<Vec<[Outputs; 2]>> {
    let outputs = perceiver.perceive(&Tensor::stack(&[images, &images.flip([3])], 1).flatten(0, 1))?;
    let mut outputs = outputs.into_iter();
    Ok(std::iter::from_fn(|| Some([outputs.next()?, outputs.next()?])).collect())
}
