//! The text of a study's context.

use super::form::PromptForm;
use crate::anatomy::Structure;
use crate::retrieval::{is_finding, noted};

/// The line of one structure in the context.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextLine {
    /// The structure.
    pub structure: Structure,
    /// The structure's box as `x0, y0, x1, y1`, integers 0..=1024 over the letterboxed square.
    pub grid: [u32; 4],
    /// The sentence that was retrieved for the structure.
    pub sentence: String,
}

/// The text of a context with this many image tokens. Each part of it begins with a line break, as does the question after it.
pub(super) fn context_text(form: &PromptForm, lines: &[ContextLine], image_tokens: usize) -> String {
    let mut text = String::from("<bos><start_of_turn>user");
    if let Some(system) = &form.system {
        text += &format!("\n{}\n", system.trim());
    }
    if form.inputs.image_tokens {
        let image = format!("<image_start>{}<image_end>", "<image>".repeat(image_tokens));
        text += &if form.compact { format!("\n{image}") } else { format!("\nImage: \n\n{image}\n\n") };
    }
    match (form.inputs.has_structures(), form.compact) {
        (false, _) => {}
        (true, true) => text += &compact_lines(form, lines),
        (true, false) => {
            text += "\nLikely findings:";
            lines.iter().for_each(|line| text += &format!("\n{}", form_line(form, line)));
        }
    }
    text
}

/// One line of the published context.
pub fn line_text(line: &ContextLine) -> String {
    form_line(&PromptForm::default(), line)
}

fn form_line(form: &PromptForm, line: &ContextLine) -> String {
    let inputs = form.inputs;
    let parts = [
        inputs.object_embeddings.then(|| format!("emb:<emb><obj_{}></emb>", line.structure.index())),
        inputs.boxes.then(|| format!("box:{}", box_text(&line.grid))),
        inputs.sentences.then(|| line.sentence.clone()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The structures in few tokens: findings in a line each, healthy structures in one line. Without sentences all are in one line, whose
/// order says which is which.
fn compact_lines(form: &PromptForm, lines: &[ContextLine]) -> String {
    let inputs = form.inputs;
    let features = |line: &ContextLine| {
        let object = if inputs.object_embeddings { format!("<obj_{}>", line.structure.index()) } else { String::new() };
        let [x0, y0, x1, y1] = line.grid;
        if inputs.boxes { format!("{object}<box>{x0},{y0},{x1},{y1}</box>") } else { object }
    };
    if !inputs.sentences {
        return format!("\nStructures:{}", lines.iter().map(features).collect::<String>());
    }
    let (found, healthy): (Vec<_>, Vec<_>) = lines.iter().partition(|line| is_finding(&line.sentence));
    let mut text = String::new();
    if !found.is_empty() {
        text += "\nFindings:";
    }
    for line in found {
        text += &format!("\n{}{}: {}", features(line), line.structure.short_name(), noted(line.structure, &line.sentence));
    }
    if !healthy.is_empty() {
        let healthy: Vec<String> = healthy.into_iter().map(|line| features(line) + line.structure.short_name()).collect();
        text += &format!("\nHealthy:{}", healthy.join(","));
    }
    text
}

/// A phrase with its box, as in answers.
pub fn grounded_text(phrase: &str, grid: &[u32; 4]) -> String {
    format!("<ref>{phrase}</ref>{}", box_text(grid))
}

fn box_text([x0, y0, x1, y1]: &[u32; 4]) -> String {
    format!("<box>({x0},{y0}),({x1},{y1})</box>")
}

#[cfg(test)]
mod tests {
    use super::super::form::PromptInputs;
    use super::*;

    fn lines() -> Vec<ContextLine> {
        let line = |name: &str, grid, sentence: &str| ContextLine {
            structure: Structure::from_name(name).unwrap(),
            grid,
            sentence: sentence.into(),
        };
        vec![
            line("Left lung", [500, 100, 900, 800], "Left lung shows edema and pleural effusion."),
            line("Right lung", [100, 100, 480, 800], "Right lung is healthy."),
            line("Vertebral column", [470, 0, 550, 1024], "Vertebral column is healthy."),
        ]
    }

    fn text(inputs: &str, compact: bool) -> String {
        let inputs = PromptInputs::try_from(inputs.to_string()).unwrap();
        context_text(&PromptForm { inputs, compact, ..PromptForm::default() }, &lines(), 2)
    }

    const START: &str = "<bos><start_of_turn>user";
    const IMAGE: &str = "<image_start><image><image><image_end>";

    /// The seven rows of the paper's tables of ablations, and what else there is.
    #[test]
    fn the_published_words_with_any_inputs() {
        let image = format!("\nImage: \n\n{IMAGE}\n\n");
        let objects = ["emb:<emb><obj_11></emb>", "emb:<emb><obj_20></emb>", "emb:<emb><obj_30></emb>"];
        let boxes = ["box:<box>(500,100),(900,800)</box>", "box:<box>(100,100),(480,800)</box>", "box:<box>(470,0),(550,1024)</box>"];
        for (inputs, parts) in [
            (
                "VOSB",
                vec![
                    objects,
                    boxes,
                    ["Left lung shows edema and pleural effusion.", "Right lung is healthy.", "Vertebral column is healthy."],
                ],
            ),
            ("VO", vec![objects]),
            ("VS", vec![["Left lung shows edema and pleural effusion.", "Right lung is healthy.", "Vertebral column is healthy."]]),
            ("VB", vec![boxes]),
            ("VOB", vec![objects, boxes]),
            ("OB", vec![objects, boxes]),
            ("B", vec![boxes]),
        ] {
            let shown = if inputs.starts_with('V') { image.as_str() } else { "" };
            let line = |i: usize| parts.iter().map(|part| part[i]).collect::<Vec<_>>().join(" ");
            let expected = format!("{START}{shown}\nLikely findings:\n{}\n{}\n{}", line(0), line(1), line(2));
            assert_eq!(text(inputs, false), expected, "{inputs}");
        }
        assert_eq!(text("V", false), format!("{START}{image}"));
    }

    /// Compact prompts are part of weights: their bytes never change.
    #[test]
    fn compact_words() {
        let findings = "\nFindings:\n<obj_11><box>500,100,900,800</box>Left lung: edema and pleural effusion";
        let healthy = "\nHealthy:<obj_20><box>100,100,480,800</box>Right lung,<obj_30><box>470,0,550,1024</box>Spine";
        assert_eq!(text("VOSB", true), format!("{START}\n{IMAGE}{findings}{healthy}"));
        assert_eq!(text("S", true), format!("{START}\nFindings:\nLeft lung: edema and pleural effusion\nHealthy:Right lung,Spine"));
        let boxes = "<box>500,100,900,800</box><box>100,100,480,800</box><box>470,0,550,1024</box>";
        assert_eq!(text("B", true), format!("{START}\nStructures:{boxes}"));
        assert_eq!(text("V", true), format!("{START}\n{IMAGE}"));
        let form = PromptForm { compact: true, ..PromptForm::default() };
        assert!(!context_text(&form, &lines()[1..], 2).contains("Findings"));
        assert!(!context_text(&form, &lines()[..1], 2).contains("Healthy"));
    }

    #[test]
    fn a_system_prompt_precedes_the_context() {
        let form = PromptForm { system: Some(" Read it.\n".into()), ..PromptForm::default() };
        let plain = context_text(&PromptForm::default(), &lines(), 2);
        assert_eq!(context_text(&form, &lines(), 2), plain.replacen("user\n", "user\nRead it.\n\n", 1));
    }
}
