//! What a sentence states: findings that it asserts or denies and structures that it calls normal, by the words of the vocabulary.

use super::vocabulary::{self, FINDINGS};
use crate::anatomy::{Side, Structure};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A statement of a sentence.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub claim: Claim,
    pub site: Site,
}

/// What is stated. Numbers are indices of [`FINDINGS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Present(usize),
    Absent(usize),
    /// Nothing is wrong with the site; with an empty site, with nothing in the image.
    Normal,
}

/// Where something is stated to be. Without structures it may be anywhere, on one side if there is one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Site {
    pub structures: Vec<Structure>,
    pub side: Option<Side>,
}

/// What a word or several words mean.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    Finding(usize),
    /// A structure, or its left and right one.
    Site(&'static [u8]),
    /// A structure by its name.
    Named(Structure),
    /// What is normal where a finding is absent, such as the size of the heart.
    Aspect(usize),
    Sides(&'static [Side]),
    Normal,
    Nothing,
    /// Denies what follows.
    Denial,
    /// Denies what precedes.
    LateDenial,
    Possible,
    End,
    Join,
    Or,
    Verb,
    Preposition,
}

/// Terms by their first word, the longest first.
type Lexicon = HashMap<&'static str, Vec<(Vec<&'static str>, Meaning)>>;

static LEXICON: LazyLock<Lexicon> = LazyLock::new(lexicon);

fn lexicon() -> Lexicon {
    let mut terms: Vec<(String, Meaning)> = Vec::new();
    for (index, finding) in FINDINGS.iter().enumerate() {
        terms.extend(finding.terms.iter().map(|term| (term.to_string(), Meaning::Finding(index))));
    }
    terms.extend(Structure::all().map(|structure| (words(structure.name()).join(" "), Meaning::Named(structure))));
    for &(term, structures) in vocabulary::SITES {
        terms.push((term.into(), Meaning::Site(structures)));
        if let &[left, right] = structures {
            for (side, index) in [("left", left), ("right", right)] {
                let named = Structure::new(index.into()).map(Meaning::Named);
                let forms = [format!("{term} of the {side} lung"), format!("{term} of {side} lung")];
                terms.extend(forms.into_iter().filter_map(|form| Some((form, named?))));
            }
        }
    }
    terms.extend(vocabulary::NORMAL_ASPECTS.iter().map(|&(term, finding)| (term.into(), Meaning::Aspect(finding))));
    let lists: [(&[&str], Meaning); 13] = [
        (vocabulary::NORMAL, Meaning::Normal),
        (vocabulary::NOTHING, Meaning::Nothing),
        (vocabulary::DENIES_AFTER, Meaning::Denial),
        (vocabulary::DENIES_BEFORE, Meaning::LateDenial),
        (vocabulary::POSSIBLE, Meaning::Possible),
        (vocabulary::CLAUSE_ENDS, Meaning::End),
        (vocabulary::VERBS, Meaning::Verb),
        (vocabulary::PREPOSITIONS, Meaning::Preposition),
        (&["and", ","], Meaning::Join),
        (&["or"], Meaning::Or),
        (&["left"], Meaning::Sides(&[Side::Left])),
        (&["right"], Meaning::Sides(&[Side::Right])),
        (&["bilateral", "bilaterally", "both"], Meaning::Sides(&[Side::Left, Side::Right])),
    ];
    terms.extend(lists.iter().flat_map(|&(list, meaning)| list.iter().map(move |term| (term.to_string(), meaning))));
    let mut lexicon = Lexicon::new();
    for (term, meaning) in terms {
        // The lexicon lives as long as the process.
        let term: Vec<&'static str> = String::leak(term).split(' ').collect();
        lexicon.entry(term[0]).or_default().push((term, meaning));
    }
    // Of equally long terms the first one counts.
    lexicon.values_mut().for_each(|terms| terms.sort_by_key(|(term, _)| std::cmp::Reverse(term.len())));
    lexicon
}

