//! Prompt look-up decoding (Saxena, 2023): most of an answer stands in the prompt or in an earlier answer, so what followed there is a
//! draft of what comes next. The decoder verifies several draft tokens in one run, and the answer stays that of plain greedy decoding.
//!
//! Answers begin alike, and what they are about stands in the question: a place is preferred where the question's words follow.

use std::collections::HashMap;

/// Longest draft in tokens: a grounded box with its tags, and the beginning of what follows.
const LONGEST: usize = 19;
/// A match of fewer tokens gives no draft, unless a word of the question follows.
const SHORTEST_MATCH: usize = 2;
/// Words of the question are looked for in so many tokens behind a match.
const LONGEST_ECHO: usize = 6;
/// How many matching tokens a word of the question counts for.
const PER_ECHO: usize = 2;
/// A match is compared over this many tokens at most.
const LONGEST_MATCH: usize = 12;
/// The strength of the best possible match.
pub(super) const STRONGEST: usize = LONGEST_MATCH + PER_ECHO * LONGEST_ECHO;
/// Tokens of answers that are kept; when there are more, the oldest answers go until half of that is left.
const MOST: usize = 8192;
/// So many places of each kind are compared, the latest ones first: a search takes microseconds however much was said.
const COMPARED: usize = 256;
/// Stands between texts; no token is negative.
const END: i64 = -1;

/// Tokens that may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draft<'a> {
    /// At least one.
    pub tokens: &'a [i64],
    /// How much speaks for them: matching tokens before them, and words of the question among them; at most [`STRONGEST`].
    pub strength: usize,
}

/// Texts that answers tend to repeat, as tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct LookUp {
    /// Text after text, each followed by [`END`].
    tokens: Vec<i64>,
    /// The word of each token, where it is one.
    words: Vec<Option<i64>>,
    /// How many of them stay when answers go.
    kept: usize,
    /// Places by the two tokens before them.
    pairs: Places,
    /// Places that hold a word, by the token before them and by that word.
    named: Places,
}

/// Places with the same key, from the latest to the earliest.
#[derive(Clone, Debug, Default)]
struct Places {
    latest: HashMap<[i64; 2], usize>,
    /// For each place the one before it with the same key.
    earlier: Vec<Option<usize>>,
}

impl Places {
    /// Adds the next place; one without a key is never found.
    fn push(&mut self, key: Option<[i64; 2]>) {
        let earlier = key.and_then(|key| self.latest.insert(key, self.earlier.len()));
        self.earlier.push(earlier);
    }

