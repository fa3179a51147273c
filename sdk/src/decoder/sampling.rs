//! Choosing the next token: greedy or sampled, with penalties and constraints.

use super::error::{DecoderError, QuestionError};
use super::grammar::Matcher;
use llguidance::toktrie::SimpleVob;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::fmt;

/// How tokens are chosen. By default decoding is greedy: the most likely token is taken, and equal questions get equal answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits before sampling, 0 to 100. With 0, decoding is greedy; with 1, tokens are drawn by the model's probabilities;
    /// larger values make these more uniform.
    pub temperature: f32,
    /// Samples among this number of the most likely tokens; 0 means all.
    pub top_k: usize,
    /// Samples among the fewest most likely tokens whose probabilities add up to this, above 0 and at most 1; 1 means all.
    pub top_p: f32,
    /// Divides positive logits of tokens that are already in the answer, and multiplies negative ones (Keskar et al. 2019), 0.01 to 100; 1
    /// changes nothing. Because coordinates repeat tokens, values far above 1 make boxes wrong.
    pub repetition_penalty: f32,
    /// Seed of the random numbers. Equal seeds give equal answers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Whether decoding is greedy.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`QuestionError::Sampling`] for the first setting that is out of range.
    pub fn check(&self) -> Result<(), QuestionError> {
        let wrong = |name, value: f32, allowed| Err(QuestionError::Sampling { name, value, allowed });
        match *self {
            Self { temperature, .. } if !(0.0..=100.0).contains(&temperature) => wrong("temperature", temperature, "0 to 100"),
            Self { top_p, .. } if !(top_p > 0.0 && top_p <= 1.0) => wrong("top_p", top_p, "above 0 to 1"),
            Self { repetition_penalty: penalty, .. } if !(0.01..=100.0).contains(&penalty) => {
                wrong("repetition_penalty", penalty, "0.01 to 100")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_greedy() {
            f.write_str("greedy")?;
        } else {
            write!(f, "sampled, temperature {}, top_k {}, top_p {}, seed {}", self.temperature, self.top_k, self.top_p, self.seed)?;
        }
        if self.repetition_penalty == 1.0 { Ok(()) } else { write!(f, ", repetition_penalty {}", self.repetition_penalty) }
    }
}

/// A chosen token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The token.
    pub token: i64,
    /// A lower bound of the difference between its logit and the next largest one; infinite if the token was sampled.
    pub margin: f32,
    /// Natural logarithm of its probability under the model, before temperature, penalty and constraints.
    pub log_probability: f32,
}

/// Chooses the tokens of one answer.
pub(crate) struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// The different tokens of the answer so far, if there is a repetition penalty.
    used: Vec<i64>,
    /// Constrains the answer to its form.
    matcher: Option<Matcher>,
}

impl Sampler {
    /// A sampler for one answer, which `matcher` constrains.
    ///
    /// # Errors
    /// [`QuestionError::Sampling`] if a setting is out of range.
    pub fn new(sampling: Sampling, matcher: Option<Matcher>) -> Result<Self, QuestionError> {
        sampling.check()?;
        Ok(Self { sampling, rng: ChaCha8Rng::seed_from_u64(sampling.seed), used: Vec::new(), matcher })
    }

    /// Whether draft tokens can be verified, which requires greedy decoding.
    pub fn takes_drafts(&self) -> bool {
        self.sampling.is_greedy()
    }

    /// The largest factor by which the repetition penalty enlarges the difference between two logits.
    pub fn penalty_gain(&self) -> f32 {
        self.sampling.repetition_penalty.max(1.0 / self.sampling.repetition_penalty)
    }

    /// Chooses one of the allowed tokens, by the logits of all tokens.
    ///
    /// # Errors
    /// [`DecoderError::Grammar`] if the grammar exceeds its limits, [`DecoderError::NotFinite`] if the token's logit is not finite.
    pub fn choose(&mut self, logits: &[f32]) -> Result<Choice, DecoderError> {
        let penalised = self.penalise(logits);
        let adjusted = penalised.as_deref().unwrap_or(logits);
        let (token, margin) = if self.sampling.is_greedy() {
            self.most_likely(adjusted)?
        } else {
            let mask = self.matcher.as_mut().map(Matcher::mask).transpose()?;
            (self.draw(adjusted, mask.as_ref()), f32::INFINITY)
        };
        // A logit that overflowed in the model must not decide.
        if !usize::try_from(token).ok().and_then(|token| logits.get(token)).is_some_and(|logit| logit.is_finite()) {
            return Err(DecoderError::NotFinite);
        }
        Ok(Choice { token, margin, log_probability: log_probability(logits, token) })
    }

