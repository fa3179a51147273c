//! Recipes: a TOML file for a run, with a table for each training stage.

use super::checkpoint::Checkpoint;
use super::settings::{LossWeights, StageSettings, over};
use crate::data::augment::Augmentation;
use crate::data::loading::settings::Loading;
use crate::distributed::Distributed;
use crate::run::{ADAPTER, ModelConfig, Run};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The recipe of a run, with the defaults of what its file does not name.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// Folder of the run.
    pub run: PathBuf,
    /// The prepared folder, or the folder of phantoms.
    pub data: PathBuf,
    /// What the file says of the models. A run keeps its own configuration, which every stage compares with this.
    pub models: Table,
    /// Training of the sentence encoder, if none is imported.
    pub text: StageSettings,
    /// Training of the Anatomy Perception Module (the paper's step 1).
    pub apm: StageSettings,
    /// Training of the base language model, if none is imported.
    pub language: StageSettings,
    /// Alignment of the projectors (the paper's step 2).
    pub align: StageSettings,
    /// Instruction tuning (the paper's step 3).
    pub instruct: StageSettings,
    /// Weights of the losses of the stage `apm`.
    pub losses: LossWeights,
    /// Augmentation in the stage `apm`.
    pub augmentation: Augmentation,
    /// How samples are loaded.
    pub loading: Loading,
    /// Training on several processes.
    pub distributed: Distributed,
}

/// A recipe's file: tables of what differs from the defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    run: PathBuf,
    data: PathBuf,
    #[serde(default)]
    models: Table,
    #[serde(default)]
    text: Table,
    #[serde(default)]
    apm: Table,
    #[serde(default)]
    language: Table,
    #[serde(default)]
    align: Table,
    #[serde(default)]
    instruct: Table,
    #[serde(default)]
    losses: Table,
    #[serde(default)]
    augmentation: Table,
    #[serde(default)]
    loading: Table,
    #[serde(default)]
    distributed: Table,
}

/// Keys of a stage's settings that have no effect in it.
fn without_effect(stage: &str) -> &'static [&'static str] {
    match stage {
        // Its loss compares all sentences of a batch, and its model is small.
        "text" => &[
            "accumulate",
            "precision",
            "checkpointing",
            "backbone_factor",
            "questions",
            "answer_weights",
            "grounding_boxes",
            "full",
            "own_head",
            "short_contexts",
            "images",
        ],
        "apm" => &["questions", "answer_weights", "grounding_boxes", "full", "own_head", "short_contexts"],
        "language" => &["backbone_factor", "grounding_boxes", "full", "own_head"],
        "align" => &["backbone_factor", "questions", "grounding_boxes", "full", "own_head", "short_contexts"],
        _ => &["backbone_factor", "short_contexts"],
    }
}

/// Longest recipe in bytes.
const MAX_RECIPE: u64 = 1 << 20;

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    anatomix::parts::files::open(path)?.take(MAX_RECIPE + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= MAX_RECIPE, "it has more than {MAX_RECIPE} bytes; a recipe has a few hundred");
    Ok(text)
}

impl Recipe {
    /// Reads a recipe. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// If the file cannot be read, names what does not exist, or has a value that cannot be used.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let invalid = || format!("{} is not a valid recipe", path.display());
        let file: File = toml::from_str(&text).with_context(invalid)?;
        let base = path.parent().unwrap_or(Path::new("."));
        Self::of(file, base).with_context(invalid)
    }

    fn of(file: File, base: &Path) -> Result<Self> {
        let stage = |name: &str, defaults: StageSettings, table: Table| {
            if let Some(key) = without_effect(name).iter().find(|key| table.contains_key(**key)) {
                bail!("[{name}]: {key} has no effect in this stage; leave it out");
            }
            defaults.with(table).with_context(|| format!("[{name}]"))
        };
        over(&ModelConfig::default(), file.models.clone()).and_then(|models| models.check()).context("[models]")?;
        let mut recipe = Self {
            run: base.join(&file.run),
            data: base.join(&file.data),
            models: file.models,
            text: stage("text", StageSettings::pretraining(), file.text)?,
            apm: stage("apm", StageSettings::apm(), file.apm)?,
            language: stage("language", StageSettings::pretraining(), file.language)?,
            align: stage("align", StageSettings::align(), file.align)?,
            instruct: stage("instruct", StageSettings::instruct(), file.instruct)?,
            losses: over(&LossWeights::default(), file.losses).context("[losses]")?,
            augmentation: over(&Augmentation::default(), file.augmentation).context("[augmentation]")?,
            loading: over(&Loading::default(), file.loading).context("[loading]")?,
            distributed: over(&Distributed::default(), file.distributed).context("[distributed]")?,
        };
        recipe.loading.resolve(base);
        recipe.losses.check().context("[losses]")?;
        recipe.augmentation.check().context("[augmentation]")?;
        recipe.loading.check().context("[loading]")?;
        recipe.distributed.check().context("[distributed]")?;
        Ok(recipe)
    }

    /// The run's configuration of the models, which must agree with what the recipe says of them. As long as no stage has trained on the
    /// run's prompts, its form is that of the recipe, so that runs with other prompts can begin from copies of one run.
    ///
    /// # Errors
    /// If the run has no configuration, or one with another value for a key of the recipe.
    pub fn run_models(&self, run: &Run) -> Result<ModelConfig> {
        let mut models = run.models()?;
        let trained = |stage: LanguageStage| Checkpoint::new(run, stage.name()).exists();
        let is_chosen = run.file(ADAPTER).exists() || trained(LanguageStage::Align) || trained(LanguageStage::Instruct);
        if let Some(Value::Table(prompt)) = self.models.get("prompt").filter(|_| !is_chosen) {
            models.prompt = over(&models.prompt, prompt.clone())?;
            models.check()?;
        }
        if let Some((key, asked, found)) = difference(&self.models, &Table::try_from(&models)?, "models") {
            bail!(
                "the recipe says {key} = {asked}, but the models of {} have {found}; take another run folder, or the value of this run",
                run.folder.display()
            );
        }
        Ok(models)
    }
}

