//! RadGraph: entities of a report, found by a BERT with a head over spans of words (DyGIE), and their F1 between two reports.
//!
//! The paper takes the level `simple` of the Python package `radgraph`: an entity is its words and its label. Relations play no part in it.

use super::hidden::hidden;
use crate::graph::{Activation, Linear, Ops, Torch, TorchTensor};
use crate::import::encoder::{Encoder, Wanted, open};
use anatomix::parts::files;
use anyhow::{Context, Result, anyhow, bail, ensure};
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;
use tch::{Kind, Tensor};

/// Words and runs of other marks.
static WORDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w+|[^\w\s]+").expect("a valid pattern"));
/// Prefix of the encoder's parameters.
const ENCODER: &str = "_embedder.token_embedder_bert._matched_embedder.transformer_model.";
/// End of the name of the file with the entities' labels.
const LABELS: &str = "__ner_labels.txt";
/// Spans that are scored together.
const SPANS: i64 = 4096;
/// Largest number of words of a report, so that its states fit into memory.
const MAX_WORDS: usize = 1 << 14;
/// Largest configuration or list of labels in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// An entity: its words and its label.
pub type Entity = (String, String);

/// What is used of the model's `config.json`.
#[derive(Deserialize)]
struct Config {
    dataset_reader: Reader,
    model: Model,
}

#[derive(Deserialize)]
struct Reader {
    max_span_width: i64,
}

#[derive(Deserialize)]
struct Model {
    feature_size: i64,
    feedforward_params: Forward,
}

#[derive(Deserialize)]
struct Forward {
    num_layers: i64,
    hidden_dims: i64,
}

/// The model.
pub struct RadGraph {
    encoder: Encoder,
    /// Tokens for beginning and end.
    special: [u32; 2],
    /// Labels of entities; the first one is no entity.
    labels: Vec<String>,
    /// Name of the head over spans.
    head: String,
    config: Config,
}

