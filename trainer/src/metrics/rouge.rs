//! ROUGE-1, ROUGE-2 and ROUGE-L, equal to the Python package `rouge-score` with `use_stemmer=True`.

use super::stems::Stemmer;
use std::collections::HashMap;

/// Longest word, in bytes, that is not stemmed.
const MAX_UNSTEMMED: usize = 3;

/// F-measure of the unigrams that two texts share, 0..1.
pub fn rouge1(expected: &str, found: &str) -> f64 {
    shared(&words(expected), &words(found), 1)
}

/// F-measure of the bigrams that two texts share, 0..1.
pub fn rouge2(expected: &str, found: &str) -> f64 {
    shared(&words(expected), &words(found), 2)
}

/// F-measure of the longest common subsequence of words, 0..1.
pub fn rouge_l(expected: &str, found: &str) -> f64 {
    let (expected, found) = (words(expected), words(found));
    f_measure(longest_common(&expected, &found), expected.len(), found.len())
}

/// Length of the longest common subsequence, 64 cells of a row of its table at a time (Hyyro 2004): a bit of `row` is 0 where the length
/// grows.
fn longest_common(expected: &[String], found: &[String]) -> usize {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    found.iter().enumerate().for_each(|(at, word)| places.entry(word).or_default().push(at));
    let mut row = vec![u64::MAX; found.len().div_ceil(64)];
    for word in expected {
        let Some(places) = places.get(word.as_str()) else { continue };
        let (mut carry, mut next) = (false, places.iter().copied().peekable());
        // Cells before the first place do not change.
        for (at, cells) in row.iter_mut().enumerate().skip(places[0] / 64) {
            let mut matches = 0;
            while let Some(place) = next.next_if(|place| place / 64 == at) {
                matches |= 1 << (place % 64);
            }
            let taken = *cells & matches;
            let (sum, first) = cells.overflowing_add(taken);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            *cells = sum | (*cells & !taken);
        }
    }
    let whole: u32 = row.iter().map(|cells| cells.count_zeros()).sum();
    whole as usize
}

fn shared(expected: &[String], found: &[String], n: usize) -> f64 {
    let mut left: HashMap<&[String], usize> = HashMap::new();
    for gram in expected.windows(n) {
        *left.entry(gram).or_default() += 1;
    }
    let shared = found.windows(n).filter(|gram| match left.get_mut(gram) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    });
    let count = |words: &[String]| (words.len() + 1).saturating_sub(n);
    f_measure(shared.count(), count(expected), count(found))
}

/// 2PR / (P + R), where precision and recall have the same numerator.
fn f_measure(shared: usize, expected: usize, found: usize) -> f64 {
    if shared == 0 { 0.0 } else { 2.0 * shared as f64 / (expected + found) as f64 }
}

/// Words of ASCII letters and digits, in lower case; those longer than [`MAX_UNSTEMMED`] are stemmed.
fn words(text: &str) -> Vec<String> {
    let stemmer = Stemmer::default();
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| if word.len() > MAX_UNSTEMMED { stemmer.stem(word) } else { word.into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Expected values from rouge-score 0.1.2 with nltk.
    #[test]
    fn equals_the_reference() {
        for (expected, found, value) in [
            (
                "Findings: The lungs are clear. There is a right pleural effusion. The heart size is normal.\nImpression: Right \
                 pleural effusion.",
                "Findings: The lungs are clear. There are bilateral pleural effusions. The heart is enlarged.\nImpression: \
                 Bilateral pleural effusions and enlarged heart.",
                0.682_926_829_268_292_6,
            ),
            ("Left lung is healthy.", "Left lung shows consolidation and pleural effusion.", 0.363_636_363_636_363_65),
            ("The dying arteries' opacities skies; flies", "dies opacity sky fly artery", 0.727_272_727_272_727_2),
            ("ties die tie lies", "tied died lie dye", 0.75),
            ("the the the cat", "the cat cat", 0.571_428_571_428_571_4),
            ("", "the cat", 0.0),
            ("…", "…", 0.0),
            ("Größe 3.5cm nodule", "grosse 3 5cm nodules", 0.666_666_666_666_666_5),
        ] {
            assert!((rouge1(expected, found) - value).abs() < 1e-12, "{expected:?} {found:?}: {}", rouge1(expected, found));
        }
    }

    /// The table of lengths, cell by cell.
    fn by_table(expected: &[String], found: &[String]) -> usize {
        let mut lengths = vec![0; found.len() + 1];
        for word in expected {
            let mut before = 0;
            for (at, other) in found.iter().enumerate() {
                let above = lengths[at + 1];
                lengths[at + 1] = if word == other { before + 1 } else { above.max(lengths[at]) };
                before = above;
            }
        }
        lengths[found.len()]
    }

    #[test]
    fn the_longest_common_subsequence_is_that_of_its_table() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut text = |count: usize, kinds: u32| (0..count).map(|_| rng.random_range(0..kinds).to_string()).collect::<Vec<String>>();
        for (count, other, kinds) in [(0, 5, 3), (1, 1, 1), (63, 64, 2), (64, 65, 4), (130, 200, 2), (300, 190, 30), (257, 256, 1)] {
            let (expected, found) = (text(count, kinds), text(other, kinds));
            assert_eq!(longest_common(&expected, &found), by_table(&expected, &found), "{count} {other} {kinds}");
        }
    }

    /// Their table has four billion cells.
    #[test]
    fn long_texts_take_seconds() {
        let texts = ["a b ".repeat(1 << 15), "b c ".repeat(1 << 15)];
        let started = std::time::Instant::now();
        assert!((rouge_l(&texts[0], &texts[1]) - 0.5).abs() < 1e-12);
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    }

    /// The phantoms' vocabulary, stemmed by nltk 3.9.
    #[test]
    fn stems_are_those_of_nltk() {
        let stems = "abdominal:abdomin abnormal:abnorm abnormalities:abnorm abnormality:abnorm acute:acut apical:apic apply:appli \
            atelectasis:atelectasi bronchus:bronchu cardiomegaly:cardiomegali cardiophrenic:cardiophren catheter:cathet \
            cavity:caviti cavoatrial:cavoatri classify:classifi clavicle:clavicl consolidation:consolid contours:contour \
            costodiaphragmatic:costodiaphragmat descending:descend describe:describ devices:devic diagnosis:diagnosi does:doe \
            effusion:effus endotracheal:endotrach enlarged:enlarg enteric:enter every:everi finding:find findings:find fits:fit \
            fracture:fractur healthy:healthi image:imag impression:impress labels:label locate:locat lungs:lung \
            mediastinal:mediastin opacity:opac pacemaker:pacemak pulmonary:pulmonari radiologically:radiolog radiology:radiolog \
            sentence:sentenc shows:show sided:side silhouette:silhouett structure:structur sulcus:sulcu thickening:thicken \
            this:thi venous:venou vertebral:vertebr viewed:view widened:widen widening:widen";
        let pairs: Vec<(&str, &str)> = stems.split_whitespace().filter_map(|pair| pair.split_once(':')).collect();
        assert_eq!(pairs.len(), 58);
        for (word, stem) in pairs {
            assert_eq!(words(word), [stem]);
        }
    }
}