/// The words of a text in lower case and in the singular, and its punctuation. Words of degree are left out.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
            continue;
        }
        if !word.is_empty() {
            words.push(singular(std::mem::take(&mut word)));
        }
        if matches!(c, ',' | ';' | ':') {
            words.push(c.into());
        }
    }
    words.retain(|word| !vocabulary::DEGREES.contains(&word.as_str()));
    words
}

fn singular(mut word: String) -> String {
    if word.ends_with("sses") {
        word.truncate(word.len() - 2);
    } else if word.len() > 3 && word.ends_with('s') && !["ss", "us", "is", "eas"].iter().any(|end| word.ends_with(end)) {
        word.pop();
    }
    word
}

/// The words' meanings; words without one are left out.
fn meanings(words: &[String]) -> Vec<Meaning> {
    let mut out = Vec::new();
    let mut rest = words;
    while let Some(first) = rest.first() {
        let found = LEXICON.get(first.as_str()).and_then(|terms| {
            terms.iter().find(|(term, _)| rest.len() >= term.len() && term.iter().zip(rest).all(|(known, word)| known == word))
        });
        let length = found.map_or(1, |(term, _)| term.len());
        if let Some((term, meaning)) = found {
            // "Heart is enlarged" is a finding with a verb.
            let verb = length > 1 && term.iter().any(|word| vocabulary::VERBS.contains(word));
            out.extend(verb.then_some(Meaning::Verb).into_iter().chain([*meaning]));
        }
        rest = &rest[length..];
    }
    out
}

/// The statements of a sentence, in its order.
pub(super) fn statements(sentence: &str) -> Vec<Statement> {
    let all = meanings(&words(sentence));
    clauses(&all).into_iter().flat_map(clause).collect()
}

/// Where a sentence says something is, if it names a place and no finding.
pub(super) fn place(sentence: &str) -> Option<Site> {
    let items = items(&meanings(&words(sentence)));
    let places: Vec<Site> =
        items.into_iter().map(|item| if let Item::Place { site, .. } = item { Some(site) } else { None }).collect::<Option<_>>()?;
    (!places.is_empty()).then(|| places.into_iter().fold(Site::default(), Site::or))
}

fn clauses(all: &[Meaning]) -> Vec<&[Meaning]> {
    let mut clauses = Vec::new();
    let mut start = 0;
    for (at, &meaning) in all.iter().enumerate() {
        let begins = match meaning {
            Meaning::End => true,
            Meaning::Join => {
                let said = all[start..at].iter().any(|m| matches!(m, Meaning::Verb | Meaning::Denial));
                let next = &all[at + 1..];
                let next = &next[..next.iter().position(|m| matches!(m, Meaning::Join | Meaning::End)).unwrap_or(next.len())];
                said && next.first() != Some(&Meaning::Or) && next.contains(&Meaning::Verb)
            }
            _ => false,
        };
        if begins {
            clauses.push(&all[start..at]);
            start = at + 1;
        }
    }
    clauses.push(&all[start..]);
    clauses
}

/// A finding or a place, in the order of a clause.
enum Item {
    Finding {
        finding: usize,
        is_denied: bool,
    },
    /// `follows`: whether it says where the finding before it is.
    Place {
        site: Site,
        aspect: Option<usize>,
        follows: bool,
    },
}

impl Site {
    fn or(mut self, other: Self) -> Self {
        if self.structures.is_empty() && other.structures.is_empty() && self.side.is_some() && self.side != other.side {
            return Self::default();
        }
        self.side = self.side.or(other.side);
        self.structures.extend(other.structures);
        self
    }
}

