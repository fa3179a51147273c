//! What the samples of one image are made with, and what was made.

use super::draw::{Asked, Draw};
use super::held_out::HeldOut;
use super::record::{Image, Sample};
use super::set::Set;
use crate::data::sources::skipped::{At, Reason, Skipped};
use crate::data::sources::split::Split;

/// The samples of one image in the making.
pub struct Making<'a> {
    draw: Draw<'a>,
    held: &'a HeldOut,
    /// What could not be used.
    pub skipped: Skipped,
    /// The samples.
    pub samples: Vec<(Set, Sample)>,
}

impl<'a> Making<'a> {
    /// No samples yet.
    pub fn new(draw: Draw<'a>, held: &'a HeldOut) -> Self {
        Self { draw, held, skipped: Skipped::default(), samples: Vec::new() }
    }

    /// The split of a patient's image, which its data set has in the split `own`; `None` if the patient is in a more protected one
    /// elsewhere.
    pub fn split(&self, patient: &str, own: Split) -> Option<Split> {
        self.held.allows(patient, own).then_some(own)
    }

    /// Whether a sample on the image may be in this split. If not, the row is noted.
    pub fn allows(&mut self, image: &Image, split: Split, at: At) -> bool {
        let allows = self.held.allows(&image.patient, split);
        if !allows {
            self.skipped.note(Reason::HeldOut, at, &image.patient);
        }
        allows
    }

    /// Draws samples of a set on an image.
    pub fn on<'i>(&self, set: Set, image: &'i Image, split: Split) -> Asked<'i>
    where
        'a: 'i,
    {
        self.draw.on(set, image, split)
    }

    /// Adds a sample.
    pub fn push(&mut self, set: Set, sample: Sample) {
        self.samples.push((set, sample));
    }
}
