//! `anatomix chat`: a conversation about a radiograph.

use crate::ask::{Output, Session};
use crate::common::{Failure, Options, complain, remark};
use anatomix::{Question, Task};
use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Talk about a radiograph: each question sees what was said before it
///
/// A line is a question. A line that begins with a slash is a command: /rewind forgets the last question and its answer, /rewind N the
/// last N; /report, /phrase_grounding and so on set one of the nine tasks, with the question behind them where they need one; /help
/// lists them; /quit ends, as the end of the input does. On a terminal Ctrl-C ends an answer early.
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
        let terminal = io::stdin().is_terminal();
        if terminal {
            let cancel = session.study.cancel_handle();
            ctrlc::set_handler(move || cancel.cancel()).map_err(|e| Failure::Fatal(format!("Ctrl-C cannot be handled: {e}")))?;
            remark("ask a question, or /help");
        }
        let mut editor = DefaultEditor::new().map_err(unreadable)?;
        let mut failed = false;
        loop {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(unreadable(error)),
            };
            let _ = editor.add_history_entry(&line);
            let done = match parse(&line) {
                Ok(Line::Quit) => break,
                Ok(line) => self.follow(line, &mut session),
                Err(message) => Err(Failure::Message(message)),
            };
            match done {
                // The conversation is as it was.
                Err(Failure::Message(message)) => {
                    complain(&message);
                    failed = true;
                }
                done => done?,
            }
        }
        session.close()?;
        // Whoever sits there has seen it.
        if failed && !terminal { Err(Failure::Reported) } else { Ok(()) }
    }

    fn follow(&self, line: Line, session: &mut Session) -> Result<(), Failure> {
        match line {
            Line::Ask(task, text) => {
                let mut question = Question::new(text).follow_up();
                question.task = task;
                session.ask(vec![self.output.question(question)?])?;
            }
            Line::Rewind(count) => {
                let turns = session.study.turns().saturating_sub(count);
                session.study.rewind(turns);
                remark(&format!("questions left: {turns}"));
            }
            Line::Help => help(),
            Line::Nothing | Line::Quit => {}
        }
        Ok(())
    }
}

fn parse(line: &str) -> Result<Line<'_>, String> {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() { Line::Nothing } else { Line::Ask(None, line) });
    };
    let (name, rest) = command.split_once(char::is_whitespace).map_or((command, ""), |(name, rest)| (name, rest.trim()));
    match (name, rest) {
        ("rewind", "") => Ok(Line::Rewind(1)),
        ("rewind", count) => count.parse().map(Line::Rewind).map_err(|_| format!("/rewind {count}: this is no number of questions")),
        ("help", _) => Ok(Line::Help),
        ("quit", _) => Ok(Line::Quit),
        _ => match Task::from_name(name) {
            Some(task) => Ok(Line::Ask(Some(task), rest)),
            None => Err(format!("/{name} is no command; /help lists them")),
        },
    }
}

fn help() {
    remark("/rewind [N]  forget the last question and its answer, or the last N");
    for task in Task::ALL {
        let question = if task.instruction().is_some() { "" } else { " QUESTION" };
        remark(&format!("/{}{question}", task.name()));
    }
    remark("/quit");
}

fn unreadable(error: ReadlineError) -> Failure {
    Failure::Fatal(format!("cannot read questions: {error}; check where standard input comes from"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
