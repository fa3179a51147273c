//! The observations of a report: structures, labels, flags, answers and their boxes.

use super::resources::{About, Resources};
use super::value::{component, concept, quantity};
use crate::anatomy::Side;
use crate::answer::Answer;
use crate::geometry::PixelBox;
use crate::output::codes::{self, Code, Site};
use crate::output::record::{pixels, score};
use crate::perception::flags::Flag;
use crate::results::{LabelScore, StructureResult};
use crate::study::Study;
use serde_json::{Value, json};

/// What is observed.
pub(super) struct Observed<'a> {
    pub study: &'a Study,
    pub answers: &'a [Answer],
    pub about: About<'a>,
}

impl Observed<'_> {
    /// Adds all observations, and returns references to them.
    pub fn add_to(&self, bundle: &mut Resources) -> Vec<Value> {
        let mut results = Vec::new();
        results.extend(self.study.structures().iter().map(|found| bundle.add(self.structure(found))));
        results.extend(self.study.labels().iter().map(|label| bundle.add(self.label(label))));
        results.extend(self.study.flags().iter().map(|flag| bundle.add(self.flag(flag))));
        for answer in self.answers {
            let regions: Vec<Value> = self.regions(answer).into_iter().map(|region| bundle.add(region)).collect();
            results.push(bundle.add(self.answer(answer, &regions)));
            results.extend(regions);
        }
        results
    }

    /// An observation with what all have in common.
    fn observation(&self, code: Value, own: Value) -> Value {
        let About { patient, images, device, effective } = self.about;
        let mut observation = json!({
            "resourceType": "Observation",
            "status": "preliminary",
            "category": [{ "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging", "display": "Imaging",
            }] }],
            "code": code,
            "subject": patient,
            "effectiveDateTime": effective,
            "device": device,
            "derivedFrom": [images],
        });
        if let (Value::Object(all), Value::Object(own)) = (&mut observation, own) {
            all.extend(own);
        }
        observation
    }

    fn structure(&self, found: &StructureResult) -> Value {
        let (site, sentence) = (Site::of(found.structure), &found.sentence);
        let scores = [(codes::SIMILARITY, sentence.similarity), (codes::MARGIN, sentence.margin)]
            .map(|(code, value)| component(code, "valueQuantity", quantity(score(value), codes::NO_UNITS)));
        self.observation(
            concept(codes::FINDING, ""),
            json!({
                "bodySite": concept(site.code, found.structure.name()),
                "valueString": sentence.text,
                "component": ([laterality(site), place(&found.bounds), scores.to_vec()].concat()),
            }),
        )
    }

    fn label(&self, &LabelScore { label, score: value }: &LabelScore) -> Value {
        self.observation(
            concept(codes::label(label), label.name()),
            json!({ "method": concept(codes::IMAGE_LABELS, ""), "valueQuantity": quantity(score(value), codes::NO_UNITS) }),
        )
    }

    fn flag(&self, Flag { code, severity, message }: &Flag) -> Value {
        let text = format!("{} ({}): {message}", code.name(), severity.name());
        self.observation(concept(codes::FLAG, ""), json!({ "valueString": text }))
    }

    fn answer(&self, answer: &Answer, regions: &[Value]) -> Value {
        let stated = [(codes::QUESTION, answer.question.as_str()), (codes::FINISH, answer.finish.name())];
        let stated = stated.into_iter().chain([(codes::DECODING, answer.provenance.decoding.as_str())]);
        let components: Vec<Value> =
            stated.filter(|(_, text)| !text.trim().is_empty()).map(|(code, text)| component(code, "valueString", text.into())).collect();
        // An answer that was stopped before its first token has no text.
        let absent = match answer.text.trim() {
            "" => json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown" }] }),
            _ => Value::Null,
        };
        let own = json!({ "valueString": answer.text, "dataAbsentReason": absent, "component": components, "hasMember": regions });
        self.observation(concept(codes::ANSWER, ""), own)
    }

    /// An observation for each box of an answer.
    fn regions(&self, answer: &Answer) -> Vec<Value> {
        let boxes = answer.groundings.iter().flat_map(|grounding| grounding.boxes.iter().map(move |bounds| (&grounding.phrase, bounds)));
        let regions = boxes.map(|(phrase, bounds)| {
            let (found, site) = codes::phrase(phrase);
            self.observation(
                concept(codes::FINDING, ""),
                json!({
                    "bodySite": concept(site.code, ""),
                    "valueCodeableConcept": concept(found, phrase),
                    "component": ([laterality(site), place(bounds)].concat()),
                }),
            )
        });
        regions.collect()
    }
}

/// The side of a site whose code does not say it.
fn laterality(site: Site) -> Vec<Value> {
    let side = site.side.map(|side| if side == Side::Left { codes::LEFT } else { codes::RIGHT });
    side.map(|side| component(codes::LATERALITY, "valueCodeableConcept", concept(side, ""))).into_iter().collect()
}

/// The edges of a box, in pixels of the image.
fn place(bounds: &PixelBox) -> Vec<Value> {
    let edges: [Code; 4] = [codes::BOX_LEFT, codes::BOX_TOP, codes::BOX_RIGHT, codes::BOX_BOTTOM];
    let edge = |(code, at)| component(code, "valueQuantity", quantity(at, codes::PIXELS));
    edges.into_iter().zip(pixels(bounds)).map(edge).collect()
}
