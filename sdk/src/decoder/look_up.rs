//! Prompt look-up decoding (Saxena, 2023). Most of an answer occurs in the prompt or in an earlier answer. So the answer's last
//! tokens are looked up there, and the tokens that followed them are proposed as the next ones. The decoder verifies several draft tokens
//! in one run, and the answer is that of plain greedy decoding.
//!
//! Many answers begin with the same tokens, so the last tokens alone do not say which occurrence is meant. Occurrences that are followed by
//! words of the question are preferred.

use std::collections::HashMap;

/// Longest draft in tokens: enough for a phrase with its box and tags, and a few tokens more.
const MAX_DRAFT: usize = 19;
/// Fewest matching tokens before a draft, unless a word of the question is its first token.
const MIN_MATCH: usize = 2;
/// Longest match that is compared, in tokens.
const MAX_MATCH: usize = 12;
/// Words of the question count if they are among this many tokens after the match.
const MAX_WORDS: usize = 6;
/// How many matching tokens a word of the question counts for.
const WORD_WEIGHT: usize = 2;
/// Largest strength of a draft.
pub(super) const MAX_STRENGTH: usize = MAX_MATCH + WORD_WEIGHT * MAX_WORDS;
/// Largest number of tokens of answers. If there are more, the oldest answers are removed until half of it is left.
const MAX_ANSWER_TOKENS: usize = 8192;
/// Largest number of starts of drafts that are compared for each key, from the latest on. It bounds the time of a search.
const MAX_COMPARED: usize = 256;
/// Separates texts. Tokens are not negative.
const END: i64 = -1;

/// Tokens that may come next in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draft<'a> {
    /// At least one.
    pub tokens: &'a [i64],
    /// How well the text before its start matches: the number of matching tokens, plus [`WORD_WEIGHT`] for each word of the question
    /// that it begins with. At most [`MAX_STRENGTH`].
    pub strength: usize,
}

/// Tokens of the texts in which drafts are looked up: the context, then answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct LookUp {
    /// The texts, each followed by [`END`].
    tokens: Vec<i64>,
    /// The word of each token; `None` for tags, numbers and punctuation.
    words: Vec<Option<i64>>,
    /// Number of tokens of the texts that are never removed.
    permanent: usize,
    /// Starts of drafts, by the two tokens before them.
    by_pair: Starts,
    /// Starts of drafts that begin with a word, by the token before them and that word.
    by_word: Starts,
}

/// Tokens at which a draft can start, as indices of [`LookUp::tokens`], by key. Those with the same key form a list from the latest to the
/// earliest.
#[derive(Clone, Debug, Default)]
struct Starts {
    latest: HashMap<[i64; 2], usize>,
    /// For each start, the previous one with the same key.
    earlier: Vec<Option<usize>>,
}

impl Starts {
    /// Appends the next token. Without a key it is not found.
    fn push(&mut self, key: Option<[i64; 2]>) {
        let earlier = key.and_then(|key| self.latest.insert(key, self.earlier.len()));
        self.earlier.push(earlier);
    }

    /// The latest starts with this key.
    fn with_key(&self, key: [i64; 2]) -> impl Iterator<Item = usize> {
        std::iter::successors(self.latest.get(&key).copied(), |&start| self.earlier[start]).take(MAX_COMPARED)
    }
}

