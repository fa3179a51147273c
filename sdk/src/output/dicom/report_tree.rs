//! The content tree of a structured report: TID 1500, Measurement Report, and the templates that it includes (DICOM PS3.16, annex A).

use super::content::{ImageReference, Item, Relationship, Value};
use crate::anatomy::Side;
use crate::answer::Answer;
use crate::evidence::SentenceEvidence;
use crate::geometry::PixelBox;
use crate::output::codes::{self, Code, Site};
use crate::output::document::{PRODUCT, device_uid};
use crate::output::record::{pixels, score};
use crate::output::uid;
use crate::perception::flags::Flag;
use crate::provenance::Provenance;
use crate::results::{LabelScore, StructureResult};
use crate::study::Study;

use Relationship::{Contains, HasAcquisitionContext, HasConceptModifier, HasObservationContext, HasProperties, SelectedFrom};

/// What a report is about.
pub(super) struct Subject<'a> {
    pub study: &'a Study,
    pub answers: &'a [Answer],
    pub image: ImageReference<'a>,
    /// The image's modality, as its header says.
    pub modality: &'a str,
}

impl<'a> Subject<'a> {
    /// The whole tree.
    pub fn tree(&self) -> Item<'a> {
        let provenance = self.study.provenance();
        let structures = self.study.structures().iter().map(|found| self.structure(found));
        let groundings = self.answers.iter().enumerate().flat_map(|(index, answer)| self.groundings(index, answer));
        let measurements = Item::container(codes::MEASUREMENTS, None).with(structures.chain(groundings));
        let evaluations = Item::container(codes::EVALUATIONS, None)
            .with([
                Contains.text(codes::INTENDED_USE, &provenance.intended_use),
                Contains.text(codes::CALIBRATION, &format!("Similarities, margins and scores of labels are {}.", provenance.scores)),
            ])
            .with(self.study.flags().iter().map(flag))
            .with(self.answers.iter().map(answer));
        let labels = Item::container(codes::IMAGE_LABELS, None).with(self.study.labels().iter().map(label));
        Item::container(codes::REPORT, Some("1500"))
            // TID 1204.
            .with([HasConceptModifier.code(codes::LANGUAGE, codes::ENGLISH)])
            .with(observer(provenance))
            .with([HasConceptModifier.code(codes::PROCEDURE_REPORTED, codes::IMAGING_PROCEDURE)])
            .with([self.library(), measurements, evaluations, labels])
    }

    /// TID 1600, Image Library, with TID 1601 and TID 1602 for the radiograph.
    fn library(&self) -> Item<'a> {
        let side = |concept, side: u32| HasAcquisitionContext.item(concept, Value::Number(side as f32, codes::PIXELS));
        let image = Contains.item(None, Value::Image(self.image)).with([
            HasAcquisitionContext.code(codes::MODALITY, codes::modality(self.modality)),
            side(codes::PIXEL_ROWS, self.study.height()),
            side(codes::PIXEL_COLUMNS, self.study.width()),
        ]);
        Item::container(codes::IMAGE_LIBRARY, None).with([Item::container(codes::IMAGE_LIBRARY_GROUP, None).with([image])])
    }

    fn structure(&self, found: &StructureResult) -> Item<'a> {
        let name = found.structure.name();
        let number = |concept, value| Contains.item(concept, Value::Number(score(value), codes::NO_UNITS));
        let sentence = &found.sentence;
        self.region(name, codes::ANATOMICAL_STRUCTURE, Site::of(found.structure), &found.bounds).with([
            number(codes::SIMILARITY, sentence.similarity),
            number(codes::MARGIN, sentence.margin),
            Contains.text(codes::SENTENCE, &sentence.text),
        ])
    }

    /// A group for each box of an answer.
    fn groundings(&self, index: usize, answer: &Answer) -> Vec<Item<'a>> {
        let boxes = answer.groundings.iter().flat_map(|grounding| grounding.boxes.iter().map(move |bounds| (&grounding.phrase, bounds)));
        let groups = boxes.enumerate().map(|(number, (phrase, bounds))| {
            let (finding, site) = codes::phrase(phrase);
            let name = format!("Answer {}, region {}: {phrase}", index + 1, number + 1);
            self.region(&name, finding, site, bounds).with([Contains.text(codes::GROUNDED_PHRASE, phrase)])
        });
        groups.collect()
    }

    /// TID 1410, Planar ROI Measurements and Qualitative Evaluations: a finding with its box. `name` is unique in the report.
    fn region(&self, name: &str, finding: Code, site: Site, bounds: &PixelBox) -> Item<'a> {
        let provenance = self.study.provenance();
        let [x0, y0, x1, y1] = pixels(bounds);
        let place = [x0, y0, x1, y1].map(f32::to_le_bytes).concat();
        let hashes = [&provenance.input_sha256, &provenance.bundle_sha256].map(|hash| hash.as_bytes());
        let tracking_uid = uid::derived(&[b"region", hashes[0], hashes[1], name.as_bytes(), &place]);
        let image = SelectedFrom.item(codes::SOURCE, Value::Image(self.image));
        Item::container(codes::MEASUREMENT_GROUP, Some("1410"))
            .with([
                HasObservationContext.text(codes::TRACKING_IDENTIFIER, name),
                HasObservationContext.item(codes::TRACKING_UID, Value::Uid(tracking_uid)),
                Contains.code(codes::FINDING, finding),
                Contains.code(codes::PURPOSE_OF_REGION, codes::BOUNDED_BY),
                Contains.item(codes::IMAGE_REGION, Value::Box(PixelBox::new(x0, y0, x1, y1))).with([image]),
            ])
            .with([located(site)])
            .with(algorithm(provenance))
    }
}

