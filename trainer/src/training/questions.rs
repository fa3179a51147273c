//! The questions of a pack.

use crate::data::mirror::mirror_text;
use crate::data::packs::Pack;
use crate::data::samples::record::Sample;
use anatomix::Task;
use anatomix::error::PromptError;
use anatomix::parts::prompt::PromptTokenizer;
use rand::Rng;
use rand::seq::IteratorRandom;

/// A question with its answer, and the turns before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Earlier questions and answers of the same conversation.
    pub history: Vec<(String, String)>,
    /// The question.
    pub question: String,
    /// The answer, which is trained on.
    pub answer: String,
}

impl Asked {
    /// That of a sample.
    pub fn of(sample: &Sample) -> Self {
        Self { history: sample.history.clone(), question: sample.question.clone(), answer: sample.answer.clone() }
    }

    /// A question without earlier turns.
    pub fn alone(question: String, answer: String) -> Self {
        Self { history: Vec::new(), question, answer }
    }

    /// The same on the mirrored image.
    pub fn mirrored(self) -> Self {
        let history = self.history.iter().map(|(question, answer)| (mirror_text(question), mirror_text(answer))).collect();
        Self { history, question: mirror_text(&self.question), answer: mirror_text(&self.answer) }
    }

    /// Adds it to a pack, as a conversation of its own over the pack's context. Earlier answers are not trained on.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn add(&self, pack: &mut Pack, tokenizer: &PromptTokenizer) -> Result<(), PromptError> {
        let mut before = Vec::new();
        let turn = |question: &str, before: &[i64]| match before {
            [] => tokenizer.question(question),
            _ => tokenizer.follow_up(question),
        };
        for (question, answer) in &self.history {
            before.extend(turn(question, &before)?);
            before.extend(tokenizer.answer(answer)?);
        }
        before.extend(turn(&self.question, &before)?);
        pack.ask(before, tokenizer.answer(&self.answer)?);
        Ok(())
    }
}

/// Random samples of an image, without questions for a structure's box. Look-ups ask for the box in the context instead, because a target
/// that differs from the perceived box would teach an answer between the two.
pub fn choose(samples: &[Sample], count: usize, rng: &mut impl Rng) -> Vec<Asked> {
    samples.iter().filter(|s| s.task != Task::AnatomyGrounding).sample(rng, count).into_iter().map(Asked::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_turns_are_mirrored_too() {
        let box_at = |x: u32| format!("<box>({x},0),(1024,9)</box>");
        let asked = Asked { history: vec![(box_at(1000), "Yes".into())], question: box_at(24), answer: box_at(0) };
        let mirrored = asked.clone().mirrored();
        assert_eq!(mirrored.history, [("<box>(0,0),(24,9)</box>".to_string(), "Yes".to_string())]);
        assert_eq!(mirrored.mirrored(), asked);
    }
}
