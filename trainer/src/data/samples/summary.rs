//! `prepared.json`: what a prepared folder was made of, what was found beside the paper's counts, and what was skipped.

use super::config::Config;
use super::held_out::HeldOut;
use super::set::Set;
use crate::data::sources::skipped::{Outcome, Reason, Skipped};
use crate::data::sources::split::Split;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Version of the prepared folder's layout.
pub const VERSION: u32 = 1;

/// The summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the layout.
    pub version: u32,
    /// Version of the program that wrote it.
    pub trainer: String,
    /// The configuration.
    pub config: Config,
    /// SHA-256 of the templates.
    pub templates_sha256: String,
    /// The folder that paths of images are in, by source; relative to the prepared folder if that lies inside it.
    pub folders: BTreeMap<String, PathBuf>,
    /// Data sets that the configuration names no folder for.
    pub absent: Vec<String>,
    /// Numbers of images by source.
    pub images: BTreeMap<String, Images>,
    /// Numbers of images with boxes and sentences of structures, by split.
    pub annotated: BTreeMap<Split, u64>,
    /// Numbers of samples by set and split.
    pub sets: BTreeMap<String, BTreeMap<Split, Counts>>,
    /// Number of sentences of the database.
    pub sentences: usize,
    /// Numbers of patients whom data sets have in different splits.
    pub patients_in_several_splits: BTreeMap<String, u64>,
    /// What was skipped, changed and left out, by reason.
    pub skipped: BTreeMap<Reason, Skips>,
}

/// Numbers of images of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// By split.
    pub splits: BTreeMap<Split, u64>,
    /// Of patients who are in a more protected split elsewhere.
    pub held_out: u64,
}

/// Number of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// That were found.
    pub found: u64,
    /// That the paper has (table S1).
    pub paper: u64,
}

/// How often something was skipped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skips {
    /// What became of it.
    pub outcome: Outcome,
    /// The reason in words.
    pub text: String,
    /// The number.
    pub count: u64,
}

impl Summary {
    /// Begins a summary.
    pub fn new(config: &Config, templates_sha256: String, held: &HeldOut) -> Self {
        Self {
            version: VERSION,
            trainer: env!("CARGO_PKG_VERSION").into(),
            config: config.clone(),
            templates_sha256,
            folders: BTreeMap::new(),
            absent: absent(config),
            images: BTreeMap::new(),
            annotated: BTreeMap::new(),
            sets: BTreeMap::new(),
            sentences: 0,
            patients_in_several_splits: held.conflicts(),
            skipped: BTreeMap::new(),
        }
    }

    /// Takes the numbers of samples.
    pub fn count_samples(&mut self, counts: &BTreeMap<(Set, Split), u64>) {
        // Phantoms are in no table of the paper.
        let has_phantoms = counts.keys().any(|(set, _)| *set == Set::Phantom);
        for set in Set::every().filter(|set| *set != Set::Phantom || has_phantoms) {
            let of = |split| Counts { found: counts.get(&(set, split)).copied().unwrap_or_default(), paper: set.paper(split) };
            self.sets.insert(set.name().into(), Split::ALL.map(|split| (split, of(split))).into());
        }
    }

    /// Takes what was skipped.
    pub fn count_skipped(&mut self, skipped: &Skipped) {
        let skips =
            |(reason, count): (&Reason, &u64)| (*reason, Skips { outcome: reason.outcome(), text: reason.text().into(), count: *count });
        self.skipped = skipped.counts().iter().map(skips).collect();
    }

    /// The summary as text: the counts as a table, then what was skipped.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header(["sample set", "train", "paper", "validate", "paper", "test", "paper"]);
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        for set in Set::every().filter(|set| self.sets.contains_key(set.name())) {
            let counts = self.sets.get(set.name());
            let of = |split| counts.and_then(|counts| counts.get(&split)).map_or([0, 0], |c: &Counts| [c.found, c.paper]);
            let cells = Split::ALL.into_iter().flat_map(of).map(|count| count.to_string());
            table.add_row(std::iter::once(set.name().to_owned()).chain(cells));
        }
        let mut lines = vec![table.to_string(), String::new()];
        let by_split = |counts: &BTreeMap<Split, u64>| {
            Split::ALL.map(|split| format!("{} {}", counts.get(&split).copied().unwrap_or_default(), split.name())).join(", ")
        };
        lines.extend(
            self.images
                .iter()
                .map(|(source, counts)| format!("images of {source}: {}, {} held out", by_split(&counts.splits), counts.held_out)),
        );
        lines.push(format!("images with structures: {}; sentences of the database: {}", by_split(&self.annotated), self.sentences));
        let leaks = self.patients_in_several_splits.iter();
        lines.extend(leaks.map(|(splits, count)| format!("patients in two splits ({splits}): {count}")));
        for (outcome, name) in [(Outcome::Skipped, "skipped"), (Outcome::Changed, "changed"), (Outcome::LeftOut, "left out")] {
            let own = self.skipped.values().filter(|skips| skips.outcome == outcome);
            lines.extend(own.map(|skips| format!("{name}: {} times, {}", skips.count, skips.text)));
        }
        if !self.absent.is_empty() {
            lines.push(format!("not configured: {}", self.absent.join(", ")));
        }
        lines.join("\n")
    }
}

/// Data sets without a folder. Folders with a default, and phantoms, are none.
fn absent(config: &Config) -> Vec<String> {
    let is_no_set = |name: &str| ["padchest_gr_images", "mimic_cxr_reports", "phantom"].contains(&name);
    let named = config.sources.named().into_iter();
    named.filter(|(name, path)| path.is_none() && !is_no_set(name)).map(|(name, _)| name.to_owned()).collect()
}
