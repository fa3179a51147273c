//! Where each sentence of an answer comes from. The findings that a sentence asserts or denies are compared with the retrieved sentences of
//! the structures that it is about, by a fixed vocabulary: the same answer always has the same evidence. No model is involved.

mod sentences;
mod statements;
mod vocabulary;

pub(crate) use sentences::TokenMark;

use crate::anatomy::{Label, Side, Structure};
use crate::geometry::PixelBox;
use crate::grounding::Grounding;
use crate::results::StructureResult;
use serde::Serialize;
use statements::{Claim, Site, Statement};
use std::ops::Range;
use vocabulary::FINDINGS;

/// Whether what was perceived says the same as a sentence of an answer. It does not say that the answer fits the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Support {
    /// Retrieved sentences say all that the sentence states.
    Supported,
    /// A retrieved sentence says the opposite of something that the sentence states.
    Contradicted,
    /// The sentence states something that no retrieved sentence says.
    Unsupported,
    /// The sentence states nothing that could be compared: it names no finding and calls no structure normal, in known words.
    NotAssessed,
}

impl Support {
    /// The name in JSON, C and Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Contradicted => "contradicted",
            Self::Unsupported => "unsupported",
            Self::NotAssessed => "not_assessed",
        }
    }
}

/// What a structure's retrieved sentence says of a sentence of an answer, or its box of the box of a phrase that names the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Relation {
    /// It is the same sentence.
    Repeats,
    /// It states the same of the same place, or the boxes overlap by at least half of what they cover together.
    Agrees,
    /// It states the opposite, or the boxes overlap by less.
    Contradicts,
}

impl Relation {
    /// The name in JSON, C and Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repeats => "repeats",
            Self::Agrees => "agrees",
            Self::Contradicts => "contradicts",
        }
    }
}

/// A structure whose retrieved sentence, or box, speaks for or against a sentence of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StructureEvidence {
    /// The structure.
    pub structure: Structure,
    /// What it says of the answer's sentence.
    pub relation: Relation,
    /// Cosine similarity of the retrieved sentence, -1..1, not calibrated.
    pub similarity: f32,
    /// Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    pub margin: f32,
    /// The structure's bounding box in pixels of the original image.
    pub bounds: PixelBox,
}

/// Where a sentence of an answer comes from: the answer is compared with what was perceived, not with the question.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SentenceEvidence {
    /// Where the sentence is in [`Answer::text`](crate::Answer::text), in bytes.
    pub range: Range<usize>,
    /// Whether what was perceived says the same.
    pub support: Support,
    /// Structures that speak for or against it, in index order.
    pub structures: Vec<StructureEvidence>,
    /// Indices in [`Answer::groundings`](crate::Answer::groundings) of the phrases that it grounds.
    pub groundings: Vec<usize>,
    /// Mean probability of its tokens under the model, 0..1, not calibrated, tags and coordinates included; `None` if it
    /// lies within a token of an earlier sentence.
    pub probability: Option<f32>,
}

/// A structure with what its retrieved sentence states.
#[derive(Clone, Debug)]
struct Perceived {
    structure: Structure,
    words: Vec<String>,
    statements: Vec<Statement>,
}

/// What the retrieved sentences of a study state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts(Vec<Perceived>);

impl Facts {
    /// Reads the sentence of each structure.
    pub fn new(structures: &[StructureResult]) -> Self {
        let perceived = |found: &StructureResult| Perceived {
            structure: found.structure,
            words: statements::words(&found.sentence.text),
            statements: statements::statements(&found.sentence.text),
        };
        Self(structures.iter().map(perceived).collect())
    }

    /// The evidence of each sentence of an answer, in the order of its text. An answer such as "Yes." or "On the left." states what its
    /// question asks.
    pub fn evidence(
        &self,
        structures: &[StructureResult],
        question: &str,
        text: &str,
        phrases: &[Grounding],
        marks: &[TokenMark],
    ) -> Vec<SentenceEvidence> {
        let ranges = sentences::split(text);
        let probabilities = sentences::mean_probabilities(&ranges, marks);
        let grounded = grounded(text, &ranges, phrases);
        let sentences = ranges.into_iter().zip(probabilities).zip(grounded).enumerate();
        let evidence = sentences.map(|(index, ((range, probability), groundings))| {
            let sentence = &text[range.clone()];
            let mut stated = statements::statements(sentence);
            if stated.is_empty() && index == 0 {
                stated = answered(question, sentence);
            }
            let (mut support, mut relations) = self.compare(sentence, &stated);
            for (structure, relation) in groundings.iter().filter_map(|&index| boxed(structures, &phrases[index])) {
                support = match relation {
                    Relation::Contradicts => Support::Contradicted,
                    _ if support == Support::NotAssessed => Support::Supported,
                    _ => support,
                };
                add(&mut relations, (structure, relation));
            }
            let speaks = |found: &StructureResult| {
                let of = relations.iter().filter(|(structure, _)| *structure == found.structure);
                let of = of.map(|&(_, relation)| StructureEvidence {
                    structure: found.structure,
                    relation,
                    similarity: found.sentence.similarity,
                    margin: found.sentence.margin,
                    bounds: found.bounds,
                });
                of.collect::<Vec<_>>()
            };
            SentenceEvidence { range, support, structures: structures.iter().flat_map(speaks).collect(), groundings, probability }
        });
        evidence.collect()
    }

