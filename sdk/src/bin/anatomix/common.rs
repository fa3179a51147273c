//! What commands share: options of the engine, where the bundle is, failures, progress.

use anatomix::{Engine, Provider};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, ErrorKind, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The reference bundle in the repository, and beside a program that was copied out of it.
const REFERENCE: [&str; 2] = ["examples/reference-bundle", "reference-bundle"];
const VARIABLE: &str = "ANATOMIX_BUNDLE";

#[derive(Args)]
pub struct Options {
    /// Folder of the bundle [default: $ANATOMIX_BUNDLE, else the reference bundle]
    #[arg(long, global = true, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda[:N] or tensorrt[:N]
    #[arg(long, global = true, default_value = "auto")]
    pub provider: Provider,
    /// Threads on the CPU [default: all cores]
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// ONNX Runtime's library [default: $ORT_DYLIB_PATH, else beside the program, else the system's]
    #[arg(long, global = true, value_name = "PATH")]
    pub onnxruntime: Option<PathBuf>,
    /// Most memory for computed tokens, in MiB: a question that needs more is refused, an answer ends there [default: any]
    #[arg(long, global = true, value_name = "MIB")]
    pub memory: Option<NonZeroU32>,
    /// Open the bundle without running its golden input, where it was opened before on this machine
    #[arg(long, global = true)]
    pub no_golden: bool,
}

impl Options {
    /// The bundle's folder: the one that is named, or the first of the usual places that holds one.
    pub fn bundle(&self) -> Result<PathBuf, Failure> {
        let named = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(folder) = self.bundle.clone().or_else(named) {
            return Ok(folder);
        }
        let program = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let beside = program.iter().flat_map(|folder| {
            // target/release/anatomix stands two folders below the repository.
            let repository = folder.ancestors().nth(2).map(|root| root.join(REFERENCE[0]));
            [Some(folder.join(REFERENCE[1])), repository].into_iter().flatten()
        });
        let tried: Vec<PathBuf> = std::iter::once(PathBuf::from(REFERENCE[0])).chain(beside).collect();
        tried.iter().find(|folder| folder.join(anatomix::bundle::MANIFEST).exists()).cloned().ok_or_else(|| {
            let places: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
            Failure::Message(format!("no bundle was found; tried {}; name one with --bundle DIR or {VARIABLE}", places.join(", ")))
        })
    }

    /// Lets all work of the program take no more threads than were asked for.
    pub fn limit_threads(&self) {
        if let Some(threads) = self.threads {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            // It fails only where the threads are there already.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.get().min(cores)).build_global();
        }
    }

    pub fn engine(&self, look_up: bool) -> Result<Engine, Failure> {
        let folder = self.bundle()?;
        let waiting = spinner("opening the bundle");
        let mut builder = Engine::builder().provider(self.provider).look_up(look_up).golden(!self.no_golden);
        if let Some(memory) = self.memory {
            builder = builder.memory(u64::from(memory.get()) << 20);
        }
        if let Some(threads) = self.threads {
            builder = builder.threads(threads.get());
        }
        if let Some(library) = &self.onnxruntime {
            builder = builder.library(library);
        }
        let engine = builder.open(folder);
        waiting.finish_and_clear();
        Ok(engine?)
    }
}

/// Why a command did not do what it was asked for.
pub enum Failure {
    /// Something is wrong with one of its inputs or outputs; it may go on with the next one.
    Message(String),
    /// Nothing more can be done.
    Fatal(String),
    /// The radiograph is flagged as none the model was made for, and its flags were not accepted.
    Flagged(String),
    /// The command line itself is wrong.
    Usage(String),
    /// Nobody reads standard output any more.
    PipeClosed,
    /// What is wrong was said already.
    Reported,
}

impl From<anatomix::Error> for Failure {
    fn from(error: anatomix::Error) -> Self {
        match error {
            anatomix::Error::Flagged(_) => Self::Flagged(error.to_string()),
            _ => Self::Message(error.to_string()),
        }
    }
}

/// Of standard output; every file has its own errors.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::Fatal(format!("cannot write to standard output: {error}; check where it goes to")),
        }
    }
}

/// Says what is wrong, in one line. That standard error is closed is no reason to panic.
pub fn complain(message: &str) {
    let lines: Vec<&str> = message.split_whitespace().collect();
    let _ = writeln!(io::stderr(), "error: {}", lines.join(" "));
}

/// A line on standard error.
pub fn remark(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Shown on a terminal only, until it is cleared.
pub fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar with rate and remaining time; `template` is indicatif's.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("━╸─"))
}

/// Prints a value as one line of JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// What an option writes must not replace what is read.
pub fn check_apart(image: &Path, option: &str, out: &Path) -> Result<(), Failure> {
    match (image.canonicalize(), out.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => Err(Failure::Usage(format!("{option} would replace {}; name another file", image.display()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_not_replaced_by_whatever_name() {
        let folder = std::env::temp_dir();
        let image = tempfile::NamedTempFile::new_in(&folder).unwrap();
        let same = folder.join(".").join(image.path().file_name().unwrap());
        let Err(Failure::Usage(message)) = check_apart(image.path(), "--save", &same) else { panic!("accepted") };
        assert!(message.starts_with("--save would replace"), "{message}");
        assert!(check_apart(image.path(), "--save", &folder.join("other")).is_ok());
    }
}
