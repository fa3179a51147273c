//! WordNet's database files, from which METEOR takes synonyms.

use anatomix::parts::files;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Largest file of the database in bytes; the largest of WordNet 3.0 has 16 MB.
const MAX_FILE: u64 = 256 << 20;

/// Parts of speech: the name in file names, and how endings are replaced to find a word's base form.
const PARTS: [(&str, &[(&str, &str)]); 4] = [
    ("adj", &[("er", ""), ("est", ""), ("er", "e"), ("est", "e")]),
    ("adv", &[]),
    (
        "noun",
        &[("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")],
    ),
    ("verb", &[("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")]),
];

/// The database.
pub struct WordNet {
    parts: Vec<Part>,
}

/// A part of speech.
struct Part {
    endings: &'static [(&'static str, &'static str)],
    /// Base forms of irregular words.
    irregular: HashMap<String, Vec<String>>,
    /// Offsets of the synsets of each lemma.
    offsets: HashMap<String, Vec<u64>>,
    /// Words of the synset at each offset, without those of several words.
    words: HashMap<u64, Vec<String>>,
}

impl WordNet {
    /// Reads the folder of WordNet's database, `dict` in its own distribution and `corpora/wordnet` in NLTK's data.
    ///
    /// # Errors
    /// If a file is missing or is not one of WordNet's; the error names file and line.
    pub fn open(folder: &Path) -> Result<Self> {
        let parts = PARTS.iter().map(|&(name, endings)| Part::read(folder, name, endings)).collect::<Result<_>>()?;
        Ok(Self { parts })
    }

    /// The words of all synsets of a word, and the word itself.
    pub fn synonyms(&self, word: &str) -> HashSet<String> {
        let mut found = HashSet::from([word.to_owned()]);
        let word = word.to_lowercase();
        for part in &self.parts {
            for form in part.forms(&word) {
                for offset in part.offsets.get(&form).into_iter().flatten() {
                    found.extend(part.words.get(offset).into_iter().flatten().cloned());
                }
            }
        }
        found
    }
}

impl Part {
    fn read(folder: &Path, name: &str, endings: &'static [(&'static str, &'static str)]) -> Result<Self> {
        let mut part = Self { endings, irregular: HashMap::new(), offsets: HashMap::new(), words: HashMap::new() };
        lines(folder, &format!("{name}.exc"), |line| {
            let mut forms = line.split_whitespace().map(str::to_owned);
            let word = forms.next()?;
            part.irregular.insert(word, forms.collect());
            Some(())
        })?;
        lines(folder, &format!("index.{name}"), |line| {
            if line.starts_with(' ') {
                return Some(());
            }
            // lemma, part of speech, number of synsets, number of pointers, the pointers, two numbers, the synsets' offsets.
            let fields: Vec<&str> = line.split_whitespace().collect();
            let count: usize = fields.get(2)?.parse().ok()?;
            let first = 6 + fields.get(3)?.parse::<usize>().ok()?;
            let offsets = fields.get(first..)?.get(..count)?.iter().map(|offset| offset.parse().ok()).collect::<Option<_>>()?;
            part.offsets.insert((*fields.first()?).to_owned(), offsets);
            Some(())
        })?;
        lines(folder, &format!("data.{name}"), |line| {
            if line.starts_with(' ') {
                return Some(());
            }
            // offset, file, type, number of words in hexadecimal, and each word with an identifier.
            let mut fields = line.split_whitespace();
            let offset = fields.next()?.parse().ok()?;
            let count = usize::from_str_radix(fields.nth(2)?, 16).ok()?;
            let mut words = Vec::new();
            for _ in 0..count {
                // Adjectives may have a marker: `galore(ip)`.
                let word = fields.next()?.split('(').next()?;
                fields.next()?;
                if !word.contains('_') {
                    words.push(word.to_owned());
                }
            }
            part.words.insert(offset, words);
            Some(())
        })?;
        ensure!(
            part.offsets.values().flatten().all(|offset| part.words.contains_key(offset)),
            "{} names synsets that data.{name} lacks; one of them is cut, or they are of different versions",
            folder.join(format!("index.{name}")).display()
        );
        ensure!(!part.offsets.is_empty(), "{} is empty", folder.join(format!("index.{name}")).display());
        Ok(part)
    }

