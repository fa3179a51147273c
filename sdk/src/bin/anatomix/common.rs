//! What the commands share: options of the engine, the search for a bundle, failures, progress bars.

use crate::shown::remark;
use anatomix::error::{BundleError, ErrorCode};
use anatomix::output::check_writable;
use anatomix::parts::files::{self, destination};
use anatomix::parts::{parallel, runtime};
use anatomix::{Engine, Error, Provider, PublicKey};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::num::{IntErrorKind, NonZeroU32, NonZeroUsize, ParseIntError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Paths of the reference bundle: in the repository, beside a program that was copied out of it, and below the prefix of an installed one.
const REFERENCE: [&str; 3] = ["examples/reference-bundle", "reference-bundle", "share/anatomix/reference-bundle"];
const VARIABLE: &str = "ANATOMIX_BUNDLE";

#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Options {
    /// Folder of the bundle [default: $ANATOMIX_BUNDLE, else the reference bundle]
    #[arg(long, global = true, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda[:N] or tensorrt[:N]
    #[arg(long, global = true, value_name = "NAME", default_value = "auto")]
    pub provider: Provider,
    /// Threads on the CPU, at most one for each core [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub threads: Option<NonZeroUsize>,
    /// ONNX Runtime's library [default: $ORT_DYLIB_PATH, else beside the program or in ../lib, else the system's]
    #[arg(long, global = true, value_name = "PATH")]
    pub library: Option<PathBuf>,
    /// Most memory for the KV caches, in MiB; a question that needs more is refused, and an answer that needs more ends [default: no limit]
    #[arg(long, global = true, value_name = "MIB", value_parser = positive::<NonZeroU32>, allow_negative_numbers = true)]
    pub memory_limit: Option<NonZeroU32>,
    /// Do not run the bundle's golden input; only for a bundle that was opened before on this machine
    #[arg(long, global = true)]
    pub no_golden_check: bool,
    /// Open only a bundle that the owner of this key signed: minisign's .pub file
    #[arg(long, global = true, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Print to standard error what the engine does, with the time of each step
    #[arg(long, global = true)]
    pub log: bool,
}

impl Options {
    /// The key whose owner has to have signed the bundle.
    pub fn public_key(&self) -> Result<Option<PublicKey>, Failure> {
        self.public_key.as_deref().map(public_key).transpose()
    }

    /// Files that every command reads, beside the bundle.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let library = self.library.clone().or_else(|| std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from));
        library.into_iter().chain(self.public_key.clone()).collect()
    }

    /// The bundle's folder: the one that is named, or the first of the default places that has a manifest.
    pub fn bundle(&self) -> Result<PathBuf, Failure> {
        let named = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(folder) = self.bundle.clone().or_else(named) {
            return Ok(folder);
        }
        let program = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let beside = program.iter().flat_map(|folder| {
            // target/release/anatomix stands two folders below the repository.
            let repository = folder.ancestors().nth(2).map(|root| root.join(REFERENCE[0]));
            let installed = folder.parent().map(|prefix| prefix.join(REFERENCE[2]));
            [Some(folder.join(REFERENCE[1])), installed, repository].into_iter().flatten()
        });
        let tried: Vec<PathBuf> = std::iter::once(PathBuf::from(REFERENCE[0])).chain(beside).collect();
        tried.iter().find(|folder| folder.join(anatomix::parts::bundle::MANIFEST).exists()).cloned().ok_or_else(|| {
            let places: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
            Failure::Message(format!("no bundle was found; tried {}; name one with --bundle DIR or {VARIABLE}", places.join(", ")))
        })
    }

    /// Limits the threads that read radiographs to the requested number.
    pub fn limit_threads(&self) {
        self.threads.iter().for_each(|threads| parallel::limit(threads.get()));
    }

    pub fn engine(&self, look_up: bool) -> Result<Engine, Failure> {
        let folder = self.bundle()?;
        let waiting = spinner("opening the bundle");
        let mut builder = Engine::builder().provider(self.provider).look_up(look_up).golden_check(!self.no_golden_check);
        if let Some(limit) = self.memory_limit {
            builder = builder.memory_limit(u64::from(limit.get()) << 20);
        }
        if let Some(threads) = self.threads {
            builder = builder.threads(threads.get());
        }
        if let Some(library) = &self.library {
            builder = builder.library(library);
        }
        if let Some(key) = self.public_key()? {
            builder = builder.public_key(key);
        }
        if self.log {
            builder = builder.log(|level, message| remark(&format!("{level}: {message}")));
        }
        let engine = builder.open(folder);
        waiting.finish_and_clear();
        Ok(engine?)
    }
}

