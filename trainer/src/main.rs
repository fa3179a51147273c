//! `anatomix-trainer`: see `anatomix-trainer --help`.

use anatomix_trainer::commands::Arguments;
use anatomix_trainer::progress;
use anatomix_trainer::training::interrupt::Stopped;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Stopped>() {
            // As of a program that a signal ends.
            Some(stopped) => {
                progress::say(&stopped.to_string());
                ExitCode::from(130)
            }
            None => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
