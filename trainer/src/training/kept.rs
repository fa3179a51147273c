//! The recipe of a stage as it is kept in the run, so that a stage is not resumed with another one.

use super::checkpoint::{Checkpoint, Start};
use super::config::{Recipe, difference};
use crate::progress::say;
use crate::run::Run;
use anatomix::output::write_whole;
use anatomix::parts::hash::Digest;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use tch::{Device, Tensor};
use toml::Table;

/// Largest file in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Keys of a stage's table that may differ when it is resumed: when it stops, and what it says meanwhile.
const FREE: [&str; 4] = ["steps", "epochs", "checkpoint_every", "log_every"];

/// File name of a stage's recipe in a run.
pub fn name(stage: &str) -> String {
    format!("recipe.{stage}.toml")
}

/// Writes `recipe.STAGE.toml`, the effective settings of a stage with the hash of its data; or, if the stage is resumed, compares it.
///
/// # Errors
/// If a resumed stage was begun with other settings or other data, or the file cannot be read or written.
pub fn keep(run: &Run, stage: &str, recipe: &Recipe, settings: &impl Serialize, data: &Digest, start: Start) -> Result<()> {
    let own = table(stage, recipe, settings, data)?;
    let path = run.file(&name(stage));
    let checkpoint = Checkpoint::new(run, stage);
    same_everywhere(&own, stage, start)?;
    if start.resume && checkpoint.exists() && path.exists() {
        let bytes = anatomix::parts::files::read(&path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))?;
        let begun: Table = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        let (now, begun) = (matters(own.clone(), stage), matters(begun, stage));
        // In both directions, for keys that only one of them has.
        let found = difference(&now, &begun, "").or_else(|| difference(&begun, &now, "").map(|(key, begun, now)| (key, now, begun)));
        if let Some((key, now, begun)) = found {
            let key = key.trim_start_matches('.');
            let what = match key {
                "data" => "the data are not those that it was begun with".into(),
                key => format!("{key} is {now}, but was {begun} when it was begun"),
            };
            bail!("`train {stage}` cannot resume: {what}; restore that, or train without --resume");
        }
    }
    if start.dry_run || !start.peers.is_first() {
        return Ok(());
    }
    match start.resume {
        true if !checkpoint.exists() => say(&format!("{stage}: there is no checkpoint to resume from, so it starts at step 0")),
        true => {}
        false => {
            if let Some(aside) = checkpoint.set_aside()? {
                say(&format!("{stage}: starts at step 0; the checkpoint of the earlier training is now {}", aside.display()));
            }
        }
    }
    Ok(write_whole(&path, toml::to_string_pretty(&own)?.as_bytes())?)
}

/// Checks that all processes have the same settings and data.
fn same_everywhere(own: &Table, stage: &str, start: Start) -> Result<()> {
    let mut compared = own.clone();
    compared.remove("folder");
    // 48 bits of a hash, which a double holds exactly.
    let hash = Digest::of(toml::to_string(&compared)?.as_bytes()).to_string();
    let number = u64::from_str_radix(&hash[..12], 16)? as f64;
    let numbers = start.peers.gather(&Tensor::from_slice(&[number]).to_device(start.peers.device()))?;
    let numbers = Vec::<f64>::try_from(numbers.to_device(Device::Cpu))?;
    if let Some(other) = numbers.iter().position(|other| *other != numbers[0]) {
        bail!("`train {stage}`: process {other} has other settings or data than process 0; give all of them the same recipe and data");
    }
    Ok(())
}

fn table(stage: &str, recipe: &Recipe, settings: &impl Serialize, data: &Digest) -> Result<Table> {
    let mut own = Table::new();
    own.insert("folder".into(), recipe.data.display().to_string().into());
    own.insert("data".into(), data.to_string().into());
    own.insert(stage.into(), Table::try_from(settings)?.into());
    own.insert("loading".into(), Table::try_from(&recipe.loading)?.into());
    if stage == "apm" {
        own.insert("losses".into(), Table::try_from(&recipe.losses)?.into());
        own.insert("augmentation".into(), Table::try_from(&recipe.augmentation)?.into());
    }
    Ok(own)
}

/// What changes the parameters that come out.
fn matters(mut own: Table, stage: &str) -> Table {
    own.remove("folder");
    let table = |own: &mut Table, name: &str, kept: &dyn Fn(&str) -> bool| {
        if let Some(table) = own.get_mut(name).and_then(toml::Value::as_table_mut) {
            table.retain(|key, _| kept(key));
        }
    };
    table(&mut own, stage, &|key| !FREE.contains(&key));
    table(&mut own, "loading", &|key| key == "damaged");
    own
}
