//! Figures as a Markdown table, with the floors that the reference bundle must reach.

use super::figures::Figures;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

struct Row {
    name: String,
    value: Option<f64>,
    /// Smallest accepted value; `None` if the figure has no floor.
    floor: Option<f64>,
    count: usize,
}

/// Formats figures as a table.
pub fn table(figures: &Figures) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["figure", "measured", "floor", "", "count"]);
    for column in [1, 2, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows(figures) {
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.3}"));
        let verdict = match (row.value, row.floor) {
            (Some(value), Some(floor)) if value >= floor => "reached",
            (_, Some(_)) => "MISSED",
            _ => "",
        };
        table.add_row([row.name, number(row.value), number(row.floor), verdict.into(), row.count.to_string()]);
    }
    format!("{table}\n{}", footer(figures))
}

fn rows(figures: &Figures) -> Vec<Row> {
    let flip = figures.flip;
    // Floors of the original images and of the mirrored ones.
    let floor = |plain: f64, mirrored: Option<f64>| if flip { mirrored } else { Some(plain) };
    let row = |name: &str, value, floor, count| Row { name: name.into(), value, floor, count };
    let (apm, retrieval) = (&figures.apm, &figures.retrieval);
    let mut rows = vec![
        row("perception: IoU, 36 structures", apm.iou, floor(0.80, Some(0.78)), apm.count),
        row(
            &format!("perception: IoU of the worst, {}", apm.worst_structure.map_or("none", |s| s.name())),
            apm.worst,
            floor(0.50, None),
            apm.worst_structure.and_then(|s| apm.counts.get(s.name()).copied()).unwrap_or_default(),
        ),
        row("perception: 14 labels, macro F1", apm.labels.macro_f1, None, figures.images),
        row("retrieval: exact sentence", retrieval.exact, floor(0.85, None), retrieval.count),
        row("retrieval: exact, with a finding", retrieval.exact_with_finding, floor(0.50, None), retrieval.count_with_finding),
    ];
    for (&name, task) in &figures.tasks {
        let floors: &[(&str, Option<f64>)] = match name {
            "anatomy_grounding" => &[("IoU", floor(0.75, Some(0.72)))],
            "phrase_grounding" => &[("IoU", floor(0.46, None))],
            "closed_question" => &[("accuracy", floor(0.85, None))],
            "classification" => &[("macro F1", floor(0.70, None))],
            "report" => &[("ROUGE-1", floor(0.60, None))],
            _ => &[],
        };
        let boxes = task.count_with_boxes.unwrap_or_default();
        let labels = task.labels.as_ref();
        for (what, value, count) in [
            ("IoU", task.iou, boxes),
            ("IoU of answers with boxes", task.iou_answered, task.count_answered.unwrap_or_default()),
            ("normal images, answered as normal", task.normal_exact, task.count - boxes.min(task.count)),
            ("accuracy", task.accuracy, task.count),
            ("macro F1", labels.and_then(|l| l.macro_f1), task.count),
            ("micro F1", labels.and_then(|l| l.micro_f1), task.count),
            ("ROUGE-1", task.rouge1, task.count),
            ("equal to the expected answer", task.exact, task.count),
        ] {
            let floor = floors.iter().find(|f| f.0 == what).and_then(|f| f.1);
            if value.is_some() {
                rows.push(row(&format!("{}: {what}", name.replace('_', " ")), value, floor, count));
            }
        }
    }
    for (support, evidence) in &figures.evidence {
        rows.push(row(&format!("report: wrong sentences among the {}", support.replace('_', " ")), evidence.wrong, None, evidence.count));
    }
    rows
}

fn footer(figures: &Figures) -> String {
    let mut weakest: Vec<(&str, f64)> = figures.apm.per_structure.iter().map(|(&name, &iou)| (name, iou)).collect();
    weakest.sort_by(|a, b| a.1.total_cmp(&b.1));
    let weakest: Vec<String> = weakest.iter().take(5).map(|(name, iou)| format!("{name} {iou:.2}")).collect();
    let timing = &figures.timing_ms;
    let steps: Vec<String> = timing.study.iter().map(|(step, value)| format!("{step} {value:.0}")).collect();
    let answers: Vec<String> =
        figures.tasks.iter().filter_map(|(name, task)| Some(format!("{} {:.0}", name.replace('_', " "), task.milliseconds?))).collect();
    format!(
        "weakest structures: {}\nmedian ms, {} images in parallel, {} threads: {}; answers: {}\n{} on {} {}images, {}",
        weakest.join(", "),
        timing.workers,
        timing.threads,
        steps.join(", "),
        answers.join(", "),
        figures.bundle,
        figures.images,
        if figures.flip { "mirrored " } else { "" },
        figures.provider,
    )
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Apm, Evidence, Retrieval, TaskFigures, Timings};
    use super::super::image::{Answered, ImageResult, Localised, Outcome};
    use super::*;
    use anatomix::Task;
    use anatomix::Timing;
    use anatomix::{LABEL_COUNT, STRUCTURE_COUNT};

    #[test]
    fn the_table_shows_which_floors_are_reached() {
        let answered = |task, outcome| Answered { task, outcome, milliseconds: 10.0, tokens: 3, sentences: vec![] };
        let mut timing = Timing::default();
        timing.perceive = Some(20.0);
        let seen = [ImageResult {
            structures: [Some(Localised { iou: 0.79, finding: true, exact: false }); STRUCTURE_COUNT],
            expected_labels: Some([true; LABEL_COUNT]),
            labels: [true; LABEL_COUNT],
            timing,
            answers: vec![answered(Task::ClosedQuestion, Outcome::Choice(true)), answered(Task::PhraseGrounding, Outcome::Boxes(None))],
        }];
        let figures = |flip| Figures {
            bundle: "reference".into(),
            bundle_sha256: String::new(),
            provider: "cpu".into(),
            images: 1,
            flip,
            apm: Apm::of(&seen),
            retrieval: Retrieval::of(&seen),
            tasks: TaskFigures::by_task(&seen),
            evidence: Evidence::by_support(&seen),
            timing_ms: Timings::of(&seen, 2, 1),
        };
        let line = |text: &str, name: &str| text.lines().find(|l| l.contains(name)).unwrap_or_default().to_string();
        let plain = table(&figures(false));
        let perceived = line(&plain, "IoU, 36 structures");
        assert!(perceived.contains("0.790") && perceived.contains("0.800") && perceived.contains("MISSED"), "{plain}");
        assert!(line(&plain, "closed question: accuracy").contains("reached"), "{plain}");
        assert!(line(&plain, "phrase grounding: IoU").contains("MISSED"), "{plain}");
        assert!(line(&table(&figures(true)), "IoU, 36 structures").contains("reached"));
        println!("{plain}");
    }
}