/// Reads a public key.
fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let failed = |problem: String| Failure::Fatal(format!("the public key {} cannot be used: {problem}", path.display()));
    let text = files::read(path, 4096).map_err(|error| failed(format!("it cannot be read: {error}")))?;
    String::from_utf8_lossy(&text).parse().map_err(|error: BundleError| failed(error.to_string()))
}

/// Parses a number of threads, at most one for each core.
fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads: NonZeroUsize = positive(text)?;
    let options = runtime::Options { threads: Some(threads.get()), ..Default::default() };
    options.check().map(|()| threads).map_err(|e| e.to_string())
}

/// Parses a whole number that is at least 1.
pub fn positive<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "the number is too large".into(),
        _ => "it must be a whole number, 1 or more".into(),
    })
}

/// Parses a time in seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "it must be a number of seconds, 0 or more; without the option there is no deadline".into())
}

/// Why a command failed.
pub enum Failure {
    /// One of its inputs or outputs failed; the command may continue with the next one.
    Message(String),
    /// The command cannot continue.
    Fatal(String),
    /// The radiograph is flagged as not a chest, not frontal or not for display, and the question does not accept that.
    Flagged(String),
    /// The command line is wrong.
    Usage(String),
    /// The reader of standard output closed the pipe.
    PipeClosed,
    /// The command failed, and its messages were printed already.
    Reported,
}

impl From<anatomix::Error> for Failure {
    fn from(error: anatomix::Error) -> Self {
        match error.code() {
            ErrorCode::RadiographFlagged => Self::Flagged(error.full_message()),
            _ => Self::Message(error.full_message()),
        }
    }
}

/// An error of standard output. Errors of files have messages of their own.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::Fatal(format!("cannot write to standard output: {error}; check where it goes to")),
        }
    }
}

/// Prints an error as one line on standard error. What it quotes is shown as it was given, with its white space.
pub fn complain(message: &str) {
    remark(&format!("error: {message}"));
}

/// A spinner that is visible on a terminal only, until it is cleared.
pub fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A progress bar; `template` is indicatif's.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("━╸─"))
}

/// Reads a text file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String, Failure> {
    let unreadable = |what: &str, advice: &str| Failure::Message(format!("{} {what}; {advice}", path.display()));
    let bytes = files::read(path, limit).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => unreadable(&format!("has more than {limit} bytes"), "shorten it"),
        _ => unreadable(&format!("cannot be read: {error}"), "name a readable file"),
    })?;
    String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8", "convert it"))
}

/// The name of the standard stream that goes to this file, if one does.
#[cfg(unix)]
fn standard_stream(path: &Path) -> Option<&'static str> {
    use rustix::fs::fstat;
    use rustix::stdio::{stderr, stdout};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let found = std::fs::metadata(path).ok().filter(|found| !found.file_type().is_char_device())?;
    let is = |stream: rustix::io::Result<rustix::fs::Stat>| {
        stream.is_ok_and(|stream| (stream.st_dev, stream.st_ino) == (found.dev(), found.ino()))
    };
    if is(fstat(stdout())) {
        return Some("standard output, where the results go");
    }
    is(fstat(stderr())).then_some("standard error, where messages go")
}

#[cfg(not(unix))]
fn standard_stream(_: &Path) -> Option<&'static str> {
    None
}

/// What output files must not replace: the files that a command reads, and those in the bundle.
pub struct Kept {
    inputs: BTreeSet<PathBuf>,
    /// The bundle's manifest lists all its files, so none is added either.
    bundle: Option<PathBuf>,
}

