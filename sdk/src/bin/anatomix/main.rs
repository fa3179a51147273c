//! The command line: `anatomix perceive`, `ask`, `chat`, `report`, `bundle`, `providers` and `completions`.

mod ask;
mod bundle;
mod chat;
mod common;
mod documents;
mod help;
mod image;
mod perceive;
mod print;
mod providers;
mod report;
mod shown;
mod sign;

use clap::error::ErrorKind;
use clap::{FromArgMatches, Parser, Subcommand};
use common::{Failure, Options};
use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;
#[cfg(unix)]
use std::sync::{Arc, atomic::AtomicBool};

/// Exit code if the radiograph is flagged as not a chest, not frontal or not for display and the question does not accept that.
const FLAGGED: u8 = 3;
/// Exit code if the reader of standard output closed the pipe: 128 and the number of SIGPIPE, as shells print it for other programs.
const PIPE_CLOSED: u8 = 128 + 13;

/// Anatomy-aware chest X-ray interpretation. Research use, not a medical device.
#[derive(Parser)]
#[command(name = "anatomix", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Perceive(perceive::Perceive),
    Ask(ask::Ask),
    Chat(chat::Chat),
    Report(report::Report),
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    Providers(providers::Providers),
    Completions(help::Completions),
    /// For those who install the program.
    #[command(hide = true)]
    Man(help::ManualPages),
}

fn main() -> ExitCode {
    if shown::is_closed() {
        common::complain("standard output is closed, and results go there; redirect it to a file or to /dev/null");
        return ExitCode::FAILURE;
    }
    #[cfg(unix)]
    outlive_large_files();
    let matches = help::command().try_get_matches();
    let path = matches.as_ref().map(help::path).unwrap_or_default();
    let parsed = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let done = parsed.map_or_else(|error| refuse(&error), |cli| cli.run());
    match done.and_then(|()| Ok(std::io::stdout().flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader such as `head` has read what it needs, so nothing is said.
        Err(Failure::PipeClosed) => ExitCode::from(PIPE_CLOSED),
        Err(Failure::Reported) => ExitCode::FAILURE,
        Err(Failure::Usage(message)) => help::command_at(&path).error(ErrorKind::ValueValidation, shown::line(&message)).exit(),
        Err(Failure::Flagged(message)) => {
            common::complain(&message);
            ExitCode::from(FLAGGED)
        }
        Err(Failure::Message(message) | Failure::Fatal(message)) => {
            common::complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Has the system refuse to write a file beyond the limit of its size (`ulimit -f`), which is an error, instead of ending the program.
#[cfg(unix)]
fn outlive_large_files() {
    // The signal is only noted. If the system refuses that, the program ends as others do.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::<AtomicBool>::default());
}

impl Cli {
    fn run(&self) -> Result<(), Failure> {
        self.options.limit_threads();
        match &self.command {
            Command::Perceive(command) => command.run(&self.options),
            Command::Ask(command) => command.run(&self.options),
            Command::Chat(command) => command.run(&self.options),
            Command::Report(command) => command.run(&self.options),
            Command::Bundle(command) => command.run(&self.options),
            Command::Providers(command) => command.run(&self.options),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }
    }
}

/// Prints the requested help or version, or prints what is wrong with the command line and exits.
fn refuse(error: &clap::Error) -> Result<(), Failure> {
    if !error.use_stderr() {
        return Ok(error.print()?);
    }
    // clap's messages quote the arguments, but lose control sequences in them. So it is given the arguments as they are to be shown.
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let shown: Vec<Cow<str>> = arguments.iter().map(|argument| shown::line(argument)).collect();
    if shown.iter().all(|argument| matches!(argument, Cow::Borrowed(_))) {
        error.exit();
    }
    let shown = shown.iter().map(|argument| &**argument);
    let escaped = help::command().try_get_matches_from(shown).err().filter(|escaped| escaped.kind() == error.kind());
    escaped.as_ref().unwrap_or(error).render().to_string().trim_end().lines().for_each(shown::remark);
    std::process::exit(error.exit_code())
}
