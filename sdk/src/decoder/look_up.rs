//! Look-up decoding: most of an answer stands in the prompt or in an earlier answer, so what followed there is proposed, and
//! several tokens are verified in one run (prompt look-up; Saxena, 2023). What is said stays what plain greedy decoding says.
//!
//! Answers begin alike, and what they are about stands in the question: so a place is better, too, where the question's words follow.

/// Longest proposal in tokens: a grounded box with its tags, and the beginning of what follows.
const LONGEST: usize = 18;
/// A match of fewer tokens proposes nothing, unless a word of the question follows.
const SHORTEST_MATCH: usize = 2;
/// So many words of the question are looked for behind a match.
const LONGEST_ECHO: usize = 6;
/// What a word of the question counts, in matching tokens.
const PER_ECHO: usize = 2;
/// A match is compared over this many tokens at most.
const LONGEST_MATCH: usize = 12;
/// Proposed tokens for each matching one: a chance match costs little, a good one soon proposes all.
const PER_MATCH: usize = 9;
/// When this many tokens are held, the oldest answers go.
const MOST: usize = 32_768;
/// Stands between texts; no token is negative.
const END: i64 = -1;

/// Texts that answers tend to repeat, as tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct LookUp {
    /// Text after text, each followed by [`END`].
    tokens: Vec<i64>,
    /// The word of each token, where it is one.
    words: Vec<Option<i64>>,
    /// How many of them stay when answers go.
    kept: usize,
}

impl LookUp {
    /// Over texts that stay; `word` says which word a token is, however it is written.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [i64]>, word: impl Fn(i64) -> Option<i64>) -> Self {
        let mut look_up = Self::default();
        texts.into_iter().for_each(|text| look_up.push(text, &word));
        look_up.kept = look_up.tokens.len();
        look_up
    }

    /// Adds an answer; the oldest go when there are too many.
    pub fn add(&mut self, answer: &[i64], word: impl Fn(i64) -> Option<i64>) {
        while self.tokens.len() > self.kept && self.tokens.len() + answer.len() > self.kept + MOST {
            let oldest = self.tokens[self.kept..].iter().position(|&token| token == END).unwrap_or(0);
            self.tokens.drain(self.kept..=self.kept + oldest);
            self.words.drain(self.kept..=self.kept + oldest);
        }
        self.push(answer, &word);
    }

    fn push(&mut self, text: &[i64], word: &impl Fn(i64) -> Option<i64>) {
        self.tokens.extend_from_slice(text);
        self.tokens.push(END);
        self.words.extend(text.iter().map(|&token| word(token)));
        self.words.push(None);
    }

    /// At most `most` tokens that followed where the end of `said` matched longest and words of the question followed, the latest such
    /// place; often none.
    pub fn propose(&self, said: &[i64], asked: &[i64], most: usize) -> &[i64] {
        let (mut length, mut place) = (SHORTEST_MATCH - 1, 0);
        for end in 1..self.tokens.len() {
            if self.tokens[end] == END {
                continue;
            }
            let both = self.tokens[..end].iter().rev().zip(said.iter().rev());
            let matched = both.take(LONGEST_MATCH).take_while(|(a, b)| a == b).count();
            if matched == 0 {
                continue;
            }
            let follow = self.words[end..].iter().take(LONGEST_ECHO);
            let echo = follow.take_while(|word| word.is_some_and(|word| asked.contains(&word))).count();
            let likely = matched + PER_ECHO * echo;
            if likely >= length.max(SHORTEST_MATCH) {
                (length, place) = (likely, end);
            }
        }
        if place == 0 {
            return &[];
        }
        let follows = &self.tokens[place..];
        let text = follows.iter().position(|&token| token == END).unwrap_or(follows.len());
        &follows[..text.min(most).min(LONGEST).min(PER_MATCH * length)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_match_is_proposed() {
        let look_up = LookUp::new([&[1, 2, 3, 4, 5][..], &[9, 2, 3, 6, 7, 8]], Some);
        assert_eq!(look_up.propose(&[2, 3], &[], 9), [6, 7, 8], "of equal matches the latest");
        assert_eq!(look_up.propose(&[0, 1, 2, 3], &[], 9), [4, 5], "the longest, up to its text's end");
        assert_eq!(look_up.propose(&[9, 2, 3], &[], 2), [6, 7], "no more than asked for");
        assert_eq!(look_up.propose(&[3], &[], 9), [] as [i64; 0], "one token is chance");
        assert_eq!(look_up.propose(&[4, 5], &[], 9), [] as [i64; 0], "a text's end is followed by nothing");
        assert_eq!(LookUp::default().propose(&[1, 2], &[], 9), [] as [i64; 0]);
        let long: Vec<i64> = (0..100).collect();
        assert_eq!(LookUp::new([&long[..]], Some).propose(&[0, 1], &[], 99).len(), 2 * PER_MATCH);
        assert_eq!(LookUp::new([&long[..]], Some).propose(&long[..40], &[], 99), &long[40..40 + LONGEST]);
    }

    #[test]
    fn what_the_question_names_is_preferred() {
        // 9 opens each answer; 20 and 21 are words, capitals another way to write them.
        let word = |token: i64| (token >= 20).then_some(token % 100);
        let look_up = LookUp::new([&[9, 20, 21, 1][..], &[9, 120, 22, 2], &[9, 23, 24, 3]], word);
        assert_eq!(look_up.propose(&[9], &[], 9), [] as [i64; 0]);
        assert_eq!(look_up.propose(&[9], &[20, 22], 9), [120, 22, 2]);
        assert_eq!(look_up.propose(&[9], &[20, 21], 9), [20, 21, 1]);
        assert_eq!(look_up.propose(&[9, 20], &[22], 9), [21, 1], "what was said goes first");
    }

    #[test]
    fn old_answers_go_and_the_context_stays() {
        let mut look_up = LookUp::new([&[1, 2, 3][..]], Some);
        for answer in 0..100 {
            look_up.add(&vec![10 + answer; 1000], Some);
        }
        assert!(look_up.tokens.len() <= look_up.kept + MOST + 1001, "{}", look_up.tokens.len());
        assert_eq!(look_up.propose(&[1, 2], &[], 9), [3]);
        assert_eq!(look_up.propose(&[109, 109], &[], 9)[0], 109);
        assert_eq!(look_up.propose(&[10, 10], &[], 9), [] as [i64; 0]);
    }
}