    fn of(&self, key: [i64; 2]) -> impl Iterator<Item = usize> {
        std::iter::successors(self.latest.get(&key).copied(), |&place| self.earlier[place]).take(COMPARED)
    }
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
        if self.tokens.len() + answer.len() >= self.kept + MOST {
            let ends = (self.kept..self.tokens.len()).filter(|&place| self.tokens[place] == END);
            let gone = ends.map(|end| end + 1).find(|&end| self.tokens.len() - end <= MOST / 2).unwrap_or(self.kept);
            self.tokens.drain(self.kept..gone);
            self.words.drain(self.kept..gone);
            (self.pairs, self.named) = Default::default();
            (0..self.tokens.len()).for_each(|place| self.index(place));
        }
        self.push(answer, &word);
    }

    fn push(&mut self, text: &[i64], word: &impl Fn(i64) -> Option<i64>) {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(text);
        self.tokens.push(END);
        self.words.extend(text.iter().map(|&token| word(token)));
        self.words.push(None);
        (first..self.tokens.len()).for_each(|place| self.index(place));
    }

    /// Makes a place findable that something follows.
    fn index(&mut self, place: usize) {
        let follows = self.tokens[place] != END;
        let before = |back: usize| place.checked_sub(back).map(|at| self.tokens[at]).filter(|&token| follows && token != END);
        let last = before(1);
        self.pairs.push(last.and_then(|last| Some([before(2)?, last])));
        self.named.push(last.and_then(|last| Some([last, self.words[place]?])));
    }

    /// At most `most` tokens that followed where the end of `said` matched longest and words of the question followed, the latest such
    /// place; often none. `asked` are the question's words, each once.
    pub fn draft(&self, said: &[i64], asked: &[i64], most: usize) -> Option<Draft<'_>> {
        let &last = said.last().filter(|_| most > 0)?;
        let pair = said.last_chunk::<SHORTEST_MATCH>();
        let named = asked.iter().flat_map(|&word| self.named.of([last, word]));
        let places = pair.into_iter().flat_map(|pair| self.pairs.of(*pair)).chain(named);
        let (strength, place) = places.map(|place| (self.strength(place, said, asked), place)).max()?;
        let follows = &self.tokens[place..];
        let text = follows.iter().position(|&token| token == END).unwrap_or(follows.len());
        Some(Draft { tokens: &follows[..text.min(most).min(LONGEST)], strength })
    }

    fn strength(&self, place: usize, said: &[i64], asked: &[i64]) -> usize {
        let both = self.tokens[..place].iter().rev().zip(said.iter().rev());
        let matched = both.take(LONGEST_MATCH).take_while(|(a, b)| a == b).count();
        let follow = self.words[place..].iter().take(LONGEST_ECHO);
        let echo = follow.take_while(|word| word.is_some_and(|word| asked.contains(&word))).count();
        matched + PER_ECHO * echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn draft<'a>(look_up: &'a LookUp, said: &[i64], asked: &[i64], most: usize) -> &'a [i64] {
        look_up.draft(said, asked, most).map_or(&[], |draft| draft.tokens)
    }

    #[test]
    fn what_followed_the_longest_match_is_the_draft() {
        let look_up = LookUp::new([&[1, 2, 3, 4, 5][..], &[9, 2, 3, 6, 7, 8]], Some);
        assert_eq!(draft(&look_up, &[2, 3], &[], 9), [6, 7, 8], "of equal matches the latest");
        assert_eq!(draft(&look_up, &[0, 1, 2, 3], &[], 9), [4, 5], "the longest, up to its text's end");
        assert_eq!(draft(&look_up, &[9, 2, 3], &[], 2), [6, 7], "no more than asked for");
        assert_eq!(look_up.draft(&[9, 2, 3], &[], 0), None);
        assert_eq!(look_up.draft(&[3], &[], 9), None, "one token is chance");
        assert_eq!(look_up.draft(&[4, 5], &[], 9), None, "nothing follows a text's end");
        assert_eq!(LookUp::default().draft(&[1, 2], &[], 9), None);
        let long: Vec<i64> = (0..100).collect();
        let look_up = LookUp::new([&long[..]], Some);
        assert_eq!(look_up.draft(&long[..40], &[], 99), Some(Draft { tokens: &long[40..40 + LONGEST], strength: LONGEST_MATCH }));
    }

    #[test]
    fn what_the_question_names_is_preferred() {
        // 9 opens each answer; 20 and 21 are words, capitals another way to write them.
        let word = |token: i64| (token >= 20).then_some(token % 100);
        let look_up = LookUp::new([&[9, 20, 21, 1][..], &[9, 120, 22, 2], &[9, 23, 24, 3]], word);
        assert_eq!(look_up.draft(&[9], &[], 9), None);
        assert_eq!(look_up.draft(&[9], &[20, 22], 9), Some(Draft { tokens: &[120, 22, 2], strength: 5 }));
        assert_eq!(draft(&look_up, &[9], &[20, 21], 9), [20, 21, 1]);
        assert_eq!(draft(&look_up, &[9, 20], &[22], 9), [21, 1], "what was said goes first");
    }

    #[test]
    fn old_answers_go_and_the_context_stays() {
        let mut look_up = LookUp::new([&[1, 2, 3][..]], Some);
        for answer in 0..100 {
            look_up.add(&vec![10 + answer; 1000], Some);
            assert!(look_up.tokens.len() <= look_up.kept + MOST, "{}", look_up.tokens.len());
        }
        assert!(look_up.tokens.len() > look_up.kept + MOST / 2 - 1001, "{}", look_up.tokens.len());
        assert_eq!(draft(&look_up, &[1, 2], &[], 9), [3]);
        assert_eq!(draft(&look_up, &[109, 109], &[], 9)[0], 109);
        assert_eq!(look_up.draft(&[10, 10], &[], 9), None);
    }

    #[test]
    fn no_place_is_overlooked() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut random = |count: usize, kinds: u64| (0..count).map(|_| (rng.next_u64() % kinds) as i64).collect::<Vec<_>>();
        let word = |token: i64| (token > 3).then_some(token / 2);
        let (mut found, mut named) = (0, 0);
        for _ in 0..300 {
            let texts: Vec<Vec<i64>> = (1..8).map(|length| random(3 * length, 12)).collect();
            let look_up = LookUp::new(texts.iter().map(Vec::as_slice), word);
            let (said, asked) = (random(6, 12), [4, 5]);
            let places = (1..look_up.tokens.len()).filter(|&place| look_up.tokens[place] != END);
            let matches = places.filter(|&place| look_up.tokens[place - 1] == said[5]);
            let best = matches.map(|place| (look_up.strength(place, &said, &asked), place)).max().filter(|best| best.0 >= SHORTEST_MATCH);
            let draft = look_up.draft(&said, &asked, 1);
            assert_eq!(
                draft.map(|draft| (draft.strength, draft.tokens[0])),
                best.map(|(strength, place)| (strength, look_up.tokens[place]))
            );
            found += usize::from(draft.is_some());
            named +=
                usize::from(best.is_some_and(|(strength, place)| strength == 3 && (place < 2 || look_up.tokens[place - 2] != said[4])));
        }
        assert!(found > 200 && named > 20, "{found} {named}");
    }
}
