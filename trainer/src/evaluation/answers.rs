//! Comparison of answers with expected ones.

use anatomix::{LABEL_COUNT, Label};

/// Whether two answers are equal, apart from case, white space and a final full stop.
pub fn same_words(expected: &str, found: &str) -> bool {
    let plain = |text: &str| {
        let words: Vec<&str> = text.trim().trim_end_matches('.').split_whitespace().collect();
        words.join(" ").to_lowercase()
    };
    plain(expected) == plain(found)
}

/// The labels that an answer lists, in any order and case.
pub fn labels_in(answer: &str) -> [bool; LABEL_COUNT] {
    let mut out = [false; LABEL_COUNT];
    for name in answer.split([',', ';', '.', '\n']) {
        if let Some(label) = Label::from_name(name.trim()) {
            out[label.index()] = true;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_labels() {
        assert!(same_words("Pleural effusion", " pleural  effusion."));
        assert!(!same_words("Yes", "No"));
        let found = labels_in("Edema, pleural effusion; Unknown, Support Devices.");
        let names: Vec<&str> = Label::ALL.iter().filter(|l| found[l.index()]).map(|l| l.name()).collect();
        assert_eq!(names, ["Edema", "Pleural Effusion", "Support Devices"]);
    }
}
