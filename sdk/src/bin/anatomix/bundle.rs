//! `anatomix bundle`: what a bundle contains, and whether it is complete and unchanged.

use crate::common::{Failure, Options, bar};
use crate::shown::{out, remark};
use crate::sign::{check_place, secret, sign};
use anatomix::parts::output::{BundleRecord, SignedRecord, VerifiedRecord};
use anatomix::{Bundle, Engine, Error, Phase, Progress, PromptForm, VerifiedBundle};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Describe, verify or sign a bundle
#[derive(Subcommand)]
pub enum BundleCommand {
    /// Print what the manifest says
    Info(Target),
    /// Compare the SHA-256 of every file with the manifest, and check the whole sentence database
    Verify(Target),
    /// Verify the bundle, then sign its manifest with a secret key of minisign
    Sign {
        /// The secret key's file; if it has a password, that is asked for
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Args)]
pub struct Target {
    /// Folder of the bundle [default: as --bundle]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl BundleCommand {
    pub fn run(&self, options: &Options) -> Result<(), Failure> {
        match self {
            Self::Info(target) => info(&target.open(options)?, target.json),
            Self::Verify(target) => {
                let folder = target.folder(options)?;
                let bundle = verified(&folder, options)?;
                print_whole(&bundle, &folder, options.public_key()?.is_some(), target.json)
            }
            Self::Sign { key, target } => {
                check_place(&target.folder(options)?, key)?;
                let secret = secret(key)?;
                let folder = target.folder(options)?;
                let VerifiedBundle { sha256, .. } = verified(&folder, options)?;
                let signature = sign(&folder, &sha256, &secret)?;
                match target.json {
                    true => Ok(out().json(&SignedRecord::of(&folder, &sha256, &signature))?),
                    false => Ok(out().line(format_args!("{} signs the manifest {sha256}", signature.display()))?),
                }
            }
        }
    }
}

impl Target {
    fn folder(&self, options: &Options) -> Result<PathBuf, Failure> {
        self.folder.clone().map_or_else(|| options.bundle(), Ok)
    }

    fn open(&self, options: &Options) -> Result<Bundle, Failure> {
        let folder = self.folder(options)?;
        let opened = match options.public_key()? {
            Some(key) => Bundle::open_signed(folder, &key),
            None => Bundle::open(folder),
        };
        Ok(opened.map_err(Error::from)?)
    }
}

fn info(bundle: &Bundle, json: bool) -> Result<(), Failure> {
    let manifest = bundle.manifest();
    let record = BundleRecord::of(bundle);
    if json {
        return Ok(out().json(&record)?);
    }
    let (apm, decoder) = (&manifest.apm, &manifest.decoder);
    let mut out = out();
    let precision = &decoder.precision;
    for (key, value) in [
        ("name", manifest.name.clone()),
        ("folder", record.folder),
        ("made by", manifest.created_by.clone()),
        ("schema", manifest.schema.to_string()),
        ("sha256", bundle.hash().into()),
        ("input", format!("{0} x {0} pixels", manifest.preprocess.size)),
        ("perception", format!("{} image tokens of {}, object embeddings of {}", apm.patches, apm.token_width, apm.embedding_width)),
        (
            "decoder",
            format!("{} layers, {} wide, {} tokens in the vocabulary, {precision}", decoder.layers, decoder.hidden, decoder.vocabulary),
        ),
        ("prompt", prompt(&manifest.prompt.form)),
        ("context", format!("{} tokens", decoder.max_context)),
        ("checked on", if manifest.checked_on.is_empty() { "not stated".into() } else { manifest.checked_on.join(", ") }),
    ] {
        out.line(format_args!("{key:<12}{value}"))?;
    }
    out.line("")?;
    out.line(format_args!("{:<28}{:>14}  sha256", "file", "bytes"))?;
    for (name, entry) in &manifest.files {
        out.line(format_args!("{name:<28}{:>14}  {}", entry.bytes, entry.sha256))?;
    }
    out.line(format_args!("{:<28}{:>14}", "all", bundle.bytes()))?;
    for note in record.notes {
        remark(&format!("note: {note}"));
    }
    Ok(())
}

/// The form of the prompt in words.
fn prompt(form: &PromptForm) -> String {
    let mut words = form.inputs.to_string();
    if form.compact {
        words += ", compact";
    }
    if form.pool > 1 {
        words += &format!(", image tokens pooled {0} x {0}", form.pool);
    }
    if form.system.is_some() {
        words += ", with a system prompt";
    }
    words
}

/// Compares the hashes of all files, and checks the whole sentence database.
fn verified(folder: &Path, options: &Options) -> Result<VerifiedBundle, Failure> {
    let shown = bar(0, "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    let mut builder = Engine::builder();
    if let Some(key) = options.public_key()? {
        builder = builder.public_key(key);
    }
    let moved = shown.clone();
    builder = builder.progress(move |Progress { phase, done, total, .. }| {
        if phase == Phase::Hashes {
            moved.set_length(total);
            moved.set_position(done);
        }
    });
    let verified = builder.verify_bundle(folder);
    shown.finish_and_clear();
    Ok(verified?)
}

fn print_whole(bundle: &VerifiedBundle, folder: &Path, signed: bool, json: bool) -> Result<(), Failure> {
    if json {
        return Ok(out().json(&VerifiedRecord::of(bundle, folder, signed))?);
    }
    let VerifiedBundle { name, sha256, files, bytes, .. } = bundle;
    let by = if signed { ", which the key's owner signed," } else { "" };
    Ok(out().line(format_args!("{name} is whole: {files} files, {bytes} bytes, as the manifest {sha256}{by} says"))?)
}
