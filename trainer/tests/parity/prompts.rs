//! Forms of the prompt, and ablations of the perception module: with each, the stages train two steps, and the SDK opens the bundle and
//! answers a question.

use crate::bundle::make_run;
use anatomix::{Engine, Provider, Question, Radiograph, Study};
use anatomix_phantom::dataset::{Options, write};
use anatomix_trainer::data::loading::prepared::INSIDE;
use anatomix_trainer::data::samples::config::{Config, Folders};
use anatomix_trainer::data::samples::prepare::prepare;
use anatomix_trainer::export::{Measure, Settings, export};
use anatomix_trainer::models::dino::DinoConfig;
use anatomix_trainer::run::{self, ModelConfig, Run};
use anatomix_trainer::training::checkpoint::Start;
use anatomix_trainer::training::config::{LanguageStage, Recipe};
use anatomix_trainer::training::{apm, language};
use std::fs;
use std::path::{Path, PathBuf};
use tch::Device;

const STAGES: &str = "
[apm]
batch = 4
steps = 2
[align]
batch = 2
steps = 2
[instruct]
batch = 2
steps = 2
questions = 4
";

/// A complete run with random parameters, and phantoms to train on.
struct Base {
    folder: tempfile::TempDir,
    run: Run,
}

impl Base {
    fn new() -> Self {
        tch::manual_seed(7);
        tch::set_num_threads(1);
        let folder = tempfile::tempdir().unwrap();
        let run = tch::no_grad(|| make_run(&folder.path().join("base")));
        let out = folder.path().join("data");
        write(&Options { out: out.clone(), count: 24, seed: 0, size: 64, dicom_every: 0, markers: true }, |_| {}).unwrap();
        let sources = Folders { phantom: Some(out.clone()), ..Folders::default() };
        prepare(&Config { sources, ..Config::default() }, &out.join(INSIDE), false).unwrap();
        Self { folder, run }
    }

    /// The recipe of a new run, which has these files of the base.
    fn recipe(&self, name: &str, files: &[&str], models: &ModelConfig, tables: &str) -> Recipe {
        let path = |name: &str| self.folder.path().join(name);
        let run = Run::create(&path(name)).unwrap();
        for file in files {
            fs::copy(self.run.file(file), run.file(file)).unwrap();
        }
        run.keep_models(models).unwrap();
        let recipe = path(&format!("{name}.toml"));
        fs::write(&recipe, format!("run = {name:?}\ndata = \"data\"\n{tables}{STAGES}")).unwrap();
        Recipe::read(&recipe).unwrap()
    }

    /// The study of a phantom with the bundle of a run.
    fn study(&self, recipe: &Recipe) -> (PathBuf, Study) {
        let out = recipe.run.with_extension("bundle");
        let run = Run::create(&recipe.run).unwrap();
        let exported = tch::no_grad(|| export(&run, &Settings { measure: Measure::Never, ..Settings::new(out.clone()) })).unwrap();
        assert!(exported.missing.is_empty(), "{:?}", exported.missing);
        let engine = Engine::builder().provider(Provider::Cpu).threads(1).golden_check(false).open(&out).unwrap();
        let picture = fs::read_dir(self.folder.path().join("data/images")).unwrap().next().unwrap().unwrap().path();
        let study = engine.study(&Radiograph::open(picture).unwrap()).unwrap();
        (out, study)
    }
}

/// Asks a question, and returns the number of tokens of context and question.
fn ask(study: &mut Study) -> usize {
    study.ask(Question::new("Where is the left lung?").max_tokens(4).accept_flags()).unwrap().prefilled
}

fn prompt(bundle: &Path) -> serde_json::Value {
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(bundle.join("manifest.json")).unwrap()).unwrap();
    manifest["prompt"].clone()
}