impl RadGraph {
    /// Opens a folder with the unpacked model, `config.json`, `weights.th` and `vocabulary`, and in its folder `bert` the `config.json` and
    /// the tokenizer of the encoder that `config.json` names.
    ///
    /// # Errors
    /// If a file is missing or does not fit.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let bytes = files::read(&path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Config =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is not that of a RadGraph model", path.display()))?;
        let (width, features, layers, inner) = (
            config.dataset_reader.max_span_width,
            config.model.feature_size,
            config.model.feedforward_params.num_layers,
            config.model.feedforward_params.hidden_dims,
        );
        let sizes = (1..=64).contains(&width) && (1..=1024).contains(&features) && (1..=8).contains(&layers) && (1..=8192).contains(&inner);
        ensure!(sizes, "{} has a size that no RadGraph model has", path.display());
        let (name, labels) = labels(&folder.join("vocabulary"))?;
        let head = format!("_ner._ner_scorers.{name}__ner_labels");
        let rename = |name: &str| match name.strip_prefix(ENCODER) {
            Some(own) => Some(own.to_owned()),
            None => (name.starts_with(&head) || name.starts_with("_endpoint_span_extractor.")).then(|| name.to_owned()),
        };
        let classes = labels.len() as i64 - 1;
        let heads = |hidden: i64| {
            let mut shapes = vec![("_endpoint_span_extractor._span_width_embedding.weight".to_owned(), vec![width, features])];
            let mut linear = |name: String, inputs: i64, outputs: i64| {
                shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
                shapes.push((format!("{name}.bias"), vec![outputs]));
            };
            for layer in 0..layers {
                linear(format!("{head}.0._module._linear_layers.{layer}"), if layer == 0 { 2 * hidden + features } else { inner }, inner);
            }
            linear(format!("{head}.1._module"), inner, classes);
            shapes
        };
        let own = folder.join("bert");
        ensure!(own.is_dir(), "{} is missing; put the encoder's config.json and tokenizer there", own.display());
        let wanted = Wanted { layers: None, file: Some(folder.join("weights.th")), rename: &rename, heads: &heads };
        let encoder = open(&own, &wanted)?;
        ensure!(encoder.config.positions > 2, "{} has a BERT of {} positions", own.display(), encoder.config.positions);
        let id = |token: &str| {
            encoder.tokenizer.token_to_id(token).with_context(|| format!("{} has a tokenizer without {token}", own.display()))
        };
        let special = [id("[CLS]")?, id("[SEP]")?];
        Ok(Self { encoder, special, labels, head, config })
    }

    /// F1 of the entities of each expected text and the predicted one; 0 if one of them is empty or has no entities.
    ///
    /// # Errors
    /// If a text cannot be tokenized, or is too long.
    pub fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f64>> {
        let one = |&(expected, found): &(&str, &str)| {
            if expected.is_empty() || found.is_empty() {
                return Ok(0.0);
            }
            Ok(f1(&self.entities(expected)?, &self.entities(found)?))
        };
        pairs.iter().map(one).collect()
    }

    /// The entities of a report.
    ///
    /// # Errors
    /// If it cannot be tokenized, or is too long.
    pub fn entities(&self, report: &str) -> Result<BTreeSet<Entity>> {
        let words = words(report);
        ensure!(words.len() <= MAX_WORDS, "a report of {} words is too long for RadGraph", words.len());
        if words.is_empty() {
            return Ok(BTreeSet::new());
        }
        let states = self.states(&words)?;
        let (count, most) = (words.len() as i64, self.config.dataset_reader.max_span_width);
        let mut found = BTreeSet::new();
        // Spans of all starts in a block, by start and then by end.
        for from in (0..count).step_by((SPANS / most).max(1) as usize) {
            let to = (from + (SPANS / most).max(1)).min(count);
            let spans: Vec<(i64, i64)> =
                (from..to).flat_map(|start| (start..(start + most).min(count)).map(move |end| (start, end))).collect();
            for (&(start, end), label) in spans.iter().zip(self.judge(&states, &spans)?) {
                if label > 0 {
                    found.insert((words[start as usize..=end as usize].join(" "), self.labels[label as usize].clone()));
                }
            }
        }
        Ok(found)
    }

    /// The states of words, `[words, width]`: the mean of their pieces', zeros for a word without pieces.
    fn states(&self, words: &[String]) -> Result<Tensor> {
        let normal = words.iter().map(|word| if word == "/." || word == "/?" { &word[1..] } else { word.as_str() });
        let pieces = normal.map(|word| {
            let encoded = self.encoder.tokenizer.encode(word, false).map_err(|e| anyhow!("cannot tokenize a text: {e}"))?;
            Ok(encoded.get_ids().to_vec())
        });
        let pieces: Vec<Vec<u32>> = pieces.collect::<Result<_>>()?;
        let all: Vec<u32> = pieces.concat();
        let [begin, end] = self.special;
        // Long reports are read in segments.
        let segments: Vec<Vec<u32>> =
            all.chunks(self.encoder.config.positions as usize - 2).map(|part| [&[begin], part, &[end]].concat()).collect();
        let mut states = Vec::new();
        for segment in segments.chunks(4) {
            states.extend(hidden(&self.encoder, segment).iter().map(|own| own.narrow(0, 1, own.size()[0] - 2)));
        }
        let width = self.encoder.config.width;
        let states = if states.is_empty() { Tensor::zeros([0, width], (Kind::Float, tch::Device::Cpu)) } else { Tensor::cat(&states, 0) };
        let mut at = 0;
        let means = pieces.iter().map(|own| {
            let from = at;
            at += own.len() as i64;
            match own.is_empty() {
                true => Tensor::zeros([width], (Kind::Float, tch::Device::Cpu)),
                false => states.narrow(0, from, at - from).mean_dim([0i64].as_slice(), false, Kind::Float),
            }
        });
        Ok(Tensor::stack(&means.collect::<Vec<_>>(), 0))
    }

    /// The label of each span, by its index; 0 is no entity.
    fn judge(&self, states: &Tensor, spans: &[(i64, i64)]) -> Result<Vec<i64>> {
        let ops = Torch::new(&self.encoder.params);
        let column = |of: fn(&(i64, i64)) -> i64| Tensor::from_slice(&spans.iter().map(of).collect::<Vec<_>>());
        let (starts, ends) = (column(|span| span.0), column(|span| span.1));
        let Model { feature_size, ref feedforward_params } = self.config.model;
        let (most, width) = (self.config.dataset_reader.max_span_width, self.encoder.config.width);
        let labels = tch::no_grad(|| {
            let table =
                ops.weight("_endpoint_span_extractor._span_width_embedding.weight", &[most, feature_size], crate::graph::Init::Zeros).0;
            let parts = [states.index_select(0, &starts), states.index_select(0, &ends), table.index_select(0, &(&ends - &starts))];
            let mut x = TorchTensor(Tensor::cat(&parts, 1));
            let mut inputs = 2 * width + feature_size;
            for layer in 0..feedforward_params.num_layers {
                let name = format!("{}.0._module._linear_layers.{layer}", self.head);
                x = ops.activate(&ops.linear(&x, &name, Linear::new(inputs, feedforward_params.hidden_dims)), Activation::Relu);
                inputs = feedforward_params.hidden_dims;
            }
            let scores = ops.linear(&x, &format!("{}.1._module", self.head), Linear::new(inputs, self.labels.len() as i64 - 1)).0;
            // No entity scores 0.
            Tensor::cat(&[scores.new_zeros([spans.len() as i64, 1], (Kind::Float, tch::Device::Cpu)), scores], 1).argmax(1, false)
        });
        Ok(labels.try_into()?)
    }
}