    /// The number of structures that a finding is looked for in: those that the site names, or else those of its home on that side.
    fn places(&self, finding: usize, site: &Site) -> usize {
        let is_place = |of: &&Perceived| {
            if site.structures.is_empty() { is_home(finding, site, of.structure) } else { site.structures.contains(&of.structure) }
        };
        self.0.iter().filter(is_place).count()
    }

    /// Whether a sentence with these statements is supported, and by which structures.
    fn compare(&self, sentence: &str, stated: &[Statement]) -> (Support, Vec<(Structure, Relation)>) {
        let words = statements::words(sentence);
        let relation_of = |statement: &Statement, perceived: &Perceived| {
            let (relation, is_named) = relation(statement, perceived)?;
            let repeats = relation == Relation::Agrees && perceived.words == words;
            Some((perceived.structure, if repeats { Relation::Repeats } else { relation }, is_named))
        };
        let mut relations: Vec<(Structure, Relation)> = Vec::new();
        let mut supports = Vec::new();
        for statement in stated {
            let found: Vec<(Structure, Relation, bool)> = self.0.iter().filter_map(|perceived| relation_of(statement, perceived)).collect();
            // What is said of the very structures that the sentence names counts more than what is said of parts of them.
            let any_named = found.iter().any(|found| found.2);
            let counted = || found.iter().filter(move |found| found.2 == any_named);
            let agrees = counted().any(|found| found.1 != Relation::Contradicts);
            let opposed = counted().filter(|found| found.1 == Relation::Contradicts).count();
            // A finding may be anywhere in its place, so that all of the place has to be without it. A place that is called normal or free
            // of a finding is neither if any part of it has a finding.
            let opposes = match statement.claim {
                Claim::Present(finding) => opposed > 0 && opposed >= self.places(finding, &statement.site),
                _ => opposed > 0,
            };
            supports.push(match statement.claim {
                Claim::Present(_) if agrees => Support::Supported,
                _ if opposes => Support::Contradicted,
                _ if agrees => Support::Supported,
                _ => Support::Unsupported,
            });
            // A healthy lung does not speak against a finding in the other one.
            let is_found = matches!(statement.claim, Claim::Present(_)) && agrees;
            let listed = found.iter().filter(|found| !(is_found && found.1 == Relation::Contradicts));
            for &(structure, relation, _) in listed {
                add(&mut relations, (structure, relation));
            }
        }
        let worst =
            [Support::Contradicted, Support::Unsupported, Support::Supported].into_iter().find(|support| supports.contains(support));
        (worst.unwrap_or(Support::NotAssessed), relations)
    }
}

/// What a structure's perceived box says of a phrase that names the structure and has a box: they agree if they overlap by half of what
/// they cover together.
fn boxed(structures: &[StructureResult], grounding: &Grounding) -> Option<(Structure, Relation)> {
    let site = statements::place(&grounding.phrase)?;
    let [structure] = site.structures.as_slice() else { return None };
    let found = structures.iter().find(|found| found.structure == *structure)?;
    let best = grounding.boxes.iter().map(|bounds| bounds.iou(&found.bounds)).reduce(f32::max)?;
    Some((*structure, if best >= 0.5 { Relation::Agrees } else { Relation::Contradicts }))
}

/// Adds what a structure says of a sentence, once.
fn add(relations: &mut Vec<(Structure, Relation)>, said: (Structure, Relation)) {
    if !relations.contains(&said) {
        relations.push(said);
    }
}

