//! Templates of questions and answers. A question is always drawn with its own answer.

use anatomix::Task;
use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde::Deserialize;
use std::path::Path;

/// The templates of this program.
const OWN: &str = include_str!("../../../data/templates.toml");
/// Largest file of templates in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A question with its answer; both have placeholders in braces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// The answer if there is nothing to name.
    pub none: Option<String>,
}

impl Template {
    /// Whether the question offers diagnoses to choose from.
    pub fn has_options(&self) -> bool {
        self.question.contains("{options}")
    }
}

/// The templates of each task.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Templates {
    anatomy_grounding: Vec<Template>,
    phrase_grounding: Vec<Template>,
    grounded_diagnosis: Vec<Template>,
    grounded_captioning: Vec<Template>,
    abnormality_detection: Vec<Template>,
    classification: Vec<Template>,
    report: Vec<Template>,
}

/// Placeholders that a task's questions and answers must have, and those that they may have.
struct Rule {
    task: Task,
    question: &'static [&'static str],
    answer: &'static [&'static str],
    optional: &'static [&'static str],
}

const RULES: [Rule; 7] = [
    Rule { task: Task::AnatomyGrounding, question: &["structure"], answer: &["structure", "boxes"], optional: &[] },
    Rule { task: Task::PhraseGrounding, question: &["phrase"], answer: &["boxes"], optional: &["phrase"] },
    Rule { task: Task::GroundedDiagnosis, question: &["region"], answer: &[], optional: &["finding", "options", "letter"] },
    Rule { task: Task::GroundedCaptioning, question: &["region"], answer: &["phrase"], optional: &[] },
    Rule { task: Task::AbnormalityDetection, question: &[], answer: &["findings"], optional: &[] },
    Rule { task: Task::Classification, question: &[], answer: &["labels"], optional: &[] },
    Rule { task: Task::Report, question: &[], answer: &["findings", "impression"], optional: &[] },
];

impl Templates {
    /// Reads a file of templates, or this program's own. Returns them with the bytes that they were read from.
    ///
    /// # Errors
    /// If the file cannot be read, or a template lacks a placeholder or has one that its task does not know.
    pub fn read(path: Option<&Path>) -> Result<(Self, Vec<u8>)> {
        let Some(path) = path else { return Ok((Self::parse(OWN)?, OWN.into())) };
        let bytes = anatomix::parts::files::read(path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not text in UTF-8", path.display()))?;
        Ok((Self::parse(text).with_context(|| format!("{} is not a file of templates", path.display()))?, bytes))
    }

    fn parse(text: &str) -> Result<Self> {
        let templates: Self = toml::from_str(text)?;
        for rule in &RULES {
            let own = templates.of(rule.task);
            ensure!(own.iter().any(|t| !t.has_options()), "{} needs a template without options", rule.task);
            own.iter().try_for_each(|template| rule.check(template))?;
        }
        Ok(templates)
    }

    /// The templates of a task; none for the tasks whose questions are published.
    pub fn of(&self, task: Task) -> &[Template] {
        match task {
            Task::AnatomyGrounding => &self.anatomy_grounding,
            Task::PhraseGrounding => &self.phrase_grounding,
            Task::GroundedDiagnosis => &self.grounded_diagnosis,
            Task::GroundedCaptioning => &self.grounded_captioning,
            Task::AbnormalityDetection => &self.abnormality_detection,
            Task::Classification => &self.classification,
            Task::Report => &self.report,
            _ => &[],
        }
    }

    /// Draws a template of a task; one with options only if `options` is true.
    pub fn draw(&self, task: Task, options: bool, rng: &mut impl Rng) -> &Template {
        let own: Vec<&Template> = self.of(task).iter().filter(|t| options || !t.has_options()).collect();
        own.choose(rng).unwrap_or_else(|| unreachable!("tasks with templates have one without options"))
    }
}

impl Rule {
    fn check(&self, template: &Template) -> Result<()> {
        let (task, question) = (self.task, &template.question);
        let parts = [(question, self.question), (&template.answer, self.answer)];
        for (text, needed) in parts {
            let found = placeholders(text);
            for name in needed {
                ensure!(found.contains(name), "{task}: {text:?} lacks {{{name}}}");
            }
            for name in found {
                ensure!(needed.contains(&name) || self.optional.contains(&name), "{task}: {text:?} has the unknown placeholder {{{name}}}");
            }
        }
        let letters = placeholders(&template.answer).contains(&"letter");
        ensure!(letters == template.has_options(), "{task}: {question:?} has {{options}} or its answer {{letter}}, but not both");
        let names = ["finding", "letter"].iter().any(|name| placeholders(&template.answer).contains(name));
        ensure!(task != Task::GroundedDiagnosis || names, "{task}: {:?} lacks {{finding}} or {{letter}}", template.answer);
        ensure!(template.none.is_some() == (task == Task::AbnormalityDetection), "{task}: {question:?} has or lacks `none`");
        Ok(())
    }
}

/// Names in braces.
fn placeholders(text: &str) -> Vec<&str> {
    text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect()
}

/// Puts values in the places of their names. Braces in a value stay as they are.
pub fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut parts = text.split('{');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let known = part.split_once('}').and_then(|(name, rest)| Some((values.iter().find(|(known, _)| *known == name)?.1, rest)));
        match known {
            Some((value, rest)) => {
                out.push_str(value);
                out.push_str(rest);
            }
            None => {
                out.push('{');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn anatomy_grounding_has_twenty_questions_and_answers() {
        let (templates, _) = Templates::read(None).unwrap();
        let own = templates.of(Task::AnatomyGrounding);
        let distinct = |part: fn(&Template) -> &String| own.iter().map(part).collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!((own.len(), distinct(|t| &t.question), distinct(|t| &t.answer)), (20, 20, 20));
    }

    #[test]
    fn templates_with_wrong_placeholders_are_refused() {
        let parse = |from: &str, to: &str| {
            assert!(OWN.contains(from), "{from}");
            format!("{:#}", Templates::parse(&OWN.replacen(from, to, 1)).unwrap_err())
        };
        assert!(parse("\"Where is the {structure}?\"", "\"Where?\"").contains("lacks {structure}"));
        assert!(parse("\"Mark the {structure}.\"", "\"Mark the {structure} {x}.\"").contains("unknown placeholder {x}"));
        assert!(parse("\"({letter}) {finding}\"", "\"{finding}\"").contains("but not both"));
        assert!(parse("none = \"No finding\"", "").contains("`none`"));
        assert!(parse("[[report]]", "[[reports]]").contains("reports"));
    }

    #[test]
    fn values_are_put_in_once() {
        let values = [("a", "{b}"), ("b", "2")];
        assert_eq!(fill("{a} {b} {c} {", &values), "{b} 2 {c} {");
    }

    #[test]
    fn questions_without_options_are_drawn_if_there_are_none() {
        let (templates, _) = Templates::read(None).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut drawn = |options| (0..100).filter(|_| templates.draw(Task::GroundedDiagnosis, options, &mut rng).has_options()).count();
        assert_eq!(drawn(false), 0);
        assert!(drawn(true) > 10);
    }
}