impl LookUp {
    /// Makes a look-up over texts that are never removed. `word` maps the spellings of a word to one token, and other tokens to `None`.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [i64]>, word: impl Fn(i64) -> Option<i64>) -> Self {
        let mut look_up = Self::default();
        texts.into_iter().for_each(|text| look_up.push(text, &word));
        look_up.permanent = look_up.tokens.len();
        look_up
    }

    /// Appends an answer. If there are too many tokens, the oldest answers are removed.
    pub fn add(&mut self, answer: &[i64], word: impl Fn(i64) -> Option<i64>) {
        if self.tokens.len() + answer.len() >= self.permanent + MAX_ANSWER_TOKENS {
            let ends = (self.permanent..self.tokens.len()).filter(|&start| self.tokens[start] == END);
            let removed = ends.map(|end| end + 1).find(|&end| self.tokens.len() - end <= MAX_ANSWER_TOKENS / 2).unwrap_or(self.permanent);
            self.tokens.drain(self.permanent..removed);
            self.words.drain(self.permanent..removed);
            (self.by_pair, self.by_word) = Default::default();
            (0..self.tokens.len()).for_each(|start| self.index(start));
        }
        self.push(answer, &word);
    }

    /// Appends a text and indexes its tokens.
    fn push(&mut self, text: &[i64], word: &impl Fn(i64) -> Option<i64>) {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(text);
        self.tokens.push(END);
        self.words.extend(text.iter().map(|&token| word(token)));
        self.words.push(None);
        (first..self.tokens.len()).for_each(|start| self.index(start));
    }

    /// Indexes the next token, unless it is the end of a text.
    fn index(&mut self, start: usize) {
        let follows = self.tokens[start] != END;
        let before = |back: usize| start.checked_sub(back).map(|at| self.tokens[at]).filter(|&token| follows && token != END);
        let last = before(1);
        self.by_pair.push(last.and_then(|last| Some([before(2)?, last])));
        self.by_word.push(last.and_then(|last| Some([last, self.words[start]?])));
    }

    /// The draft of largest strength after `tokens`, the latest one of equals, with at most `limit` tokens; `None` if nothing matches.
    /// `words` are the words of the question, each once.
    pub fn draft(&self, tokens: &[i64], words: &[i64], limit: usize) -> Option<Draft<'_>> {
        let &last = tokens.last().filter(|_| limit > 0)?;
        let pair = tokens.last_chunk::<MIN_MATCH>();
        let by_word = words.iter().flat_map(|&word| self.by_word.with_key([last, word]));
        let starts = pair.into_iter().flat_map(|pair| self.by_pair.with_key(*pair)).chain(by_word);
        let (strength, start) = starts.map(|start| (self.strength(start, tokens, words), start)).max()?;
        let rest = &self.tokens[start..];
        let end = rest.iter().position(|&token| token == END).unwrap_or(rest.len());
        Some(Draft { tokens: &rest[..end.min(limit).min(MAX_DRAFT)], strength })
    }

    /// The strength of a draft that begins at `start`; see [`Draft::strength`].
    fn strength(&self, start: usize, tokens: &[i64], words: &[i64]) -> usize {
        let both = self.tokens[..start].iter().rev().zip(tokens.iter().rev());
        let matching = both.take(MAX_MATCH).take_while(|(a, b)| a == b).count();
        let next = self.words[start..].iter().take(MAX_WORDS);
        let named = next.take_while(|word| word.is_some_and(|word| words.contains(&word))).count();
        matching + WORD_WEIGHT * named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn draft<'a>(look_up: &'a LookUp, tokens: &[i64], words: &[i64], limit: usize) -> &'a [i64] {
        look_up.draft(tokens, words, limit).map_or(&[], |draft| draft.tokens)
    }

    #[test]
    fn the_tokens_after_the_longest_match_are_the_draft() {
        let look_up = LookUp::new([&[1, 2, 3, 4, 5][..], &[9, 2, 3, 6, 7, 8]], Some);
        assert_eq!(draft(&look_up, &[2, 3], &[], 9), [6, 7, 8], "the latest of equal matches");
        assert_eq!(draft(&look_up, &[0, 1, 2, 3], &[], 9), [4, 5], "the longest match, up to the end of its text");
        assert_eq!(draft(&look_up, &[9, 2, 3], &[], 2), [6, 7], "at most the limit");
        assert_eq!(look_up.draft(&[9, 2, 3], &[], 0), None);
        assert_eq!(look_up.draft(&[3], &[], 9), None, "a match of one token gives no draft");
        assert_eq!(look_up.draft(&[4, 5], &[], 9), None, "no token follows the end of a text");
        assert_eq!(LookUp::default().draft(&[1, 2], &[], 9), None);
        let long: Vec<i64> = (0..100).collect();
        let look_up = LookUp::new([&long[..]], Some);
        assert_eq!(look_up.draft(&long[..40], &[], 99), Some(Draft { tokens: &long[40..40 + MAX_DRAFT], strength: MAX_MATCH }));
    }

    #[test]
    fn places_with_words_of_the_question_are_preferred() {
        // Each answer begins with 9. Tokens from 20 on are words, and 120 is another spelling of 20.
        let word = |token: i64| (token >= 20).then_some(token % 100);
        let look_up = LookUp::new([&[9, 20, 21, 1][..], &[9, 120, 22, 2], &[9, 23, 24, 3]], word);
        assert_eq!(look_up.draft(&[9], &[], 9), None);
        assert_eq!(look_up.draft(&[9], &[20, 22], 9), Some(Draft { tokens: &[120, 22, 2], strength: 5 }));
        assert_eq!(draft(&look_up, &[9], &[20, 21], 9), [20, 21, 1]);
        assert_eq!(draft(&look_up, &[9, 20], &[22], 9), [21, 1], "a longer match comes first");
    }

    #[test]
    fn old_answers_are_removed_and_the_context_stays() {
        let mut look_up = LookUp::new([&[1, 2, 3][..]], Some);
        for answer in 0..100 {
            look_up.add(&vec![10 + answer; 1000], Some);
            assert!(look_up.tokens.len() <= look_up.permanent + MAX_ANSWER_TOKENS, "{}", look_up.tokens.len());
        }
        assert!(look_up.tokens.len() > look_up.permanent + MAX_ANSWER_TOKENS / 2 - 1001, "{}", look_up.tokens.len());
        assert_eq!(draft(&look_up, &[1, 2], &[], 9), [3]);
        assert_eq!(draft(&look_up, &[109, 109], &[], 9)[0], 109);
        assert_eq!(look_up.draft(&[10, 10], &[], 9), None);
    }

    #[test]
    fn no_place_is_missed() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut random = |count: usize, kinds: u64| (0..count).map(|_| (rng.next_u64() % kinds) as i64).collect::<Vec<_>>();
        let word = |token: i64| (token > 3).then_some(token / 2);
        let (mut found, mut named) = (0, 0);
        for _ in 0..300 {
            let texts: Vec<Vec<i64>> = (1..8).map(|length| random(3 * length, 12)).collect();
            let look_up = LookUp::new(texts.iter().map(Vec::as_slice), word);
            let (tokens, words) = (random(6, 12), [4, 5]);
            let starts = (1..look_up.tokens.len()).filter(|&start| look_up.tokens[start] != END);
            let matches = starts.filter(|&start| look_up.tokens[start - 1] == tokens[5]);
            let best = matches.map(|start| (look_up.strength(start, &tokens, &words), start)).max().filter(|best| best.0 >= MIN_MATCH);
            let draft = look_up.draft(&tokens, &words, 1);
            assert_eq!(
                draft.map(|draft| (draft.strength, draft.tokens[0])),
                best.map(|(strength, start)| (strength, look_up.tokens[start]))
            );
            found += usize::from(draft.is_some());
            named +=
                usize::from(best.is_some_and(|(strength, start)| strength == 3 && (start < 2 || look_up.tokens[start - 2] != tokens[4])));
        }
        assert!(found > 200 && named > 20, "{found} {named}");
    }
}