    /// The word and its base forms, as far as they have synsets.
    fn forms(&self, word: &str) -> Vec<String> {
        let mut forms = vec![word.to_owned()];
        match self.irregular.get(word) {
            Some(irregular) => forms.extend(irregular.iter().cloned()),
            None => {
                let regular = self.endings.iter().filter_map(|(from, to)| Some(format!("{}{to}", word.strip_suffix(from)?)));
                forms.extend(regular);
            }
        }
        forms.retain(|form| self.offsets.contains_key(form));
        forms
    }
}

/// Passes on the lines of a file. A line for which `read` returns `None` is not one of WordNet's.
fn lines(folder: &Path, name: &str, mut read: impl FnMut(&str) -> Option<()>) -> Result<()> {
    let path = folder.join(name);
    let bytes = files::read(&path, MAX_FILE)
        .with_context(|| format!("cannot read {}; name WordNet's folder, such as /usr/share/wordnet", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    for (number, line) in text.lines().enumerate() {
        if read(line).is_none() {
            bail!("{} line {}: it is not a line of WordNet's database", path.display(), number + 1);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A database of a few words in the format of WordNet.
    pub fn small() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in PARTS {
            std::fs::write(folder.path().join(format!("{name}.exc")), "").unwrap();
            std::fs::write(folder.path().join(format!("index.{name}")), "word a 1 0 1 0 00000010\n").unwrap();
            std::fs::write(folder.path().join(format!("data.{name}")), "00000010 00 a 01 word 0 000 | a word\n").unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("noun.exc", "feet foot\n");
        write(
            "index.noun",
            "  1 a comment\nlung n 1 1 @ 1 0 00000010\nnodule n 1 1 @ 1 1 00000020\nfoot n 1 0 1 0 00000030\n\
             tubercle n 1 1 @ 1 1 00000020\n",
        );
        write(
            "data.noun",
            "  1 a comment\n00000010 08 n 01 lung 0 000 | an organ\n00000020 08 n 03 nodule 0 tubercle 0 small_lump 1 000 | a lump\n\
             00000030 08 n 02 foot 0 Pes 0 000 | part of the leg\n",
        );
        folder
    }

    #[test]
    fn synonyms_are_found_by_base_forms() {
        let folder = small();
        let net = WordNet::open(folder.path()).unwrap();
        let sorted = |word: &str| {
            let mut found: Vec<String> = net.synonyms(word).into_iter().collect();
            found.sort();
            found
        };
        assert_eq!(sorted("nodules"), ["nodule", "nodules", "tubercle"]);
        assert_eq!(sorted("feet"), ["Pes", "feet", "foot"]);
        assert_eq!(sorted("aorta"), ["aorta"]);
    }

    #[test]
    fn damaged_files_are_named() {
        let folder = small();
        for (name, text) in [("index.noun", "lung n 4 0 1 0 1\n"), ("data.verb", "00000010 08 n 03 lung 0\n"), ("index.adj", "word a x\n")]
        {
            let before = std::fs::read(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name), text).unwrap();
            let error = WordNet::open(folder.path()).err().unwrap().to_string();
            assert!(error.contains(name) && error.contains("line 1"), "{error}");
            std::fs::write(folder.path().join(name), before).unwrap();
        }
        for (name, words) in [("data.noun", "index.noun names synsets that data.noun lacks"), ("index.noun", "index.noun is empty")] {
            let before = std::fs::read(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name), "").unwrap();
            let error = WordNet::open(folder.path()).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
            std::fs::write(folder.path().join(name), before).unwrap();
        }
        std::fs::remove_file(folder.path().join("adv.exc")).unwrap();
        assert!(WordNet::open(folder.path()).err().unwrap().to_string().contains("adv.exc"));
    }
}
