//! The questions of a pack.

use super::config::LanguageStage;
use super::packing::is_usable;
use super::settings::GroundingBoxes;
use crate::data::mirror::mirror_text;
use crate::data::packs::Pack;
use crate::data::samples::record::Sample;
use anatomix::PromptInputs;
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

/// Whether questions for the boxes of structures are look-ups in the context, of which these are the inputs; otherwise they are samples,
/// with annotated boxes.
pub fn looks_up(stage: LanguageStage, inputs: PromptInputs, boxes: GroundingBoxes) -> bool {
    match stage {
        LanguageStage::Base => inputs.boxes || inputs.sentences,
        _ => inputs.boxes && boxes == GroundingBoxes::Context,
    }
}

/// Random samples of an image, for the base training; see [`is_usable`].
pub fn choose(samples: &[Sample], count: usize, looks_up: bool, rng: &mut impl Rng) -> Vec<Asked> {
    let usable = samples.iter().filter(|sample| is_usable(sample.task, looks_up));
    usable.sample(rng, count).into_iter().map(Asked::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sources::split::Split;
    use anatomix::Task;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    #[test]
    fn boxes_of_structures_are_annotated_or_those_of_the_context() {
        let inputs = |text: &str| PromptInputs::try_from(text.to_string()).unwrap();
        let instruct = |text: &str, boxes| looks_up(LanguageStage::Instruct, inputs(text), boxes);
        assert!(instruct("VOSB", GroundingBoxes::Context) && !instruct("VOSB", GroundingBoxes::Annotated));
        assert!(!instruct("VOS", GroundingBoxes::Context), "there is no box to look up");
        let base = |text: &str| looks_up(LanguageStage::Base, inputs(text), GroundingBoxes::Annotated);
        assert!(base("VB") && base("S") && !base("VO"));

        let sample = |task| Sample {
            image: String::new(),
            patient: String::new(),
            study: String::new(),
            split: Split::Train,
            task,
            history: vec![],
            question: format!("{task:?}"),
            answer: String::new(),
            boxes: vec![],
        };
        let samples = [Task::AnatomyGrounding, Task::Report].map(sample);
        let chosen = |looks_up| choose(&samples, 5, looks_up, &mut ChaCha8Rng::seed_from_u64(1)).len();
        assert_eq!((chosen(true), chosen(false)), (1, 2));
    }

    #[test]
    fn earlier_turns_are_mirrored_too() {
        let box_at = |x: u32| format!("<box>({x},0),(1024,9)</box>");
        let asked = Asked { history: vec![(box_at(1000), "Yes".into())], question: box_at(24), answer: box_at(0) };
        let mirrored = asked.clone().mirrored();
        assert_eq!(mirrored.history, [("<box>(0,0),(24,9)</box>".to_string(), "Yes".to_string())]);
        assert_eq!(mirrored.mirrored(), asked);
    }

    /// `turns_are_the_tokens_of_their_texts` in sdk/src/study.rs checks the same tokens in the KV cache of a conversation.
    #[test]
    fn a_conversation_is_the_tokens_of_its_turns() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle/tokenizer.json");
        let tokenizer = PromptTokenizer::open(&path).unwrap();
        let turns = ["Is there an effusion?", "Yes", "Where?", "<ref>effusion</ref><box>(1,2),(30,40)</box>", "Is it large?", "No"];
        let history = turns[..4].chunks(2).map(|pair| (pair[0].into(), pair[1].into())).collect();
        let alone = Asked::alone(turns[4].into(), turns[5].into());
        let mut pack = Pack::over(vec![7; 9], vec![-1; 9]);
        alone.add(&mut pack, &tokenizer).unwrap();
        Asked { history, ..alone }.add(&mut pack, &tokenizer).unwrap();
        let mut expected = Pack::over(vec![7; 9], vec![-1; 9]);
        let [own, last] = [tokenizer.question(turns[4]).unwrap(), tokenizer.answer(turns[5]).unwrap()];
        expected.ask(own, last.clone());
        let before = [
            [tokenizer.question(turns[0]), tokenizer.answer(turns[1])],
            [tokenizer.follow_up(turns[2]), tokenizer.answer(turns[3])],
            [tokenizer.follow_up(turns[4]), Ok(Vec::new())],
        ];
        // The last answer with its end of turn is the target.
        expected.ask(before.into_iter().flatten().flat_map(Result::unwrap).collect(), last);
        assert_eq!(pack, expected);
    }
}