/// TID 1001, 1002 and 1004: the observer is a device.
fn observer(provenance: &Provenance) -> [Item<'static>; 6] {
    let Provenance { sdk, bundle, bundle_sha256, .. } = provenance;
    [
        HasObservationContext.code(codes::OBSERVER_TYPE, codes::DEVICE),
        HasObservationContext.item(codes::DEVICE_UID, Value::Uid(device_uid(provenance))),
        HasObservationContext.text(codes::DEVICE_NAME, &format!("{PRODUCT} {sdk}, bundle {bundle}")),
        HasObservationContext.text(codes::DEVICE_MANUFACTURER, PRODUCT),
        HasObservationContext.text(codes::DEVICE_MODEL, PRODUCT),
        HasObservationContext.text(codes::DEVICE_SERIAL_NUMBER, bundle_sha256),
    ]
}

/// TID 4019, Algorithm Identification.
fn algorithm(provenance: &Provenance) -> Vec<Item<'static>> {
    let Provenance { sdk, bundle, bundle_sha256, provider, precision, onnx_runtime, .. } = provenance;
    let parameters = [
        format!("bundle={bundle}"),
        format!("bundle_sha256={bundle_sha256}"),
        format!("precision={precision}"),
        format!("provider={provider}"),
        format!("onnx_runtime={onnx_runtime}"),
    ];
    let named = [HasConceptModifier.text(codes::ALGORITHM_NAME, PRODUCT), HasConceptModifier.text(codes::ALGORITHM_VERSION, sdk)];
    named.into_iter().chain(parameters.iter().map(|parameter| HasConceptModifier.text(codes::ALGORITHM_PARAMETERS, parameter))).collect()
}

/// TID 1419, row 2: Finding Site with its laterality.
fn located(Site { code, side }: Site) -> Item<'static> {
    let side = side.map(|side| if side == Side::Left { codes::LEFT } else { codes::RIGHT });
    HasConceptModifier.code(codes::FINDING_SITE, code).with(side.map(|side| HasConceptModifier.code(codes::LATERALITY, side)))
}

fn label(LabelScore { label, score: value }: &LabelScore) -> Item<'static> {
    Contains.item(codes::label(*label), Value::Number(score(*value), codes::NO_UNITS))
}

fn flag(Flag { code, severity, message }: &Flag) -> Item<'static> {
    Contains.text(codes::FLAG, &format!("{} ({}): {message}", code.name(), severity.name()))
}

fn answer(answer: &Answer) -> Item<'static> {
    // An answer that was stopped before its first token has no text, but its question is reported.
    let text = if answer.text.trim().is_empty() { "(no answer)" } else { &answer.text };
    Contains
        .text(codes::ANSWER, text)
        .with([
            HasConceptModifier.text(codes::QUESTION, &answer.question),
            HasProperties.text(codes::FINISH, answer.finish.name()),
            HasProperties.text(codes::DECODING, &answer.provenance.decoding),
        ])
        .with(answer.evidence.iter().map(|evidence| sentence(evidence, &answer.text)))
}

/// A sentence of an answer with its evidence. A structure is named as in the tracking identifier of its region.
fn sentence(evidence: &SentenceEvidence, text: &str) -> Item<'static> {
    let structures = evidence.structures.iter().map(|found| {
        let (structure, relation) = (found.structure, found.relation.name());
        let (similarity, margin) = (score(found.similarity), score(found.margin));
        HasProperties.text(codes::EVIDENCE, &format!("{relation}: {structure} (similarity {similarity}, margin {margin})"))
    });
    let probability = evidence.probability.map(|value| Value::Number(score(value), codes::NO_UNITS));
    HasProperties
        .text(codes::SENTENCE_OF_ANSWER, text.get(evidence.range.clone()).unwrap_or_default())
        .with([HasProperties.text(codes::SUPPORT, evidence.support.name())])
        .with(probability.map(|value| HasProperties.item(codes::PROBABILITY, value)))
        .with(structures)
}
