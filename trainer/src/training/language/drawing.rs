//! What is drawn for an image: whether it is mirrored, the lines of its context, its questions; and the tokens of all that.

use super::{Drawn, Trainer};
use crate::data::packs::Pack;
use crate::training::config::LanguageStage;
use crate::training::language_data::Loaded;
use crate::training::questions::{Asked, choose, looks_up};
use crate::training::small_models::{annotated_lines, look_up, look_up_box, shorten};
use anatomix::Task;
use anatomix::parts::prompt::ContextLine;
use anyhow::{Context, Result};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Probability that an image is mirrored.
const FLIP: f64 = 0.3;
/// Probability in the stage `instruct` that the sentences of a context are replaced by the structures' names, as published.
const NAMES_ONLY: f64 = 0.1;

impl Trainer<'_> {
    /// Number of tokens of an image's context.
    pub(super) fn context_tokens(&self, image: &Loaded) -> Result<usize> {
        let lines = match self.stage {
            LanguageStage::Base => annotated_lines(&image.image, false, &mut ChaCha8Rng::seed_from_u64(0)),
            _ => {
                let outputs = self.train.outputs(std::slice::from_ref(image), &[false], self.perception.perceiver.as_ref())?;
                outputs.first().context("nothing is perceived")?.lines(&self.perception.sentences)?
            }
        };
        Ok(self.tokenizer.context(&self.models.prompt.form(), &lines, self.models.image_features())?.ids.len())
    }

    /// Whether boxes of structures are looked up.
    pub(super) fn looks_up(&self) -> bool {
        looks_up(self.stage, self.models.prompt.inputs, self.settings.grounding_boxes)
    }

    /// Whether contexts have a few structures only.
    pub(super) fn is_short(&self, done: f64) -> bool {
        self.stage == LanguageStage::Base && done < self.settings.short_contexts
    }

    /// Draws for an image. `perceived` are the lines of its context, or of any other one: how much is drawn does not depend on their texts.
    pub(super) fn draw(&self, loaded: &Loaded, perceived: Option<Vec<ContextLine>>, done: f64, rng: &mut ChaCha8Rng) -> Drawn {
        let flip = rng.random_bool(FLIP);
        let mut lines = perceived.unwrap_or_else(|| annotated_lines(&loaded.image, flip, rng));
        let short = self.is_short(done);
        let mut questions = Vec::new();
        match self.stage {
            LanguageStage::Align => questions.extend(loaded.samples.iter().filter(|s| s.task == Task::Report).map(Asked::of)),
            _ => {
                // In base training most questions are look-ups; in instruction tuning most are samples of the tasks.
                let (looks_up, most) = (self.looks_up(), self.settings.questions);
                let (from_data, total) = match self.stage {
                    _ if !looks_up => (most, most),
                    LanguageStage::Base if short => (3, 2 * most),
                    LanguageStage::Base => (most.div_ceil(2), most),
                    _ => (0, most),
                };
                let chosen = match self.stage {
                    // Those of the pack.
                    LanguageStage::Instruct => loaded.samples.iter().map(Asked::of).collect(),
                    _ => choose(&loaded.samples, from_data, looks_up, rng),
                };
                questions.extend(chosen.into_iter().map(|asked| if flip { asked.mirrored() } else { asked }));
                if short {
                    shorten(&mut lines, &loaded.image, rng);
                }
                while looks_up && questions.len() < total {
                    // Retrieved sentences may be wrong, so that instruction tuning looks up boxes only.
                    questions.push(match self.stage {
                        LanguageStage::Base => look_up(&lines, self.models.prompt.inputs, rng),
                        _ => look_up_box(&lines, rng),
                    });
                }
            }
        }
        questions.shuffle(rng);
        if self.stage == LanguageStage::Instruct && rng.random_bool(NAMES_ONLY) {
            for line in &mut lines {
                line.sentence = line.structure.name().into();
            }
        }
        Drawn { flip, lines, form: self.models.prompt.draw(rng), questions }
    }

    /// Tokens of what was drawn.
    pub(super) fn pack(&self, drawn: &Drawn, short: bool) -> Result<Pack> {
        let image_features = if short { 0 } else { self.models.image_features() };
        let context = self.tokenizer.context(&drawn.form, &drawn.lines, image_features)?;
        let mut pack = Pack::over(context.ids, context.visual_index);
        drawn.questions.iter().try_for_each(|asked| asked.add(&mut pack, self.tokenizer))?;
        Ok(pack)
    }
}
