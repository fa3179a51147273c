//! Results as text for people.

use crate::common::Failure;
use crate::shown::{out, remark};
use anatomix::parts::retrieval::is_finding;
use anatomix::{Answer, Finish, Flag, Provenance, Relation, SentenceEvidence, Severity, StructureResult, Study, Support, Timing};

/// Width of a label's bar in characters.
const BAR: usize = 20;

/// Prints a study: structures with findings, the other structures, labels, provenance, flags.
pub fn study(study: &Study) -> Result<(), Failure> {
    let mut out = out();
    out.line(format_args!("{}  {} x {}", study.name(), study.width(), study.height()))?;
    let (findings, others): (Vec<_>, Vec<_>) = study.structures().iter().partition(|found| is_finding(&found.sentence.text));
    let widths = Widths::of(study.structures());
    for (title, structures) in [("Findings", findings), ("Other structures", others)] {
        if !structures.is_empty() {
            out.line("")?;
            out.line(widths.line([&format!("{title} ({})", structures.len()), "Box", "Similarity", "Margin", "Sentence"]))?;
        }
        for found in structures {
            let sentence = &found.sentence;
            let similarity = format!("{:.2}", sentence.similarity);
            // With a single sentence there was no choice, and the margin is that to the least similarity.
            let margin = if sentence.margin < sentence.similarity + 1.0 { format!("{:.3}", sentence.margin) } else { "-".into() };
            let cells = [found.structure.name(), &found.bounds.to_string(), &similarity, &margin, &sentence.text];
            out.line(widths.line(cells))?;
        }
    }
    out.line("")?;
    out.line(format_args!("Labels ({})", study.provenance().scores))?;
    let mut labels: Vec<_> = study.labels().iter().collect();
    labels.sort_by(|a, b| b.score.total_cmp(&a.score));
    for one in labels {
        out.line(format_args!("  {:<28}{:>5.2}  {}", one.label, one.score, bar(one.score)))?;
    }
    out.line("")?;
    out.line(origin(study.provenance(), study.timing()))?;
    flags(study.flags());
    Ok(())
}

/// Prints an answer's groundings. Its text was printed before.
pub fn groundings(answer: &Answer) -> Result<(), Failure> {
    let mut out = out();
    let width = answer.groundings.iter().map(|g| g.phrase.chars().count()).max().unwrap_or(0);
    if answer.groundings.iter().any(|grounding| !grounding.boxes.is_empty()) {
        out.line("")?;
    }
    for grounding in &answer.groundings {
        for bounds in &grounding.boxes {
            out.line(format_args!("  {:<width$}  {bounds}", grounding.phrase))?;
        }
    }
    Ok(())
}

/// Prints on standard error why an answer is incomplete, if it is.
pub fn cut(finish: Finish) {
    let why = match finish {
        Finish::MaxTokens => "it reached the limit of --max-tokens, or the end of the model's context, which a long conversation fills",
        Finish::Stopped => "it was stopped",
        Finish::Deadline => "its deadline passed; allow more time with --deadline",
        Finish::Memory => "it would have taken more memory than --memory-limit allows",
        _ => return,
    };
    remark(&format!("note: the answer is incomplete: {why}"));
}

/// Largest number of structures that are named against a sentence.
const MAX_NAMED: usize = 3;

/// Prints on standard error which sentences of an answer are contradicted or not supported by what was perceived.
pub fn doubts(answer: &Answer, perceived: &[StructureResult]) {
    for of in &answer.evidence {
        let why = match of.support {
            Support::Contradicted => contrary(of, perceived),
            Support::Unsupported => "nothing that was perceived says so".into(),
            _ => continue,
        };
        let sentence = answer.text.get(of.range.clone()).unwrap_or_default();
        remark(&format!("warning: {}: \"{}\" ({why})", of.support.name(), sentence.trim()));
    }
}

/// What was perceived instead: sentences and boxes of the structures that contradict a sentence.
fn contrary(of: &SentenceEvidence, perceived: &[StructureResult]) -> String {
    let against: Vec<_> = of.structures.iter().filter(|found| found.relation == Relation::Contradicts).collect();
    let named = against.iter().take(MAX_NAMED).filter_map(|found| {
        let StructureResult { sentence, bounds, .. } = perceived.get(found.structure.index())?;
        Some(format!("\"{}\" at {bounds}", sentence.text))
    });
    let named: Vec<String> = named.collect();
    let more = against.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("perceived: {}{more}", named.join(", "))
}

/// Prints flags on standard error.
pub fn flags(flags: &[Flag]) {
    for flag in flags {
        let severity = match flag.severity {
            Severity::Info => "note",
            _ => "warning",
        };
        remark(&format!("{severity}: {}: {}", flag.code.name(), flag.message));
    }
}

/// A line on a result's provenance and timing.
pub fn origin(provenance: &Provenance, timing: &Timing) -> String {
    let Provenance { sdk, bundle, bundle_sha256, provider, precision, intended_use, .. } = provenance;
    let hash: String = bundle_sha256.chars().take(12).collect();
    let times: Vec<String> = timing.steps().map(|(step, milliseconds)| format!("{step} {milliseconds:.0} ms")).collect();
    format!("anatomix {sdk}, bundle {bundle} ({hash}), {provider}, {precision}; {}; {intended_use}", times.join(", "))
}

/// Widths of the table's first columns.
struct Widths {
    name: usize,
    bounds: usize,
}

impl Widths {
    fn of(structures: &[StructureResult]) -> Self {
        let widest = |length: fn(&StructureResult) -> usize| structures.iter().map(length).max().unwrap_or(0);
        Self { name: widest(|s| s.structure.name().len()), bounds: widest(|s| s.bounds.to_string().len()) }
    }

    fn line(&self, [name, bounds, similarity, margin, sentence]: [&str; 5]) -> String {
        let Self { name: first, bounds: second } = self;
        format!("  {name:<first$}  {bounds:<second$}  {similarity:>10}  {margin:>6}  {sentence}")
    }
}

/// A bar whose length is the score, to an eighth of a character.
fn bar(score: f32) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (score.clamp(0.0, 1.0) * (BAR * 8) as f32).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS.get(eighths % 8).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_eighths() {
        assert_eq!(bar(1.0), "█".repeat(BAR));
        assert_eq!(bar(0.5 + 1.0 / 160.0), format!("{}▏", "█".repeat(BAR / 2)));
        assert_eq!((bar(0.0), bar(-1.0), bar(f32::NAN)), (String::new(), String::new(), String::new()));
    }
}