fn items(clause: &[Meaning]) -> Vec<Item> {
    let possible = clause.contains(&Meaning::Possible);
    let mut items: Vec<Item> = Vec::new();
    let (mut sides, mut preposition): (Vec<Side>, bool) = (Vec::new(), false);
    // A side that no structure followed is a place by itself.
    fn place(sides: &mut Vec<Side>, items: &mut Vec<Item>, preposition: bool) {
        if let [first, rest @ ..] = sides.as_slice() {
            let side = rest.iter().all(|side| side == first).then_some(*first);
            items.push(Item::Place { site: Site { structures: vec![], side }, aspect: None, follows: preposition });
        }
        sides.clear();
    }
    for (at, &meaning) in clause.iter().enumerate() {
        match meaning {
            Meaning::Finding(finding) => {
                place(&mut sides, &mut items, false);
                let denied = clause[..at].contains(&Meaning::Denial) || clause[at..].contains(&Meaning::LateDenial);
                items.push(Item::Finding { finding, is_denied: denied && !possible });
                preposition = false;
            }
            Meaning::Sides(named) => sides.extend(named),
            Meaning::Preposition => preposition = true,
            Meaning::Named(structure) => {
                sides.clear();
                let site = Site { structures: vec![structure], side: None };
                items.push(Item::Place { site, aspect: None, follows: preposition });
            }
            Meaning::Site(named) => {
                let structures = named.iter().filter_map(|&index| Structure::new(index.into()));
                let structures = structures.filter(|s| sides.is_empty() || s.side().is_none_or(|side| sides.contains(&side))).collect();
                sides.clear();
                items.push(Item::Place { site: Site { structures, side: None }, aspect: None, follows: preposition });
            }
            Meaning::Aspect(finding) => {
                sides.clear();
                items.push(Item::Place { site: Site::default(), aspect: Some(finding), follows: false });
            }
            _ => {}
        }
    }
    place(&mut sides, &mut items, preposition);
    items
}

fn clause(clause: &[Meaning]) -> Vec<Statement> {
    if clause.contains(&Meaning::Nothing) {
        return vec![Statement { claim: Claim::Normal, site: Site::default() }];
    }
    let items = items(clause);
    let mut out = Vec::new();
    let normal = clause.iter().position(|m| *m == Meaning::Normal);
    if normal.is_some_and(|at| !clause[..at].contains(&Meaning::Denial)) {
        for item in &items {
            match item {
                Item::Place { aspect: Some(finding), .. } => out.push(Statement { claim: Claim::Absent(*finding), site: Site::default() }),
                Item::Place { site, .. } if !site.structures.is_empty() => out.push(Statement { claim: Claim::Normal, site: site.clone() }),
                _ => {}
            }
        }
        if items.is_empty() {
            out.push(Statement { claim: Claim::Normal, site: Site::default() });
        }
    }
    for (at, item) in items.iter().enumerate() {
        let Item::Finding { finding, is_denied } = *item else { continue };
        let claim = if is_denied { Claim::Absent(finding) } else { Claim::Present(finding) };
        out.push(Statement { claim, site: site_of(&items, at) });
    }
    out
}

