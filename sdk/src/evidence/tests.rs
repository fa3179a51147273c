use super::*;
use crate::results::Retrieved;
use rstest::rstest;

/// A study whose structures are healthy, but for some.
fn structures(findings: &[(&str, &str)]) -> Vec<StructureResult> {
    let found = |structure: Structure| {
        let finding = findings.iter().find(|(name, _)| *name == structure.name());
        let text = finding.map_or_else(|| format!("{structure} is healthy."), |(_, found)| format!("{structure} shows {found}."));
        let at = structure.index() as f32;
        let sentence = Retrieved { text, similarity: 0.9, margin: 0.1 };
        StructureResult { structure, bounds: PixelBox::new(at, at, at + 100.0, at + 100.0), sentence }
    };
    Structure::all().map(found).collect()
}

fn evidence(findings: &[(&str, &str)], question: &str, text: &str) -> Vec<SentenceEvidence> {
    let structures = structures(findings);
    Facts::new(&structures).evidence(&structures, question, text, &[], &[])
}

fn described(evidence: &SentenceEvidence) -> String {
    let structures = evidence.structures.iter().map(|of| format!("{} {}", of.relation.name(), of.structure.index()));
    [evidence.support.name().to_owned()].into_iter().chain(structures).collect::<Vec<_>>().join(", ")
}

const EFFUSION: &[(&str, &str)] = &[("Left lung", "pleural effusion"), ("Left costodiaphragmatic recess", "pleural effusion")];
const CONSOLIDATION: &[(&str, &str)] =
    &[("Right lung", "consolidation and lung opacity"), ("Right lower lung zone", "consolidation and lung opacity")];
const CATHETER: &[(&str, &str)] = &[("Mediastinum", "central venous catheter")];

#[rstest]
#[case(EFFUSION, "Left lung shows pleural effusion.", "supported, agrees 33, repeats 11")]
#[case(EFFUSION, "There is a left pleural effusion.", "supported, agrees 11, agrees 33")]
#[case(EFFUSION, "There is a right pleural effusion.", "contradicted, contradicts 20")]
#[case(EFFUSION, "There is no pleural effusion.", "contradicted, agrees 20, contradicts 11, contradicts 33")]
#[case(EFFUSION, "There is no pneumothorax.", "supported, agrees 11, agrees 20")]
#[case(EFFUSION, "There is a pneumothorax.", "unsupported, contradicts 20")]
#[case(EFFUSION, "The heart size is normal.", "supported, agrees 4")]
#[case(EFFUSION, "The heart is enlarged.", "contradicted, contradicts 4")]
#[case(EFFUSION, "No acute abnormality.", "contradicted, agrees 4, agrees 20, contradicts 11, contradicts 33")]
#[case(EFFUSION, "The patient is an adult.", "not_assessed")]
#[case(EFFUSION, "There is a left effusion, but no pneumothorax.", "supported, agrees 11, agrees 20, agrees 33")]
#[case(
    EFFUSION,
    "There is a left effusion and consolidation in the left lower lobe.",
    "contradicted, agrees 11, agrees 33, contradicts 10"
)]
#[case(CONSOLIDATION, "Consolidation in the right lower lobe.", "supported, agrees 19, agrees 20")]
#[case(CONSOLIDATION, "Opacity in the right lung.", "supported, agrees 19, agrees 20")]
#[case(CONSOLIDATION, "Consolidation in the right upper lobe.", "contradicted, agrees 20, contradicts 22")]
#[case(CONSOLIDATION, "The lungs are clear.", "contradicted, agrees 11, contradicts 19, contradicts 20")]
#[case(CATHETER, "The lungs are clear.", "supported, agrees 11, agrees 20")]
#[case(CATHETER, "No acute abnormality.", "supported, agrees 4, agrees 11, agrees 20")]
#[case(CATHETER, "A central line is in place.", "supported, agrees 14")]
#[case(CATHETER, "Support Devices", "supported, agrees 14")]
#[case(CATHETER, "A nasogastric tube is in place.", "unsupported")]
fn a_sentence_is_compared(#[case] findings: &[(&str, &str)], #[case] sentence: &str, #[case] expected: &str) {
    let [evidence] = evidence(findings, "", sentence).try_into().unwrap();
    let mut sorted: Vec<String> = described(&evidence).split(", ").map(Into::into).collect();
    sorted[1..]
        .sort_by_key(|part| (part.split(' ').next().map(ToOwned::to_owned), part.rsplit(' ').next().and_then(|n| n.parse::<u8>().ok())));
    assert_eq!(sorted.join(", "), expected);
}

