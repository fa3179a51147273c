//! `anatomix chat`: a conversation about a radiograph.

use crate::ask::{Output, Session};
use crate::common::{Failure, Options, complain};
use crate::shown::remark;
use anatomix::{Question, Task};
use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;

/// Longest line that is read, in bytes. No question may be as long.
const MAX_LINE: usize = 1 << 16;

/// Hold a conversation about a radiograph: the model sees the earlier questions and answers
///
/// A line is a question. A line that begins with a slash is a command: /rewind removes the last question and its answer, /rewind N the
/// last N; /report, /phrase_grounding and so on set one of the nine tasks, followed by a question if the task needs one; /help lists the
/// commands; /quit or the end of the input ends the chat. On a terminal Ctrl-C ends an answer early. --overlay draws the last answer;
/// --save keeps the study without questions and answers.
#[derive(Args)]
pub struct Chat {
    /// DICOM, PNG or JPEG file, or a study that --save wrote
    image: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Nothing,
    Ask(Option<Task>, &'a str),
    Rewind(usize),
    Help,
    Quit,
}

impl Chat {
    pub fn run(&self, options: &Options) -> Result<(), Failure> {
        let mut session = self.output.open(options, &self.image)?;
        let (lines, terminal) = (Lines::open()?, io::stdin().is_terminal());
        if terminal {
            let cancel = session.study.cancel_handle();
            ctrlc::set_handler(move || cancel.cancel()).map_err(|e| Failure::Fatal(format!("Ctrl-C cannot be handled: {e}")))?;
            remark("ask a question, or /help");
        }
        let mut failed = false;
        for line in lines {
            let done = line.and_then(|line| match parse(&line) {
                Ok(line) => self.follow(line, &mut session),
                Err(message) => Err(Failure::Message(message)),
            });
            match done {
                Ok(true) => {}
                Ok(false) => break,
                // The conversation stays as it was.
                Err(Failure::Message(message)) => {
                    complain(&message);
                    failed = true;
                }
                Err(failure) => return Err(failure),
            }
        }
        session.close()?;
        // On a terminal the user has seen the messages, so the exit code is 0.
        if failed && !terminal { Err(Failure::Reported) } else { Ok(()) }
    }

    /// Executes a line. Returns whether the chat continues.
    fn follow(&self, line: Line, session: &mut Session) -> Result<bool, Failure> {
        match line {
            Line::Ask(task, text) => {
                let mut question = Question::new(text).follow_up();
                question.task = task;
                // Ctrl-C that was pressed before there was a question is not meant for it.
                session.study.cancel_handle().reset();
                session.ask(vec![self.output.question(question)?])?;
            }
            Line::Rewind(count) => {
                let turns = session.study.turns().saturating_sub(count);
                session.study.rewind(turns);
                remark(&format!("questions left: {turns}"));
            }
            Line::Help => help(),
            Line::Nothing => {}
            Line::Quit => return Ok(false),
        }
        Ok(true)
    }
}

/// Lines of standard input, with editing on a terminal.
enum Lines {
    Edited(Box<DefaultEditor>),
    Plain(io::StdinLock<'static>),
}

impl Lines {
    fn open() -> Result<Self, Failure> {
        // The editor writes to standard output, which must contain answers only if it is not a terminal.
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            let editor = DefaultEditor::new().map_err(|e| unreadable(&e))?;
            return Ok(Self::Edited(Box::new(editor)));
        }
        Ok(Self::Plain(io::stdin().lock()))
    }
}

impl Iterator for Lines {
    type Item = Result<String, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Edited(editor) => loop {
                return match editor.readline("> ") {
                    Ok(line) => {
                        let _ = editor.add_history_entry(&line);
                        Some(Ok(line))
                    }
                    // Ctrl-C discards the line.
                    Err(ReadlineError::Interrupted) => continue,
                    Err(ReadlineError::Eof) => None,
                    Err(error) => Some(Err(unreadable(&error))),
                };
            },
            Self::Plain(input) => plain(input).transpose(),
        }
    }
}

/// Reads the next line, if there is one. At most `MAX_LINE` bytes of it are kept in memory.
fn plain(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    input.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line).map_err(|e| unreadable(&e))?;
    if line.len() > MAX_LINE {
        return Err(Failure::Fatal(format!("a line has more than {MAX_LINE} bytes; enter a shorter one")));
    }
    if line.is_empty() {
        return Ok(None);
    }
    String::from_utf8(line).map(Some).map_err(|_| Failure::Message("a line is not UTF-8; convert it".into()))
}

fn parse(line: &str) -> Result<Line<'_>, String> {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() { Line::Nothing } else { Line::Ask(None, line) });
    };
    let (name, rest) = command.split_once(char::is_whitespace).map_or((command, ""), |(name, rest)| (name, rest.trim()));
    match (name, rest) {
        ("rewind", "") => Ok(Line::Rewind(1)),
        ("rewind", count) => count.parse().map(Line::Rewind).map_err(|_| format!("/rewind {count}: this is not a number of questions")),
        ("help", _) => Ok(Line::Help),
        ("quit", _) => Ok(Line::Quit),
        _ => match Task::from_name(name) {
            Some(task) => Ok(Line::Ask(Some(task), rest)),
            None => Err(format!("/{name} is not a command; /help lists the commands")),
        },
    }
}

fn help() {
    remark("/rewind [N]  remove the last question and its answer, or the last N");
    for task in Task::ALL {
        let question = if task.instruction().is_some() { "" } else { " QUESTION" };
        remark(&format!("/{}{question}", task.name()));
    }
    remark("/quit");
}

fn unreadable(error: &dyn std::error::Error) -> Failure {
    Failure::Fatal(format!("cannot read questions: {error}; check where standard input comes from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_far_as_they_may_go() {
        let mut input = &b"one\n\xff\n\nlast"[..];
        let mut next = || plain(&mut input);
        assert!(matches!(next(), Ok(Some(line)) if line == "one\n"));
        assert!(matches!(next(), Err(Failure::Message(_))));
        assert!(matches!(next(), Ok(Some(line)) if line == "\n"));
        assert!(matches!(next(), Ok(Some(line)) if line == "last"));
        assert!(matches!(next(), Ok(None)));
        assert!(matches!(plain(&mut io::BufReader::new(io::repeat(b'x'))), Err(Failure::Fatal(_))));
    }

    #[test]
    fn lines_are_questions_or_commands() {
        assert_eq!(parse("  "), Ok(Line::Nothing));
        assert_eq!(parse(" Where is the heart? "), Ok(Line::Ask(None, "Where is the heart?")));
        assert_eq!(parse("/report"), Ok(Line::Ask(Some(Task::Report), "")));
        assert_eq!(parse("/phrase_grounding  left effusion"), Ok(Line::Ask(Some(Task::PhraseGrounding), "left effusion")));
        assert_eq!((parse("/rewind"), parse("/rewind 3")), (Ok(Line::Rewind(1)), Ok(Line::Rewind(3))));
        assert_eq!((parse("/help"), parse("/quit")), (Ok(Line::Help), Ok(Line::Quit)));
        assert!(parse("/rewind all").is_err() && parse("/no").unwrap_err().contains("/help"));
    }
}
