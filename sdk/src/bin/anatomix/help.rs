//! Examples and exit codes of each command, for `--help` and the manual pages; the commands `completions` and `man`, which write the
//! completions of a shell and those pages.

use super::Cli;
use super::common::{Failure, Options};
use super::documents::of_one_image;
use clap::{ArgMatches, Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Print the completions of a shell
#[derive(Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write the manual pages into a folder
#[derive(Args)]
pub struct ManualPages {
    /// The folder, which is made if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Examples of a command, a line each, and its exit codes.
struct Extra {
    command: &'static str,
    examples: &'static str,
    codes: &'static [Code],
}

/// An exit code and its meaning.
type Code = (u8, &'static str);

const DONE: Code = (0, "everything was done");
const FAILED: Code = (1, "something failed; standard error says what, and what to do");
const USAGE: Code = (2, "the command line is wrong");
const FLAGGED: Code = (
    super::FLAGGED,
    "the radiograph is flagged not_chest, not_frontal or for_processing, and its flags were not accepted (--accept-flags)",
);
const PIPE_CLOSED: Code = (super::PIPE_CLOSED, "the reader of standard output closed the pipe before everything was written");
const ALL: &[Code] = &[DONE, FAILED, USAGE, FLAGGED, PIPE_CLOSED];
const WITHOUT_FLAGS: &[Code] = &[DONE, FAILED, USAGE, PIPE_CLOSED];

/// The program's entry has an empty name; a subcommand's has both names, such as `bundle sign`.
const EXTRAS: &[Extra] = &[
    Extra {
        command: "",
        examples: "anatomix perceive chest.dcm --overlay boxes.png
anatomix ask chest.dcm \"Where is the left lung?\"
anatomix report chest.dcm --json",
        codes: ALL,
    },
    Extra {
        command: "perceive",
        examples: "anatomix perceive chest.dcm
anatomix perceive chest.dcm --overlay boxes.png --sr report.dcm
anatomix perceive *.dcm --json > results.jsonl",
        codes: &[
            DONE,
            (1, "an image failed, or the bundle cannot be opened; standard error says what, and what to do"),
            USAGE,
            PIPE_CLOSED,
        ],
    },
    Extra {
        command: "ask",
        examples: "anatomix ask chest.dcm \"Where is the left lung?\" --overlay answer.png
anatomix ask chest.dcm \"Is there a pleural effusion?\" \"Where is it?\" --follow-up
anatomix ask chest.dcm \"lung lesion in the left upper lung zone\" --task phrase_grounding --json
anatomix ask chest.dcm \"What is the finding in <box>(310,440),(560,700)</box>?\"",
        codes: ALL,
    },
    Extra { command: "chat", examples: "anatomix chat chest.dcm\nanatomix chat chest.dcm --json < questions.txt", codes: ALL },
    Extra {
        command: "report",
        examples: "anatomix report chest.dcm
anatomix report chest.dcm --sr report.dcm --overlay boxes.png
anatomix report chest.dcm --save chest.study && anatomix ask chest.study \"Is there a fracture?\"",
        codes: ALL,
    },
    Extra {
        command: "bundle",
        examples: "anatomix bundle info examples/reference-bundle
anatomix bundle verify vendor-bundle --public-key vendor.pub
anatomix bundle sign vendor-bundle --key vendor.key",
        codes: WITHOUT_FLAGS,
    },
    Extra {
        command: "bundle info",
        examples: "anatomix bundle info examples/reference-bundle\nanatomix bundle info --json",
        codes: WITHOUT_FLAGS,
    },
    Extra {
        command: "bundle verify",
        examples: "anatomix bundle verify vendor-bundle --public-key vendor.pub",
        codes: &[DONE, (1, "a file differs or cannot be read; standard error says which"), USAGE, PIPE_CLOSED],
    },
    Extra {
        command: "bundle sign",
        examples: "minisign -G -s vendor.key -p vendor.pub\nanatomix bundle sign vendor-bundle --key vendor.key",
        codes: WITHOUT_FLAGS,
    },
    Extra { command: "providers", examples: "anatomix providers\nanatomix providers --json --provider cuda", codes: WITHOUT_FLAGS },
    Extra {
        command: "completions",
        examples: "anatomix completions bash > ~/.local/share/bash-completion/completions/anatomix
anatomix completions zsh > ~/.zfunc/_anatomix
anatomix completions fish > ~/.config/fish/completions/anatomix.fish",
        codes: WITHOUT_FLAGS,
    },
];

impl Extra {
    /// Those of a command, whose name is that of [`EXTRAS`].
    fn of(command: &str) -> Option<&'static Self> {
        EXTRAS.iter().find(|extra| extra.command == command)
    }

    fn text(&self) -> String {
        let examples: String = self.examples.lines().map(|line| format!("  {line}\n")).collect();
        let codes: String = self.codes.iter().map(|(code, meaning)| format!("\n  {code:>3}  {meaning}")).collect();
        format!("Examples:\n{examples}\nExit codes:{codes}")
    }
}

/// The command line with its examples and exit codes.
pub fn command() -> Command {
    with_extras(Cli::command(), "")
}

/// The names of the commands that were given, from the outermost to the innermost, such as `bundle` and `sign`.
pub fn path(matches: &ArgMatches) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = matches;
    while let Some((name, inner)) = rest.subcommand() {
        names.push(name.to_owned());
        rest = inner;
    }
    names
}

/// The command at the end of a [`path`], whose usage an error shows.
pub fn command_at(path: &[String]) -> Command {
    let mut whole = command();
    // Gives each command the names of those before it.
    whole.build();
    path.iter().fold(whole, |command, name| command.find_subcommand(name).cloned().unwrap_or(command))
}

fn with_extras(command: Command, name: &str) -> Command {
    let command = match Extra::of(name) {
        Some(extra) => command.after_help(extra.text()),
        None => command,
    };
    let command = if matches!(name, "ask" | "chat" | "report") { of_one_image(command) } else { command };
    command.mut_subcommands(|inner| {
        let name = format!("{name} {}", inner.get_name());
        with_extras(inner, name.trim_start())
    })
}

/// The command line without hidden commands, which completions would name.
fn visible() -> Command {
    let shown: Vec<Command> = command().get_subcommands().filter(|inner| !inner.is_hide_set()).cloned().collect();
    Options::augment_args(Command::new("anatomix").version(env!("CARGO_PKG_VERSION"))).subcommands(shown)
}

impl Completions {
    pub fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut visible(), "anatomix", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}

impl ManualPages {
    pub fn run(&self) -> Result<(), Failure> {
        let failed = |path: &Path, error: std::io::Error| {
            Failure::Message(format!("{} cannot be written: {error}; choose another folder", path.display()))
        };
        std::fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))?;
        let mut whole = command().disable_help_subcommand(true);
        whole.build();
        for (name, page) in pages(&whole, "")? {
            let path = self.folder.join(name);
            std::fs::write(&path, page).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

/// File names and contents of the pages of a command and of those within it. `name` is that of [`EXTRAS`].
fn pages(command: &Command, name: &str) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut found = vec![page(command, name)?];
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        found.extend(pages(inner, format!("{name} {}", inner.get_name()).trim_start())?);
    }
    Ok(found)
}

