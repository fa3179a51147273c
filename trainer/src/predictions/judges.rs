//! What texts are judged with beside their words: data and models that the user has.

use super::scores::{Prediction, Scores, score};
use crate::judges::bert_score::BertScore;
use crate::judges::chexbert::CheXbert;
use crate::judges::radgraph::RadGraph;
use crate::metrics::wordnet::WordNet;
use anatomix::LABEL_COUNT;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The folders of data and models, as options of a command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Folders {
    /// Folder of WordNet's database files, for METEOR; without it METEOR is left out.
    #[arg(long, value_name = "DIR")]
    wordnet: Option<PathBuf>,
    /// Folder of distilbert-base-uncased, for BERTScore, or of another BERT with a baseline.tsv.
    #[arg(long, value_name = "DIR")]
    bertscore: Option<PathBuf>,
    /// Folder of CheXbert: chexbert.pth, and the tokenizer of bert-base-uncased.
    #[arg(long, value_name = "DIR")]
    chexbert: Option<PathBuf>,
    /// Folder of RadGraph: config.json, weights.th, vocabulary, and in `bert` the encoder's config.json and tokenizer.
    #[arg(long, value_name = "DIR")]
    radgraph: Option<PathBuf>,
}

/// Data and models for scores. Without one, its scores are left out.
#[derive(Default)]
pub struct Judges {
    wordnet: Option<WordNet>,
    bert_score: Option<BertScore>,
    chexbert: Option<CheXbert>,
    radgraph: Option<RadGraph>,
}

impl Judges {
    /// Opens what the folders name.
    ///
    /// # Errors
    /// If a folder does not hold what it should.
    pub fn open(folders: &Folders) -> Result<Self> {
        Ok(Self {
            wordnet: folders.wordnet.as_deref().map(WordNet::open).transpose()?,
            bert_score: folders.bertscore.as_deref().map(BertScore::open).transpose()?,
            chexbert: folders.chexbert.as_deref().map(CheXbert::open).transpose()?,
            radgraph: folders.radgraph.as_deref().map(RadGraph::open).transpose()?,
        })
    }

    /// Scores each prediction alone. Labels that CheXbert finds are added to the predictions.
    ///
    /// # Errors
    /// If a model cannot read a text.
    pub fn score(&self, predictions: &mut [Prediction]) -> Result<Vec<Scores>> {
        let mut scores = score(predictions, self.wordnet.as_ref());
        if let Some(model) = &self.bert_score {
            let found = of_pairs(predictions, |pairs| model.score(pairs))?;
            scores.iter_mut().zip(found).for_each(|(scores, found)| scores.bert_score = found);
        }
        if let Some(model) = &self.radgraph {
            let found = of_pairs(predictions, |pairs| model.score(pairs))?;
            scores.iter_mut().zip(found).for_each(|(scores, found)| scores.radgraph = found);
        }
        if let Some(model) = &self.chexbert {
            let texts: BTreeSet<&str> =
                predictions.iter().filter_map(|own| own.texts.as_ref()).flat_map(|(a, b)| [a.as_str(), b.as_str()]).collect();
            let texts: Vec<&str> = texts.into_iter().collect();
            let labels: BTreeMap<String, [bool; LABEL_COUNT]> =
                texts.iter().map(|text| (*text).to_owned()).zip(model.labels(&texts)?).collect();
            for own in predictions.iter_mut() {
                own.found = own.texts.as_ref().and_then(|(expected, found)| Some((*labels.get(expected)?, *labels.get(found)?)));
            }
        }
        Ok(scores)
    }
}

/// Judges the texts of predictions, equal ones once.
fn of_pairs(predictions: &[Prediction], judge: impl Fn(&[(&str, &str)]) -> Result<Vec<f64>>) -> Result<Vec<Option<f64>>> {
    let pair = |own: &'_ Prediction| -> Option<(String, String)> { own.texts.clone() };
    let unique: BTreeSet<(String, String)> = predictions.iter().filter_map(pair).collect();
    let pairs: Vec<(&str, &str)> = unique.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let judged: BTreeMap<(&str, &str), f64> = pairs.iter().copied().zip(judge(&pairs)?).collect();
    let of = |own: &Prediction| own.texts.as_ref().and_then(|(a, b)| judged.get(&(a.as_str(), b.as_str())).copied());
    Ok(predictions.iter().map(of).collect())
}