/// What a sentence without statements of its own states as an answer to a question: "Yes.", "No.", or a place.
fn answered(question: &str, sentence: &str) -> Vec<Statement> {
    let asked = statements::statements(question);
    let words = statements::words(sentence);
    match (words.first().map(String::as_str), asked.as_slice()) {
        (Some("yes"), _) => asked,
        (Some("no"), _) => asked
            .into_iter()
            .filter_map(|Statement { claim, site }| match claim {
                Claim::Present(finding) => Some(Statement { claim: Claim::Absent(finding), site }),
                Claim::Absent(finding) => Some(Statement { claim: Claim::Present(finding), site }),
                Claim::Normal => None,
            })
            .collect(),
        (Some(_), [Statement { claim: claim @ Claim::Present(_), .. }]) => {
            statements::place(sentence).map(|site| Statement { claim: *claim, site }).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What a structure's retrieved sentence says of a statement, and whether the statement names the structure or a finding's home; `None` if
/// it says nothing of it.
fn relation(statement: &Statement, perceived: &Perceived) -> Option<(Relation, bool)> {
    let structure = perceived.structure;
    let site = &statement.site;
    let asserts = |finding: usize| perceived.statements.iter().any(|s| matches!(s.claim, Claim::Present(other) if is_a(other, finding)));
    let denies = |finding: usize| perceived.statements.iter().any(|s| matches!(s.claim, Claim::Absent(other) if is_a(finding, other)));
    let is_normal = perceived.statements.iter().any(|s| s.claim == Claim::Normal);
    let has_finding = perceived.statements.iter().any(|s| matches!(s.claim, Claim::Present(found) if !is_device(found)));
    let named = site.structures.contains(&structure);
    let is_home = |finding| is_home(finding, site, structure);
    match statement.claim {
        Claim::Present(finding) => {
            if asserts(finding) && is_within(site, structure) {
                return Some((Relation::Agrees, named || site.structures.is_empty()));
            }
            let is_asked = named || is_home(finding);
            (is_asked && (is_normal || denies(finding))).then_some((Relation::Contradicts, named))
        }
        Claim::Absent(finding) => {
            if asserts(finding) && is_within(site, structure) {
                return Some((Relation::Contradicts, named || site.structures.is_empty()));
            }
            let speaks = !perceived.statements.is_empty();
            ((named || is_home(finding)) && speaks).then_some((Relation::Agrees, named || site.structures.is_empty()))
        }
        Claim::Normal if site.structures.is_empty() => {
            let is_main = [Structure::HEART, Structure::LEFT_LUNG, Structure::RIGHT_LUNG].contains(&structure);
            if has_finding { Some((Relation::Contradicts, true)) } else { (is_main && is_normal).then_some((Relation::Agrees, true)) }
        }
        Claim::Normal if has_finding && is_within(site, structure) => Some((Relation::Contradicts, named)),
        Claim::Normal => (named && is_normal).then_some((Relation::Agrees, true)),
    }
}

/// Whether a finding without a named structure is looked for in this one.
fn is_home(finding: usize, site: &Site, structure: Structure) -> bool {
    site.structures.is_empty()
        && FINDINGS[finding].home.iter().any(|&home| usize::from(home) == structure.index())
        && on_side(site, structure)
}

/// Whether one finding, or its other name, is another one or one of those that the other one is a general name for.
fn is_a(finding: usize, other: usize) -> bool {
    let (finding, other) = (&FINDINGS[finding], &FINDINGS[other]);
    finding == other || (other.is_general && finding.label == other.label)
}

fn is_device(finding: usize) -> bool {
    FINDINGS[finding].label == Some(Label::SupportDevices)
}

fn on_side(site: &Site, structure: Structure) -> bool {
    site.side.is_none_or(|side| structure.side().is_none_or(|of| of == side))
}

/// Whether a structure is at a site: named by it, part of what it names, or around it.
fn is_within(site: &Site, structure: Structure) -> bool {
    if site.structures.is_empty() {
        return on_side(site, structure);
    }
    let whole = |part: Structure| match (part.index(), part.side()) {
        (2 | 3 | 6 | 7 | 10 | 12 | 13 | 19 | 21 | 22 | 33 | 35, Some(Side::Left)) => Some(Structure::LEFT_LUNG),
        (2 | 3 | 6 | 7 | 10 | 12 | 13 | 19 | 21 | 22 | 33 | 35, Some(Side::Right)) => Some(Structure::RIGHT_LUNG),
        (15 | 16 | 24, _) => Some(Structure::HEART),
        (1 | 27 | 28, _) => Structure::new(14),
        _ => None,
    };
    site.structures.iter().any(|&named| named == structure || whole(named) == Some(structure) || whole(structure) == Some(named))
}

/// The groundings of each sentence. Phrases are looked for in the order of the text; one that is not in it, or is empty, counts for the
/// sentence of the phrase before it.
fn grounded(text: &str, sentences: &[Range<usize>], groundings: &[Grounding]) -> Vec<Vec<usize>> {
    let mut out = vec![Vec::new(); sentences.len()];
    let mut from = 0;
    for (index, grounding) in groundings.iter().enumerate() {
        let found = text.get(from..).and_then(|rest| rest.find(&grounding.phrase)).filter(|_| !grounding.phrase.is_empty());
        let at = found.map_or(from, |at| from + at);
        let sentence = sentences.iter().position(|sentence| at < sentence.end).unwrap_or(sentences.len().saturating_sub(1));
        if let Some(of) = out.get_mut(sentence) {
            of.push(index);
        }
        if found.is_some() {
            from = at + grounding.phrase.len();
        }
    }
    out
}

#[cfg(test)]
mod tests;
