//! Where each sentence of an answer comes from.

use super::record::anx_box;
use super::strings::Strings;
use crate::answer::Answer;
use crate::evidence::{Relation, SentenceEvidence, Support};
use std::ffi::c_char;

/// Whether what was perceived says the same as a sentence of an answer. It does not say that the answer fits the question. Later versions
/// may add values.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_support {
    /// Retrieved sentences say all that the sentence states.
    ANX_SUPPORT_SUPPORTED = 0,
    /// A retrieved sentence says the opposite of something that the sentence states.
    ANX_SUPPORT_CONTRADICTED = 1,
    /// The sentence states something that no retrieved sentence says.
    ANX_SUPPORT_UNSUPPORTED = 2,
    /// The sentence states nothing that could be compared.
    ANX_SUPPORT_NOT_ASSESSED = 3,
}

/// What a structure's retrieved sentence says of a sentence of an answer. Later versions may add values.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_relation {
    /// It is the same sentence.
    ANX_RELATION_REPEATS = 0,
    /// It states the same of the same place.
    ANX_RELATION_AGREES = 1,
    /// It states the opposite.
    ANX_RELATION_CONTRADICTS = 2,
}

/// A structure whose retrieved sentence, or box, speaks for or against a sentence of an answer. This struct never grows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_structure_evidence {
    /// The structure's index, 0 to 35, for anx_study_structure.
    pub index: usize,
    /// Its name; left and right are the patient's.
    pub name: *const c_char,
    /// What it says of the answer's sentence.
    pub relation: anx_relation,
    /// Cosine similarity of the retrieved sentence, -1 to 1; not calibrated.
    pub similarity: f32,
    /// Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    pub margin: f32,
    /// Its bounding box.
    pub bounds: anx_box,
}

/// Where a sentence of an answer comes from: what the retrieved sentences of the structures that it is about say of it, compared word by
/// word, without a model. It compares the answer with what was perceived, and does not say that the answer fits the question.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_evidence {
    /// The sentence.
    pub sentence: *const c_char,
    /// Where it begins in anx_answer_text, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Whether what was perceived says the same.
    pub support: anx_support,
    /// Structures that speak for or against it, in index order, structure_count of them; borrowed from the answer.
    pub structures: *const anx_structure_evidence,
    /// How many structures there are.
    pub structure_count: usize,
    /// Indices, for anx_answer_grounding, of the phrases that it grounds, grounding_count of them; borrowed from the answer.
    pub groundings: *const usize,
    /// How many groundings there are.
    pub grounding_count: usize,
    /// Mean probability of its tokens under the model, 0 to 1, not calibrated; NaN if it lies within a token of an earlier sentence.
    pub probability: f32,
}

/// The evidence of an answer, and what it points to.
pub(super) struct Evidence {
    pub sentences: Vec<anx_evidence>,
    _structures: Vec<Vec<anx_structure_evidence>>,
    _groundings: Vec<Vec<usize>>,
}

impl Evidence {
    pub fn new(answer: &Answer, strings: &mut Strings) -> Self {
        let structures: Vec<Vec<anx_structure_evidence>> = answer.evidence.iter().map(|of| structures(of, strings)).collect();
        let groundings: Vec<Vec<usize>> = answer.evidence.iter().map(|of| of.groundings.clone()).collect();
        let sentences = answer.evidence.iter().zip(&structures).zip(&groundings).map(|((of, structures), groundings)| anx_evidence {
            sentence: strings.keep(answer.text.get(of.range.clone()).unwrap_or_default()),
            start: of.range.start,
            end: of.range.end,
            support: match of.support {
                Support::Supported => anx_support::ANX_SUPPORT_SUPPORTED,
                Support::Contradicted => anx_support::ANX_SUPPORT_CONTRADICTED,
                Support::Unsupported => anx_support::ANX_SUPPORT_UNSUPPORTED,
                Support::NotAssessed => anx_support::ANX_SUPPORT_NOT_ASSESSED,
            },
            structures: structures.as_ptr(),
            structure_count: structures.len(),
            groundings: groundings.as_ptr(),
            grounding_count: groundings.len(),
            probability: of.probability.unwrap_or(f32::NAN),
        });
        Self { sentences: sentences.collect(), _structures: structures, _groundings: groundings }
    }
}

fn structures(of: &SentenceEvidence, strings: &mut Strings) -> Vec<anx_structure_evidence> {
    let structures = of.structures.iter().map(|found| anx_structure_evidence {
        index: found.structure.index(),
        name: strings.keep(found.structure.name()),
        relation: match found.relation {
            Relation::Repeats => anx_relation::ANX_RELATION_REPEATS,
            Relation::Agrees => anx_relation::ANX_RELATION_AGREES,
            Relation::Contradicts => anx_relation::ANX_RELATION_CONTRADICTS,
        },
        similarity: found.similarity,
        margin: found.margin,
        bounds: found.bounds.into(),
    });
    structures.collect()
}
