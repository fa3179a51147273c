//! METEOR as NLTK computes it: words between white space, matched exactly, by stem, and by WordNet's synonyms.

use super::stems::Stemmer;
use super::wordnet::WordNet;
use std::collections::{HashMap, HashSet};

/// Weight of precision in the harmonic mean.
const ALPHA: f64 = 0.9;
/// Exponent and weight of the penalty for matches that are not in one piece.
const BETA: i32 = 3;
const GAMMA: f64 = 0.5;

/// A word and its position.
type Word = (usize, String);

/// METEOR of a text, 0..1.
pub fn meteor(expected: &str, found: &str, net: &WordNet) -> f64 {
    let words = |text: &str| text.split_whitespace().map(str::to_lowercase).enumerate().collect::<Vec<Word>>();
    let (mut expected, mut found) = (words(expected), words(found));
    let (precision, recall) = (found.len() as f64, expected.len() as f64);
    let mut matches = match_words(&mut expected, &mut found, |word| vec![word.to_owned()]);
    let stemmer = Stemmer::default();
    for (_, word) in expected.iter_mut().chain(&mut found) {
        *word = stemmer.stem(word);
    }
    matches.extend(match_words(&mut expected, &mut found, |word| vec![word.to_owned()]));
    // As in NLTK, synonyms are looked up for the stems.
    matches.extend(match_words(&mut expected, &mut found, |word| net.synonyms(word).into_iter().collect()));
    if matches.is_empty() {
        return 0.0;
    }
    matches.sort_unstable();
    let count = matches.len() as f64;
    let (precision, recall) = (count / precision, count / recall);
    let mean = precision * recall / (ALPHA * precision + (1.0 - ALPHA) * recall);
    let breaks = matches.windows(2).filter(|pair| (pair[1].0, pair[1].1) != (pair[0].0 + 1, pair[0].1 + 1)).count();
    (1.0 - GAMMA * ((1 + breaks) as f64 / count).powi(BETA)) * mean
}

/// Matches each found word, from the last on, with the last expected word that is one of its `alternatives` and still free. Matched words
/// are removed. Returns the positions of both.
fn match_words(expected: &mut Vec<Word>, found: &mut Vec<Word>, alternatives: impl Fn(&str) -> Vec<String>) -> Vec<(usize, usize)> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, (_, word)) in expected.iter().enumerate() {
        places.entry(word).or_default().push(at);
    }
    let (mut matches, mut taken) = (Vec::new(), HashSet::new());
    let mut left = Vec::new();
    for (position, word) in std::mem::take(found).into_iter().rev() {
        let last = |word: &String| places.get(word.as_str()).and_then(|places| places.last().copied());
        match alternatives(&word).iter().filter_map(last).max() {
            Some(at) => {
                places.get_mut(expected[at].1.as_str()).map(Vec::pop);
                matches.push((position, expected[at].0));
                taken.insert(at);
            }
            None => left.push((position, word)),
        }
    }
    left.reverse();
    *found = left;
    let mut at = 0;
    expected.retain(|_| {
        at += 1;
        !taken.contains(&(at - 1))
    });
    matches
}

#[cfg(test)]
mod tests {
    use super::super::wordnet::tests::small;
    use super::*;

    #[test]
    fn words_match_by_form_stem_and_synonym() {
        let folder = small();
        let net = WordNet::open(folder.path()).unwrap();
        let score = |expected: &str, found: &str| meteor(expected, found, &net);
        // Equal texts are one piece of four matches.
        assert_eq!(score("The lungs are clear", "the lungs are clear"), 1.0 - 0.5 / 64.0);
        assert_eq!(score("effusion", "effusions"), 0.5);
        assert_eq!(score("a foot", "a feet"), 1.0 - 0.5 / 8.0);
        assert_eq!((score("a b", "c d"), score("", ""), score("a", "")), (0.0, 0.0, 0.0));
        // Two pieces of two matches.
        assert_eq!(score("a b", "b a"), 0.5);
    }
}