#[rstest]
#[case("Is there a pleural effusion?", "Yes.", "supported")]
#[case("Is there a pleural effusion?", "No.", "contradicted")]
#[case("Is there a pneumothorax?", "No.", "supported")]
#[case("Where is the pleural effusion?", "On the left.", "supported")]
#[case("Where is the pleural effusion?", "In the right lung.", "contradicted")]
#[case("Is the heart size normal?", "Yes", "supported")]
#[case("Is the heart size normal?", "No", "contradicted")]
#[case("What is the view?", "Yes", "not_assessed")]
fn a_short_answer_states_what_its_question_asks(#[case] question: &str, #[case] answer: &str, #[case] expected: &str) {
    assert_eq!(evidence(EFFUSION, question, answer)[0].support.name(), expected);
}

#[test]
fn sentences_have_their_structures_boxes_groundings_and_probabilities() {
    let text = "There is a left pleural effusion. The heart is normal.";
    let structures = structures(EFFUSION);
    let box_of = |index: usize| structures[index].bounds;
    let phrases = [
        Grounding { phrase: "left pleural effusion".into(), boxes: vec![PixelBox::new(0.0, 0.0, 5.0, 5.0)] },
        Grounding { phrase: "heart".into(), boxes: vec![box_of(4)] },
    ];
    let marks = [(0, 0.5), (5, 0.7), (33, 0.9)].map(|(start, probability)| TokenMark { start, probability });
    let [effusion, heart] = Facts::new(&structures).evidence(&structures, "", text, &phrases, &marks).try_into().unwrap();
    assert_eq!((&text[effusion.range], &text[heart.range]), ("There is a left pleural effusion.", "The heart is normal."));
    assert_eq!((effusion.groundings, heart.groundings), (vec![0], vec![1]));
    assert!((effusion.probability.unwrap() - 0.6).abs() < 1e-6 && heart.probability == Some(0.9));
    assert_eq!((effusion.structures[0].similarity, effusion.structures[0].margin, effusion.structures[0].bounds), (0.9, 0.1, box_of(11)));
}

#[test]
fn a_box_of_a_named_structure_is_compared() {
    let structures = structures(&[]);
    let support = |bounds| {
        let phrases = [Grounding { phrase: "left lung".into(), boxes: vec![bounds] }];
        let evidence = Facts::new(&structures).evidence(&structures, "Where is the left lung?", "left lung", &phrases, &[]);
        (evidence[0].support, evidence[0].structures[0].relation)
    };
    assert_eq!(support(PixelBox::new(12.0, 12.0, 112.0, 112.0)), (Support::Supported, Relation::Agrees));
    assert_eq!(support(PixelBox::new(300.0, 300.0, 400.0, 400.0)), (Support::Contradicted, Relation::Contradicts));
}

#[test]
fn a_structure_is_listed_once_for_its_sentence_and_its_box() {
    let structures = structures(EFFUSION);
    let phrases = [Grounding { phrase: "left lung".into(), boxes: vec![structures[11].bounds] }];
    let text = "There is a pleural effusion of the left lung.";
    let evidence = Facts::new(&structures).evidence(&structures, "", text, &phrases, &[]);
    let listed: Vec<usize> = evidence[0].structures.iter().map(|of| of.structure.index()).collect();
    assert_eq!((evidence[0].support, listed), (Support::Supported, vec![11, 33]));
}

proptest::proptest! {
    #[test]
    fn any_text_has_evidence(text in "\\PC{0,80}", phrase in "\\PC{0,10}", starts in proptest::collection::vec(0usize..200, 0..20)) {
        let structures = structures(CONSOLIDATION);
        let marks: Vec<TokenMark> = starts.iter().map(|&start| TokenMark { start, probability: 0.5 }).collect();
        let phrases = [Grounding { phrase, boxes: vec![] }];
        let evidence = Facts::new(&structures).evidence(&structures, &text, &text, &phrases, &marks);
        assert!(evidence.iter().all(|of| text.is_char_boundary(of.range.start) && text.is_char_boundary(of.range.end)));
    }
}