    /// Appends a token to the answer.
    ///
    /// # Errors
    /// As [`Sampler::choose`].
    pub fn accept(&mut self, token: i64) -> Result<(), DecoderError> {
        if self.sampling.repetition_penalty != 1.0 && !self.used.contains(&token) {
            self.used.push(token);
        }
        self.matcher.as_mut().map_or(Ok(()), |matcher| matcher.accept(token))
    }

    /// The most likely allowed token and its margin. The mask of allowed tokens is computed only if the most likely token is not allowed,
    /// because a check of one token is much faster. If it is allowed, its margin over all tokens is a lower bound of that over the allowed
    /// ones.
    fn most_likely(&mut self, logits: &[f32]) -> Result<(i64, f32), DecoderError> {
        let (token, margin) = most_likely(logits);
        let Some(matcher) = &mut self.matcher else { return Ok((token, margin)) };
        if matcher.allows(token)? {
            return Ok((token, margin));
        }
        let mask = matcher.mask()?;
        Ok(most_likely_of(allowed_of(&mask, logits)))
    }

    /// The logits after the repetition penalty; `None` if it changes nothing.
    fn penalise(&self, logits: &[f32]) -> Option<Vec<f32>> {
        if self.used.is_empty() {
            return None;
        }
        let mut logits = logits.to_vec();
        for &token in &self.used {
            if let Some(logit) = usize::try_from(token).ok().and_then(|token| logits.get_mut(token)) {
                let penalty = self.sampling.repetition_penalty;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        Some(logits)
    }

    /// Samples a token.
    fn draw(&mut self, logits: &[f32], mask: Option<&SimpleVob>) -> i64 {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        let mut candidates: Vec<(usize, f32)> = match mask {
            Some(mask) => allowed_of(mask, logits).collect(),
            None => logits.iter().copied().enumerate().collect(),
        };
        let by_likelihood = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_likelihood);
            candidates.truncate(top_k);
        }
        candidates.sort_unstable_by(by_likelihood);
        let largest = candidates.first().map_or(0.0, |c| c.1);
        let mut total = 0.0;
        // Cumulative sums of probabilities that are not normalised.
        let sums: Vec<f64> = candidates
            .iter()
            .map(|&(_, logit)| {
                total += f64::from((logit - largest) / temperature).exp();
                total
            })
            .collect();
        let kept = sums.partition_point(|&sum| sum < total * f64::from(top_p)).min(sums.len().saturating_sub(1));
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let at = sums.get(kept).map_or(0, |&all| sums[..kept].partition_point(|&sum| sum <= uniform * all));
        candidates.get(at).map_or(0, |c| c.0 as i64)
    }
}

/// The allowed tokens with their logits, in order. Often a grammar allows a few tokens of many thousand.
fn allowed_of<'a>(mask: &'a SimpleVob, logits: &'a [f32]) -> impl Iterator<Item = (usize, f32)> + 'a {
    mask.iter().map(|token| token as usize).filter_map(|token| Some((token, *logits.get(token)?)))
}

/// The token with the largest logit, the first of equals, and the difference to the next largest one.
fn most_likely(logits: &[f32]) -> (i64, f32) {
    most_likely_of(logits.iter().copied().enumerate())
}

fn most_likely_of(mut logits: impl Iterator<Item = (usize, f32)>) -> (i64, f32) {
    let (mut best, mut next) = (logits.next().map_or((0, f32::NEG_INFINITY), |(token, logit)| (token as i64, logit)), f32::NEG_INFINITY);
    for (token, logit) in logits {
        if logit > best.1 {
            next = best.1;
            best = (token as i64, logit);
        } else if logit > next {
            next = logit;
        }
    }
    (best.0, best.1 - next)
}

/// Natural logarithm of the probability of a token. It is computed for every token, so it must cost little: blocks of tokens that are
/// all far less likely than the most likely one are not summed. 262,144 such tokens would change the result by less than 4e-6.
fn log_probability(logits: &[f32], token: i64) -> f32 {
    const BLOCK: usize = 64;
    const FAR: f32 = 25.0;
    let most: Vec<f32> = logits.chunks(BLOCK).map(largest_of).collect();
    let largest = largest_of(&most);
    let near = logits.chunks(BLOCK).zip(most).filter(|(_, most)| *most >= largest - FAR);
    let total: f64 = near.flat_map(|(block, _)| block).map(|&logit| f64::from(logit - largest).exp()).sum();
    let logit = usize::try_from(token).ok().and_then(|token| logits.get(token)).copied().unwrap_or(f32::NEG_INFINITY);
    (f64::from(logit - largest) - total.ln()) as f32
}

