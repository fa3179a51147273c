//! Sentences and reports. Equal findings give equal texts.

use crate::findings::{Finding, Kind};
use crate::scene::Scene;
use anatomix::{Label, Structure};

/// The sentence on a structure, from the category and term of each finding in it.
///
/// ```
/// use anatomix::Structure;
/// let lung = Structure::LEFT_LUNG;
/// assert_eq!(anatomix_phantom::text::sentence(lung, &[]), "Left lung is healthy.");
/// ```
pub fn sentence(structure: Structure, attributes: &[(&str, &str)]) -> String {
    if attributes.is_empty() {
        return format!("{structure} is healthy.");
    }
    // Anatomical findings come first, then the other categories by name.
    let mut sorted = attributes.to_vec();
    sorted.sort_by_key(|&(category, term)| (category != "anatomicalfinding", category, term));
    let terms: Vec<&str> = sorted.iter().map(|&(_, term)| term).collect();
    format!("{structure} shows {}.", join(&terms))
}

impl Scene {
    /// The sentence on a structure: `NAME shows A and B.` or `NAME is healthy.`
    pub fn sentence(&self, structure: Structure) -> String {
        sentence(structure, &self.attributes(structure))
    }
}

/// "A", "A and B", "A, B and C".
pub fn join(items: &[&str]) -> String {
    match items {
        [] => String::new(),
        [one] => one.to_string(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The text with its first letter in upper case.
pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The text with "a" or "an" before it.
fn article(text: &str) -> String {
    if text.starts_with(['a', 'e', 'i', 'o', 'u']) { format!("an {text}") } else { format!("a {text}") }
}

/// The findings section of a report.
pub fn findings(scene: &Scene) -> String {
    let of = |kinds: &[Kind]| scene.findings.iter().filter(|f| kinds.contains(&f.kind)).collect::<Vec<&Finding>>();
    let one = |kind| of(&[kind]).first().copied();
    let mut lines = Vec::new();
    let lungs = of(&[Kind::Consolidation, Kind::Pneumonia, Kind::Atelectasis, Kind::LungLesion, Kind::Edema]);
    for finding in &lungs {
        lines.push(match finding.kind {
            Kind::LungLesion => format!("There is a {}.", finding.phrase()),
            _ => format!("There is {}.", finding.phrase()),
        });
    }
    if lungs.is_empty() {
        lines.push("The lungs are clear.".into());
    }
    let pleura = of(&[Kind::PleuralEffusion, Kind::Pneumothorax, Kind::PleuralThickening]);
    for finding in &pleura {
        lines.push(match finding.kind {
            Kind::PleuralThickening => format!("There is {}.", finding.phrase()),
            _ => format!("There is a {}.", finding.phrase()),
        });
    }
    if pleura.is_empty() {
        lines.push("There is no pleural effusion or pneumothorax.".into());
    }
    lines.push(if one(Kind::Cardiomegaly).is_some() { "The heart is enlarged." } else { "The heart size is normal." }.into());
    lines.push(
        if one(Kind::EnlargedMediastinum).is_some() { "The mediastinum is widened." } else { "The mediastinal contours are normal." }
            .into(),
    );
    lines.push(match one(Kind::Fracture) {
        Some(finding) => format!("There is a {}.", finding.phrase()),
        None => "No fracture is seen.".into(),
    });
    for finding in scene.findings.iter().filter(|f| f.kind.is_device()) {
        lines.push(format!("{} is in place.", capitalize(&article(&finding.phrase()))));
    }
    lines.join(" ")
}

/// The impression of a report.
pub fn impression(scene: &Scene) -> String {
    let phrases: Vec<String> = scene.findings.iter().filter(|f| !f.kind.is_device()).map(Finding::phrase).collect();
    if phrases.is_empty() {
        return "No acute abnormality.".into();
    }
    let phrases: Vec<&str> = phrases.iter().map(String::as_str).collect();
    format!("{}.", capitalize(&join(&phrases)))
}

/// The report as an answer: findings, a line break, impression.
pub fn report(scene: &Scene) -> String {
    format!("Findings: {}\nImpression: {}", findings(scene), impression(scene))
}

/// The labels that apply, in index order, separated by commas.
pub fn labels(scene: &Scene) -> String {
    let flags = scene.labels();
    let names: Vec<&str> = Label::ALL.iter().filter(|l| flags[l.index()]).map(|l| l.name()).collect();
    names.join(", ")
}