/// F1 of two sets.
fn f1(expected: &BTreeSet<Entity>, found: &BTreeSet<Entity>) -> f64 {
    let both = expected.intersection(found).count() as f64;
    if both == 0.0 { 0.0 } else { 2.0 * both / (expected.len() + found.len()) as f64 }
}

/// The words of a report, as the package separates them.
fn words(report: &str) -> Vec<String> {
    // Escapes that reports in files have, as texts of two or six characters.
    let escapes = [("\\n", "  "), ("\\f", "  "), ("\\u2122", "      "), ("\n", " "), ("\\\"", "``")];
    let report = escapes.iter().fold(report.to_owned(), |text, (from, to)| text.replace(from, to));
    let words = WORDS.find_iter(&report).map(|word| word.as_str()).collect::<Vec<_>>().join(" ");
    let apart = [(").", ") ."), ("%.", "% ."), (".'", ". '"), ("%,", "% ,"), ("%)", "% )")];
    let words = apart.iter().fold(words, |text, (from, to)| text.replace(from, to));
    words.split_whitespace().map(str::to_owned).collect()
}

/// The name of the model's data set, and the labels of its entities.
fn labels(folder: &Path) -> Result<(String, Vec<String>)> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(LABELS)?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    let [name] = names.as_slice() else {
        bail!("{} holds {} files NAME{LABELS}, not one", folder.display(), names.len());
    };
    let path = folder.join(format!("{name}{LABELS}"));
    let text = String::from_utf8(files::read(&path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?)
        .with_context(|| format!("{} is not text", path.display()))?;
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    ensure!(
        labels.len() > 1 && labels.len() <= 1000 && labels[0].is_empty(),
        "{} is no list of labels that begins with an empty one",
        path.display()
    );
    Ok((name.clone(), labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_package() {
        let words = |text| super::words(text).join("|");
        assert_eq!(words("No acute\ncardiopulmonary  process."), "No|acute|cardiopulmonary|process|.");
        assert_eq!(words("a 3.5-cm nodule (RUL). 50%, it's"), "a|3|.|5|-|cm|nodule|(|RUL|)|.|50|%|,|it|'|s");
        assert_eq!(words(""), "");
    }

    #[test]
    fn equal_entities_count_once() {
        let set = |own: &[(&str, &str)]| own.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeSet<_>>();
        let (a, b) = (
            set(&[("effusion", "present"), ("lung", "anatomy")]),
            set(&[("effusion", "absent"), ("lung", "anatomy"), ("lung", "anatomy")]),
        );
        assert_eq!((f1(&a, &b), f1(&a, &a), f1(&a, &set(&[]))), (0.5, 1.0, 0.0));
    }
}