/// The largest of some numbers. Eight lanes, so that a processor compares several numbers at once.
fn largest_of(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    for part in values.chunks(lanes.len()) {
        for (most, &value) in lanes.iter_mut().zip(part) {
            *most = if value > *most { value } else { *most };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, -1.0, 2.0];

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        let sampled = Sampling { temperature: 1.0, ..Sampling::default() };
        for logits in [[f32::NAN; 3], [0.0, f32::INFINITY, 1.0], [f32::NEG_INFINITY; 3]] {
            for sampling in [Sampling::default(), sampled] {
                let chosen = Sampler::new(sampling, None).unwrap().choose(&logits);
                assert!(matches!(chosen, Err(DecoderError::NotFinite)), "{logits:?} {sampling}: {chosen:?}");
            }
        }
    }

    /// How often each token is sampled, as a share.
    fn shares(sampling: Sampling) -> [f64; 5] {
        let mut sampler = Sampler::new(sampling, None).unwrap();
        let mut counts = [0.0; 5];
        (0..20_000).for_each(|_| counts[sampler.choose(&LOGITS).unwrap().token as usize] += 1.0 / 20_000.0);
        counts
    }

    #[test]
    fn greedy_decoding_takes_the_first_of_the_most_likely() {
        let mut sampler = Sampler::new(Sampling::default(), None).unwrap();
        let choice = sampler.choose(&LOGITS).unwrap();
        assert_eq!((choice.token, choice.margin), (1, 0.0));
        let total: f32 = LOGITS.iter().map(|l| l.exp()).sum();
        assert!((choice.log_probability - (2f32.exp() / total).ln()).abs() < 1e-6);
        assert_eq!(most_likely(&[1.0, 4.0, 3.5]), (1, 0.5));
    }

    #[test]
    fn samples_follow_the_probabilities() {
        let expected: Vec<f64> = LOGITS.iter().map(|&l| f64::from(l / 2.0).exp()).collect();
        let total: f64 = expected.iter().sum();
        let found = shares(Sampling { temperature: 2.0, ..Sampling::default() });
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected / total).abs() < 0.015, "{found} instead of {}", expected / total);
        }
        let found = shares(Sampling { temperature: 1.0, top_k: 2, ..Sampling::default() });
        assert!((found[1] - 0.5).abs() < 0.015 && found[1] + found[4] > 0.999, "{found:?}");
        // The two tokens with logit 2 have a probability of 0.78 together, and 0.93 with the token with logit 1.
        let found = shares(Sampling { temperature: 1.0, top_p: 0.78, ..Sampling::default() });
        assert!(found[1] + found[4] > 0.999, "{found:?}");
        let found = shares(Sampling { temperature: 1.0, top_p: 0.9, ..Sampling::default() });
        assert!(found[2] > 0.1 && found[0] == 0.0, "{found:?}");
    }

    #[test]
    fn equal_seeds_give_equal_answers() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed, ..Sampling::default() }, None).unwrap();
            (0..50).map(|_| sampler.choose(&LOGITS).unwrap().token).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn tokens_of_the_answer_become_less_likely() {
        let mut sampler = Sampler::new(Sampling { repetition_penalty: 3.0, ..Sampling::default() }, None).unwrap();
        let chosen: Vec<i64> = (0..3)
            .map(|_| {
                let token = sampler.choose(&LOGITS).unwrap().token;
                sampler.accept(token).unwrap();
                token
            })
            .collect();
        assert_eq!(chosen, [1, 4, 2]);
    }

    #[test]
    fn a_penalty_enlarges_differences_between_logits() {
        let difference = 0.1;
        for penalty in [0.5, 1.0, 3.0] {
            let mut sampler = Sampler::new(Sampling { repetition_penalty: penalty, ..Sampling::default() }, None).unwrap();
            sampler.accept(1).unwrap();
            sampler.accept(3).unwrap();
            let most = difference * sampler.penalty_gain() + 1e-6;
            let penalised = |logits: &[f32]| sampler.penalise(logits).unwrap_or_else(|| logits.to_vec());
            let shifted = penalised(&LOGITS.map(|logit| logit + difference));
            let farthest = penalised(&LOGITS).iter().zip(shifted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(farthest <= most && farthest > most - 1e-3, "{penalty}: {farthest} of {most}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (sampling, name) in [
            (Sampling { temperature: -1.0, ..Sampling::default() }, "temperature"),
            (Sampling { temperature: f32::NAN, ..Sampling::default() }, "temperature"),
            (Sampling { top_p: 0.0, ..Sampling::default() }, "top_p"),
            (Sampling { repetition_penalty: 0.0, ..Sampling::default() }, "repetition_penalty"),
        ] {
            let message = Sampler::new(sampling, None).err().unwrap().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