fn page(command: &Command, name: &str) -> Result<(String, Vec<u8>), Failure> {
    let man = Man::new(command.clone().version(env!("CARGO_PKG_VERSION"))).source(concat!("anatomix ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(extra) = Extra::of(name) {
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        extra.examples.lines().for_each(|line| _ = roff.text([roman(line)]));
        roff.control("fi", []).control("SH", ["EXIT STATUS"]);
        for (code, meaning) in extra.codes {
            roff.control("TP", []).text([bold(code.to_string())]).text([roman(*meaning)]);
        }
        roff.to_writer(&mut page)?;
    }
    man.render_version_section(&mut page)?;
    Ok((man.get_filename(), page))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// All commands that a user sees, by the names of [`EXTRAS`].
    fn names(command: &Command, name: &str) -> Vec<String> {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help");
        let inner = inner.flat_map(|inner| names(inner, format!("{name} {}", inner.get_name()).trim_start()));
        std::iter::once(name.to_owned()).chain(inner).collect()
    }

    #[test]
    fn each_command_has_examples_and_exit_codes() {
        let names = names(&Cli::command(), "");
        assert_eq!(EXTRAS.iter().map(|extra| extra.command).collect::<Vec<_>>(), names);
        command().debug_assert();
    }

    #[test]
    fn examples_are_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("vendor.pub");
        std::fs::write(&key, "untrusted comment: a key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n").unwrap();
        let lines = EXTRAS.iter().flat_map(|extra| extra.examples.lines()).flat_map(|line| line.split(" && "));
        for line in lines.filter(|line| line.starts_with("anatomix ")) {
            // As a shell splits it: quotes keep spaces, and a redirection is not an argument.
            let line = line.replace("vendor.pub", key.to_str().unwrap());
            let line = [" > ", " < "].iter().fold(line.as_str(), |line, mark| line.split(mark).next().unwrap_or_default());
            let words = line.split('"').enumerate().flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            });
            let words: Vec<String> = words.collect();
            Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        }
    }
}
