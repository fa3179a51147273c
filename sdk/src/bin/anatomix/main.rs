//! The command line: `anatomix perceive`, `ask`, `chat`, `report`, `bundle` and `providers`.

mod ask;
mod bundle;
mod chat;
mod common;
mod perceive;
mod print;
mod providers;
mod report;
mod shown;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use common::{Failure, Options};
use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;

/// Exit code if the radiograph is flagged as not a chest or not frontal and the question does not accept that.
const FLAGGED: u8 = 3;
const EXIT_CODES: &str = "Exit codes:
  0  everything was done
  1  something failed; standard error says what
  2  the command line is wrong
  3  the radiograph is flagged not_chest or not_frontal, and its flags were not accepted (--accept-flags)";

/// Anatomy-aware chest X-ray interpretation. Research use, not a medical device.
#[derive(Parser)]
#[command(name = "anatomix", version, arg_required_else_help = true, after_help = EXIT_CODES)]
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
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    cli.options.limit_threads();
    let done = match &cli.command {
        Command::Perceive(command) => command.run(&cli.options),
        Command::Ask(command) => command.run(&cli.options),
        Command::Chat(command) => command.run(&cli.options),
        Command::Report(command) => command.run(&cli.options),
        Command::Bundle(command) => command.run(&cli.options),
        Command::Providers(command) => command.run(&cli.options),
    };
    match done.and_then(|()| Ok(std::io::stdout().flush()?)) {
        // A reader that closes the pipe, such as `head`, has read what it needs: this is no failure.
        Ok(()) | Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::FAILURE,
        Err(Failure::Usage(message)) => Cli::command().error(ErrorKind::ValueValidation, shown::line(&message)).exit(),
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

/// Prints what is wrong with the command line, or the requested help, and exits.
fn refuse(error: &clap::Error) -> ! {
    // clap's messages contain the arguments as they are, so control characters in them have to be escaped.
    let is_plain = |argument: std::ffi::OsString| matches!(shown::line(&argument.to_string_lossy()), Cow::Borrowed(_));
    if std::env::args_os().all(is_plain) {
        error.exit();
    }
    error.render().to_string().trim_end().lines().for_each(shown::remark);
    std::process::exit(error.exit_code())
}
