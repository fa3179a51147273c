//! The sentences of an answer, and the tokens that each was written with.

use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// A decoded token: where in the answer's text its own text begins, in bytes, and its probability under the model, 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenMark {
    pub start: usize,
    pub probability: f32,
}

/// The sentences of a text as byte ranges without surrounding white space, in order. A line ends a sentence, too (Unicode UAX #29).
pub(super) fn split(text: &str) -> Vec<Range<usize>> {
    let bounds = text.split_sentence_bound_indices().flat_map(|(start, sentence)| {
        let lines = sentence.split_inclusive('\n').scan(start, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line))
        });
        lines.collect::<Vec<_>>()
    });
    let trimmed = bounds.filter_map(|(start, line)| {
        let text = line.trim();
        let before = line.len() - line.trim_start().len();
        let start = start + before;
        text.chars().any(char::is_alphanumeric).then(|| start..start + text.len())
    });
    trimmed.collect()
}

/// Mean probability of each sentence's tokens. Tokens of tags and coordinates count for the sentence that they follow or interrupt.
/// `None` for a sentence without tokens of its own.
pub(super) fn mean_probabilities(sentences: &[Range<usize>], marks: &[TokenMark]) -> Vec<Option<f32>> {
    let mut sums = vec![(0.0f64, 0usize); sentences.len()];
    let mut at = 0;
    for mark in marks {
        while at + 1 < sentences.len() && sentences[at].end <= mark.start {
            at += 1;
        }
        if let Some((sum, count)) = sums.get_mut(at) {
            *sum += f64::from(mark.probability);
            *count += 1;
        }
    }
    sums.into_iter().map(|(sum, count)| (count > 0).then(|| (sum / count as f64) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sentences_end_at_full_stops_and_lines() {
        let text = "Findings: There is a 0.5 cm nodule. The lungs are clear.\nImpression: Nodule.\n\n - \nYes";
        let parts: Vec<&str> = split(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(parts, ["Findings: There is a 0.5 cm nodule.", "The lungs are clear.", "Impression: Nodule.", "Yes"]);
    }

    #[test]
    fn tokens_count_for_their_sentence() {
        let sentences = [0..3, 4..8, 9..12];
        let marks = [(0, 0.5), (2, 1.0), (3, 0.25), (5, 0.75), (8, 0.1)].map(|(start, probability)| TokenMark { start, probability });
        assert_eq!(mean_probabilities(&sentences, &marks), [Some(0.75), Some(0.5), Some(0.1)]);
        assert_eq!(mean_probabilities(&sentences, &[]), [None, None, None]);
        assert_eq!(mean_probabilities(&[], &marks), []);
    }

    proptest! {
        #[test]
        fn every_letter_is_in_one_sentence(text in "\\PC{0,80}|([a-z]{1,4}[.!?\n ]{1,2}){0,20}") {
            let ranges = split(&text);
            let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
            prop_assert_eq!(ranges.iter().map(|range| letters(&text[range.clone()])).sum::<usize>(), letters(&text));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
