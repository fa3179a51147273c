//! The command line, with a file for each command.

pub mod evaluate;
pub mod export;
pub mod import;
pub mod phantom;
pub mod prepare;
pub mod report;
pub mod score;
pub mod tables;
pub mod train;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Train AnatomiX and export its bundles. Research use, not a medical device.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(report::Compare),
    Evaluate(evaluate::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
    Phantom(phantom::Arguments),
    Prepare(prepare::Arguments),
    Report(report::Report),
    Score(score::Arguments),
    Tables(tables::Arguments),
    Train(train::Arguments),
}

impl Arguments {
    /// Runs the command.
    ///
    /// # Errors
    /// If the command fails.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Compare(arguments) => report::compare(&arguments),
            Command::Evaluate(arguments) => evaluate::run(&arguments),
            Command::Export(arguments) => export::run(&arguments),
            Command::Import(arguments) => import::run(&arguments),
            Command::Phantom(arguments) => phantom::run(&arguments),
            Command::Prepare(arguments) => prepare::run(&arguments),
            Command::Report(arguments) => report::report(&arguments),
            Command::Score(arguments) => score::run(&arguments),
            Command::Tables(arguments) => tables::run(&arguments),
            Command::Train(arguments) => train::run(&arguments),
        }
    }
}
