//! BLEU as the Python package `sacrebleu` computes it: 13a tokens, exponential smoothing, one reference.

use regex::Regex;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Longest n-grams.
const MAX_ORDER: usize = 4;
/// The logarithm that stands for that of 0.
const LOG_OF_ZERO: f64 = -9_999_999_999.0;

/// Where 13a puts spaces.
static SPACES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
    [
        // Symbols and marks other than the full stop, comma, hyphen and apostrophe.
        (r"([\{-~\[-` -\&\(-\+:-@/])", " $1 "),
        (r"([^0-9])([\.,])", "$1 $2 "),
        (r"([\.,])([^0-9])", " $1 $2"),
        (r"([0-9])(-)", "$1 $2 "),
    ]
    .map(|(pattern, spaced)| (Regex::new(pattern).expect("a valid pattern"), spaced))
});

/// Counts from which BLEU is computed; those of a corpus are the sums of its samples'.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    matches: [usize; MAX_ORDER],
    grams: [usize; MAX_ORDER],
    found: usize,
    expected: usize,
}

impl Counts {
    /// The counts of a text and its reference.
    pub fn of(expected: &str, found: &str) -> Self {
        let (expected, found) = (tokens(expected), tokens(found));
        let mut counts = Self { found: found.len(), expected: expected.len(), ..Self::default() };
        for n in 1..=MAX_ORDER {
            let mut left: HashMap<&[String], usize> = HashMap::new();
            expected.windows(n).for_each(|gram| *left.entry(gram).or_default() += 1);
            for gram in found.windows(n) {
                if let Some(count) = left.get_mut(gram).filter(|count| **count > 0) {
                    *count -= 1;
                    counts.matches[n - 1] += 1;
                }
            }
            counts.grams[n - 1] = (found.len() + 1).saturating_sub(n);
        }
        counts
    }

    /// Adds the counts of another sample.
    pub fn add(&mut self, other: &Self) {
        for n in 0..MAX_ORDER {
            self.matches[n] += other.matches[n];
            self.grams[n] += other.grams[n];
        }
        self.found += other.found;
        self.expected += other.expected;
    }

    /// BLEU of a corpus, 0..1.
    pub fn corpus(&self) -> f64 {
        self.score(false)
    }

    /// BLEU of a single text, 0..1: n-grams that are longer than the text are left out.
    pub fn sentence(&self) -> f64 {
        self.score(true)
    }

    fn score(&self, only_possible: bool) -> f64 {
        if self.matches.iter().all(|&count| count == 0) {
            return 0.0;
        }
        let (mut smoothing, mut orders, mut logs) = (1.0, MAX_ORDER, [LOG_OF_ZERO; MAX_ORDER]);
        for (n, (&matches, &grams)) in self.matches.iter().zip(&self.grams).enumerate() {
            if grams == 0 {
                break;
            }
            if only_possible {
                orders = n + 1;
            }
            let mut matches = matches as f64;
            if matches == 0.0 {
                smoothing *= 2.0;
                matches = 1.0 / smoothing;
            }
            logs[n] = (100.0 * matches / grams as f64).ln();
        }
        let brevity = if self.found < self.expected { (1.0 - self.expected as f64 / self.found as f64).exp() } else { 1.0 };
        brevity * (logs[..orders].iter().sum::<f64>() / orders as f64).exp() / 100.0
    }
}

/// The tokens of a text.
fn tokens(text: &str) -> Vec<String> {
    // The order matters: an escaped `&` may make another escape.
    let escapes = [("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")];
    let text = escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let spaced = SPACES.iter().fold(format!(" {text} "), |text, (pattern, to)| pattern.replace_all(&text, *to).into_owned());
    spaced.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_13a() {
        let text = "Stable, 3.5-cm nodule (RUL); \"no change\"&amp; it's <5mm.";
        let expected = ["Stable", ",", "3.5", "-", "cm", "nodule", "(", "RUL", ")", ";", "\"", "no", "change", "\"", "&", "it's"];
        assert_eq!(tokens(text)[..16], expected);
        assert_eq!(tokens(text)[16..], ["<", "5mm", "."]);
    }

    #[test]
    fn equal_texts_have_1_and_others_0() {
        let equal = Counts::of("the lungs are clear today", "the lungs are clear today");
        assert!((equal.corpus() - 1.0).abs() < 1e-12 && (equal.sentence() - 1.0).abs() < 1e-12);
        assert_eq!(Counts::of("a b c d", "e f g").corpus(), 0.0);
        assert_eq!(Counts::of("", "").sentence(), 0.0);
        // Two words have no n-grams of three.
        let short = Counts::of("clear lungs", "clear lungs");
        assert!((short.sentence() - 1.0).abs() < 1e-12 && short.corpus() < 1e-9);
    }
}