/// The seven rows of the paper's tables of ablations, and what this project adds.
#[test]
fn forms_of_the_prompt() {
    let base = Base::new();
    let models = base.run.models().unwrap();
    let files = [run::TOKENIZER, run::TEXT, run::APM, run::SENTENCES, run::LANGUAGE];
    let mut tokens = Vec::new();
    for (name, keys) in [
        ("VOSB", ""),
        ("V", "inputs = \"V\""),
        ("VO", "inputs = \"VO\""),
        ("VS", "inputs = \"VS\""),
        ("VB", "inputs = \"VB\""),
        ("VOS", "inputs = \"VOS\""),
        ("VOB", "inputs = \"VOB\""),
        ("VSB", "inputs = \"VSB\""),
        ("compact", "compact = true\npool = 2\nsystem_prompts = true"),
    ] {
        let recipe = base.recipe(name, &files, &models, &format!("[models.prompt]\n{keys}\n"));
        for stage in [LanguageStage::Align, LanguageStage::Instruct] {
            language::train(&recipe, stage, Device::Cpu, Start::default()).unwrap();
        }
        let (bundle, mut study) = base.study(&recipe);
        let written = prompt(&bundle);
        match name {
            "VOSB" => assert_eq!(written, serde_json::json!({ "version": 1 })),
            "compact" => assert!(written["compact"] == true && written["pool"] == 2 && written["system"].is_string(), "{written}"),
            inputs => assert_eq!(written, serde_json::json!({ "version": 2, "inputs": inputs })),
        }
        tokens.push((name, ask(&mut study)));
    }
    println!("tokens of context and question: {tokens:?}");
    let count = |name: &str| tokens.iter().find(|(known, _)| *known == name).unwrap().1;
    assert!(count("V") < count("VO") && count("VO") < count("VOB") && count("VOB") < count("VOSB"));
    assert!(count("VS") < count("VOS") && count("VB") < count("VSB") && count("compact") < count("VOSB"));

    // Without visual features there is nothing to align, and instruction tuning goes without.
    let recipe = base.recipe("SB", &files, &models, "[models.prompt]\ninputs = \"SB\"\n");
    let error = language::train(&recipe, LanguageStage::Align, Device::Cpu, Start::default()).unwrap_err().to_string();
    assert!(error.contains("nothing to align") && error.contains("train instruct"), "{error}");
    language::train(&recipe, LanguageStage::Instruct, Device::Cpu, Start::default()).unwrap();
    assert!(ask(&mut base.study(&recipe).1) < count("VSB"));
    // What was trained with one prompt is not trained on with another.
    fs::write(recipe.run.with_extension("toml"), format!("run = \"SB\"\ndata = \"data\"\n[models.prompt]\ninputs = \"S\"\n{STAGES}"))
        .unwrap();
    let other = Recipe::read(&recipe.run.with_extension("toml")).unwrap();
    let error = language::train(&other, LanguageStage::Instruct, Device::Cpu, Start::default()).unwrap_err().to_string();
    assert!(error.contains("models.prompt.inputs"), "{error}");
}

/// The paper's ablations of the perception module (section S5).
#[test]
fn ablations_of_the_perception_module() {
    let base = Base::new();
    let models = base.run.models().unwrap();
    let without = |change: fn(&mut ModelConfig)| {
        let mut models = models.clone();
        change(&mut models);
        models
    };
    let dino = || DinoConfig { width: 32, layers: 1, heads: 2, feed_forward: 48, registers: 1, ..DinoConfig::default() };
    let files = [run::TOKENIZER, run::TEXT, run::LANGUAGE, run::ADAPTER];
    for (name, models, tables) in [
        ("no-feature-extractor", without(|models| models.apm.feature_extractor = false), ""),
        (
            "dino",
            ModelConfig { apm: anatomix_trainer::models::apm::ApmConfig { dino: Some(dino()), ..models.apm.clone() }, ..models.clone() },
            "",
        ),
        ("clip", models.clone(), "[losses]\nclip = true\n"),
    ] {
        let recipe = base.recipe(name, &files, &models, tables);
        apm::train(&recipe, Device::Cpu, Start::default()).unwrap();
        let (_, mut study) = base.study(&recipe);
        assert!(study.structures().iter().all(|found| found.sentence.similarity.is_finite() && found.bounds.x0 <= found.bounds.x1));
        assert!(ask(&mut study) > 36, "{name}");
    }
}