impl Kept {
    pub fn new<'a>(inputs: impl IntoIterator<Item = &'a Path>, bundle: &Path) -> Self {
        Self { inputs: inputs.into_iter().filter_map(|path| path.canonicalize().ok()).collect(), bundle: bundle.canonicalize().ok() }
    }

    /// Checks, before any work is done, that an option's file replaces nothing that is kept and can be written.
    pub fn check(&self, option: &str, out: &Path) -> Result<(), Failure> {
        let (place, shown) = (destination(out).ok(), out.display());
        let stream = if out == Path::new("-") { Some("standard output, where the results go") } else { standard_stream(out) };
        if let Some(stream) = stream {
            return Err(Failure::Usage(format!("{option} {shown}: the file cannot go to {stream}; name a file")));
        }
        if place.as_ref().is_some_and(|place| self.inputs.contains(place)) {
            return Err(Failure::Usage(format!("{option} would replace {shown}, which is read; name another file")));
        }
        if let (Some(bundle), Some(place)) = (&self.bundle, place)
            && place.starts_with(bundle)
        {
            return Err(Failure::Usage(format!("{option} {shown} would write into the bundle; name a file elsewhere")));
        }
        Ok(check_writable(out).map_err(Error::from)?)
    }

    /// Checks all files that a command writes, each with its option, as [`Kept::check`] does, and that no two are the same.
    pub fn check_all<'a>(&self, outs: impl IntoIterator<Item = (&'a str, &'a Path)>) -> Result<(), Failure> {
        let mut taken: BTreeMap<PathBuf, (&str, &Path)> = BTreeMap::new();
        for (option, out) in outs {
            self.check(option, out)?;
            let Ok(place) = destination(out) else { continue };
            if let Some((other, path)) = taken.insert(place, (option, out)) {
                let (one, two) = (path.display(), out.display());
                return Err(Failure::Usage(format!("{other} {one} and {option} {two} name the same file; give each its own")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kept: &Kept, out: &Path) -> String {
        match kept.check("--save", out) {
            Err(Failure::Usage(message)) => message,
            Err(_) => panic!("{} is not a usage error", out.display()),
            Ok(()) => panic!("{} is accepted", out.display()),
        }
    }

    #[test]
    fn what_is_read_is_not_replaced_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let [image, link, other] = ["image", "link", "other"].map(|name| folder.path().join(name));
        std::fs::write(&image, "pixels").unwrap();
        std::os::unix::fs::symlink(&image, &link).unwrap();
        let kept = Kept::new([image.as_path(), &folder.path().join("none")], &folder.path().join("bundle"));
        for same in [folder.path().join("./image"), link] {
            let message = refused(&kept, &same);
            assert!(message.starts_with("--save would replace"), "{message}");
        }
        assert!(kept.check("--save", &other).is_ok());
        assert!(refused(&kept, Path::new("-")).contains("name a file"));
    }

    #[test]
    fn nothing_is_written_into_a_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let [bundle, link] = ["bundle", "link"].map(|name| folder.path().join(name));
        std::fs::create_dir(&bundle).unwrap();
        std::os::unix::fs::symlink(&bundle, &link).unwrap();
        std::fs::write(bundle.join("apm.onnx"), "weights").unwrap();
        std::os::unix::fs::symlink(bundle.join("apm.onnx"), folder.path().join("elsewhere")).unwrap();
        for (bundle, out) in [(&bundle, "bundle/apm.onnx"), (&bundle, "link/new"), (&link, "bundle/./new"), (&bundle, "elsewhere")] {
            let message = refused(&Kept::new([], bundle), &folder.path().join(out));
            assert!(message.contains("into the bundle"), "{out}: {message}");
        }
        assert!(Kept::new([], &bundle).check("--save", &folder.path().join("bundle.study")).is_ok());
    }

    #[test]
    fn places_that_cannot_be_written_are_found_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new([], Path::new("bundle"));
        for out in [folder.path().join("none/study"), folder.path().into(), "/dev/full".into()] {
            let done = kept.check("--save", &out);
            assert!(matches!(done, Err(Failure::Message(message)) if message.contains(out.to_str().unwrap())), "{}", out.display());
        }
    }

    #[test]
    fn texts_are_read_as_far_as_they_may_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.json");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read_text(&path, 10)
        };
        assert!(matches!(read(b"0123456789"), Ok(text) if text == "0123456789"));
        let message = |result| match result {
            Err(Failure::Message(message)) => message,
            _ => panic!("accepted"),
        };
        assert!(message(read(b"0123456789a")).ends_with("schema.json has more than 10 bytes; shorten it"));
        assert!(message(read(b"\xff")).ends_with("is not UTF-8; convert it"));
        assert!(message(read_text(Path::new("/dev/zero"), 10)).contains("/dev/zero cannot be read: it is not a regular file"));
        assert!(message(read_text(&folder.path().join("none"), 10)).contains("cannot be read"));
    }
}