/// Where the finding at an index is: what stands directly before it, else what a preposition joins to it or to the findings that are listed
/// after it, else the clause's first place.
fn site_of(items: &[Item], at: usize) -> Site {
    let place = |item: &Item, wanted: bool| match item {
        Item::Place { site, follows, .. } if *follows == wanted => Some(site.clone()),
        _ => None,
    };
    let before = items[..at].iter().rev().map_while(|item| if matches!(item, Item::Finding { .. }) { None } else { Some(item) });
    let before: Vec<Site> = before.filter_map(|item| place(item, false)).collect();
    if !before.is_empty() {
        return before.into_iter().fold(Site::default(), Site::or);
    }
    let after = items[at + 1..].iter().skip_while(|item| matches!(item, Item::Finding { .. }));
    let after = after.map_while(|item| place(item, true));
    let after: Vec<Site> = after.collect();
    if !after.is_empty() {
        return after.into_iter().fold(Site::default(), Site::or);
    }
    items.iter().take_while(|item| !matches!(item, Item::Finding { .. })).find_map(|item| place(item, false)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn described(sentence: &str) -> String {
        let describe = |Statement { claim, site }: Statement| {
            let what = match claim {
                Claim::Present(finding) => format!("+{}", FINDINGS[finding].terms[0]),
                Claim::Absent(finding) => format!("-{}", FINDINGS[finding].terms[0]),
                Claim::Normal => "normal".into(),
            };
            let structures = site.structures.iter().map(|s| s.index().to_string()).collect::<Vec<_>>().join("+");
            let side = site.side.map(|side| format!("{side:?}").to_lowercase()).unwrap_or_default();
            format!("{what} @{structures}{side}")
        };
        statements(sentence).into_iter().map(describe).collect::<Vec<_>>().join("; ")
    }

    #[rstest]
    #[case("Left lung is healthy.", "normal @11")]
    #[case("Apical zone of left lung shows consolidation and lung opacity.", "+consolidation @2; +lung opacity @2")]
    #[case("Structure of left upper quadrant of abdomen is healthy.", "normal @25")]
    #[case("Cardiac shadow viewed radiologically or Heart shows enlarged cardiac silhouette.", "+enlarged heart @4")]
    #[case("Findings: There is consolidation in the right lower lung zone.", "+consolidation @19")]
    #[case("There is a left pleural effusion.", "+pleural effusion @left")]
    #[case("There is no pleural effusion or pneumothorax.", "-pleural effusion @; -pneumothorax @")]
    #[case("The heart size is normal.", "-enlarged heart @")]
    #[case("The heart is mildly enlarged.", "+enlarged heart @")]
    #[case("The heart is not enlarged.", "normal @4")]
    #[case("The heart size and mediastinal contours are normal.", "-enlarged heart @; -widened mediastinum @")]
    #[case("The lungs are clear.", "normal @11+20")]
    #[case("The lungs are not clear.", "")]
    #[case("The right lung is clear of consolidation.", "-consolidation @20")]
    #[case("No fracture is seen.", "-fracture @")]
    #[case("A fracture is not seen.", "-fracture @")]
    #[case("Pneumonia cannot be excluded.", "+pneumonia @")]
    #[case("No effusion, pneumothorax, or consolidation is seen.", "-pleural effusion @; -pneumothorax @; -consolidation @")]
    #[case("No pneumothorax, but there is a small effusion on the left.", "-pneumothorax @; +pleural effusion @left")]
    #[case("No pleural effusion, and the heart is enlarged.", "-pleural effusion @; +enlarged heart @")]
    #[case("Consolidation in the right lower lobe and effusions in the left lung.", "+consolidation @19; +pleural effusion @11")]
    #[case("Consolidation and atelectasis in the left upper lobe.", "+consolidation @13; +atelectasis @13")]
    #[case("Bilateral pleural effusions.", "+pleural effusion @")]
    #[case("An endotracheal tube is in place.", "+endotracheal tube @")]
    #[case("A right-sided pacemaker is in place.", "+pacemaker @right")]
    #[case("No acute abnormality.", "normal @")]
    #[case("No Finding", "normal @")]
    #[case("Lung Opacity, Pleural Effusion, Support Devices", "+lung opacity @; +pleural effusion @; +support device @")]
    #[case("Yes", "")]
    #[case("The patient is an adult.", "")]
    fn sentences_state(#[case] sentence: &str, #[case] expected: &str) {
        assert_eq!(described(sentence), expected);
    }

    /// A word that the vocabulary writes in another form than the parser can never be found.
    #[test]
    fn terms_are_written_as_they_are_compared() {
        for (first, terms) in LEXICON.iter() {
            for (term, meaning) in terms {
                let written = term.join(" ");
                assert_eq!(words(&written).join(" "), written, "{first} {meaning:?}");
            }
        }
    }

    #[test]
    fn every_structure_is_found_by_its_name() {
        for structure in Structure::all() {
            assert_eq!(place(structure.name()), Some(Site { structures: vec![structure], side: None }), "{structure}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,60}|((no|left|lungs|are|clear|and|effusion|,|but|not seen|of the|heart) ){0,30}") {
            statements(&text);
            place(&text);
        }
    }
}