/// The first key of `asked` whose value differs in `found`, with both values.
pub(crate) fn difference(asked: &Table, found: &Table, at: &str) -> Option<(String, String, String)> {
    asked.iter().find_map(|(key, value)| {
        let path = format!("{at}.{key}");
        match (value, found.get(key)) {
            (Value::Table(asked), Some(Value::Table(found))) => difference(asked, found, &path),
            (value, Some(other)) if value == other => None,
            (value, other) => Some((path, value.to_string(), other.map_or_else(|| "none".into(), ToString::to_string))),
        }
    })
}

/// The training stages of the language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanguageStage {
    /// Training of the base model, on text only.
    Base,
    /// The stage `align`: training of the projectors, on reports.
    Align,
    /// The stage `instruct`: training of adapters, projectors and embeddings, on all tasks.
    Instruct,
}

impl LanguageStage {
    /// Name of the training stage, in recipes and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "language",
            Self::Align => "align",
            Self::Instruct => "instruct",
        }
    }

    /// The recipe's settings of this training stage.
    pub fn settings(self, recipe: &Recipe) -> &StageSettings {
        match self {
            Self::Base => &recipe.language,
            Self::Align => &recipe.align,
            Self::Instruct => &recipe.instruct,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Decays, Missing, Precision};
    use super::*;
    use crate::data::augment::RotatedBoxes;
    use crate::data::packs::AnswerWeights;
    use crate::prompt::PromptConfig;

    fn recipe(tables: &str) -> Result<Recipe> {
        Recipe::of(toml::from_str(&format!("run = \"r\"\ndata = \"d\"\n{tables}"))?, Path::new("/base"))
    }

    fn refusal(tables: &str) -> String {
        format!("{:#}", recipe(tables).unwrap_err())
    }

    #[test]
    fn a_recipe_without_an_end_is_not_read() {
        let refusal = |path: &Path| format!("{:#}", Recipe::read(path).unwrap_err());
        assert_eq!(refusal(Path::new("/dev/zero")), "cannot read /dev/zero: it is not a regular file");
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_RECIPE + 1).unwrap();
        assert!(refusal(file.path()).contains("more than 1048576 bytes"), "{}", refusal(file.path()));
    }

    #[test]
    fn what_a_table_does_not_name_is_the_default_of_its_stage() {
        let recipe = recipe("[apm]\nbatch = 4\n[align]\nsteps = 7\n[losses]\nclip = true\n[models.apm]\nheads = 8").unwrap();
        assert_eq!(recipe.apm, StageSettings { batch: 4, ..StageSettings::apm() });
        assert_eq!((recipe.apm.epochs, recipe.apm.rate, recipe.apm.clip), (Some(45), 1e-4, 0.1));
        assert_eq!((recipe.align.steps, recipe.align.epochs), (Some(7), None));
        assert_eq!((recipe.instruct.epochs, recipe.instruct.rate, recipe.instruct.warmup), (Some(4), 2e-4, 0.03));
        assert!(recipe.losses.clip && recipe.losses.l1 == 5.0);
        assert_eq!(recipe.run, Path::new("/base/r"));
    }

    #[test]
    fn the_papers_recipe_is_the_default_but_for_what_is_published() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/paper.toml");
        let found = Recipe::read(&path).unwrap();
        let published = |stage: StageSettings| StageSettings { decays: Decays::Published, ..stage };
        assert_eq!(found.apm, published(StageSettings::apm()));
        let weighted = |stage| StageSettings {
            answer_weights: AnswerWeights::Published,
            precision: Precision::Bf16,
            checkpointing: true,
            ..published(stage)
        };
        assert_eq!(found.align, weighted(StageSettings::align()));
        assert_eq!(found.instruct, StageSettings { own_head: true, questions: 1, ..weighted(StageSettings::instruct()) });
        assert_eq!(found.losses, LossWeights { missing: Missing::Published, aux: true, ..LossWeights::default() });
        assert_eq!(found.augmentation, Augmentation { boxes: RotatedBoxes::Published, ..Augmentation::default() });
        let prompt = PromptConfig { system_prompts: true, ..PromptConfig::default() };
        assert_eq!(over(&ModelConfig::default(), found.models).unwrap(), ModelConfig { prompt, ..ModelConfig::default() });
    }

    #[test]
    fn wrong_settings_are_errors_that_name_them() {
        for (tables, words) in [
            ("[apm]\nrte = 1.0", "[apm]: unknown field `rte`"),
            ("[apm]\nbatch = 0", "[apm]: batch = 0"),
            ("[apm]\nsteps = 1\nepochs = 1", "both steps and epochs"),
            ("[align]\nepochs = 0", "[align]: 0 steps or epochs"),
            ("[text]\nrate = nan", "[text]: rate = NaN"),
            ("[apm]\naccumulate = 0", "[apm]: accumulate = 0"),
            ("[apm]\nprecision = \"fp16\"", "[apm]: unknown variant `fp16`"),
            ("[apm]\nown_head = true", "[apm]: own_head has no effect in this stage"),
            ("[text]\naccumulate = 2", "[text]: accumulate has no effect in this stage"),
            ("[align]\nquestions = 3", "[align]: questions has no effect in this stage"),
            ("[instruct]\nshort_contexts = 0.5", "[instruct]: short_contexts has no effect in this stage"),
            ("[language]\nwarmup = 1.5", "[language]: warmup = 1.5"),
            ("[instruct]\nkeep = \"first\"", "[instruct]: unknown variant `first`"),
            ("[augmentation]\nflip = 1.5", "[augmentation]: flip = 1.5"),
            ("[augmentation]\nscale = [1.1, 0.9]", "[augmentation]: scale"),
            ("[losses]\ntemperature = 0.0", "[losses]: temperature = 0"),
            ("[distributed]\nbucket = 0", "[distributed]: bucket = 0"),
            ("[distributed]\ntimeout = 0", "[distributed]: timeout = 0"),
            ("[distributed]\njoin_timeout = 0", "[distributed]: join_timeout = 0"),
            ("[distributed]\nshard = true", "[distributed]: unknown field `shard`"),
            ("[models.apm]\nhead = 4", "[models]: unknown field `head`"),
            ("[apm]\naccumulate = 9223372036854775807", "accumulate = 9223372036854775807 is more than"),
            ("[models.apm]\nimage_size = 640000", "image_size 640000 is more than 16384"),
            ("[models.apm]\nencoder_layers = 99999999999", "encoder_layers 99999999999 is not between 1 and 4096"),
            ("[models.text]\nwidth = 9999999998", "text.width 9999999998 is not between"),
            ("[models.language]\nhead_dim = 15", "language.head_dim 15 is not even"),
            ("[models.language]\nnum_hidden_layers = 0", "language.num_hidden_layers 0 is not between 1"),
            ("[models.lora]\nrank = 0", "lora.rank 0 is not between 1"),
            ("[models.prompt]\ninputs = \"VX\"", "[models]: inputs are \"VX\""),
            ("[models.prompt]\npool = 3", "[models]: prompt.pool is 3, but 1024 patches"),
            ("[instruct]\ngrounding_boxes = \"predicted\"", "[instruct]: unknown variant `predicted`"),
            ("[loading]\nworkers = 0", "[loading]: workers = 0"),
            ("[loading]\ndamaged = \"no\"", "[loading]: unknown variant `no`"),
        ] {
            let error = refusal(tables);
            assert!(error.contains(words), "{tables}: {error}");
        }
    }

    #[test]
    fn a_recipe_may_not_contradict_its_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path()).unwrap();
        run.keep_models(&ModelConfig::default()).unwrap();
        let asked = |tables: &str| recipe(tables).unwrap().run_models(&run);
        assert_eq!(asked("[models.apm]\nheads = 4").unwrap(), ModelConfig::default());
        let error = asked("[models.apm]\nheads = 8").unwrap_err().to_string();
        assert!(error.contains("models.apm.heads = 8") && error.contains("have 4"), "{error}");
    }
}
