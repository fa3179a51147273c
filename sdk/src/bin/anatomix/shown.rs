//! All output of the program goes through here, so that no text from a file can send control sequences to a terminal.
//!
//! Names of files and bundles, header fields, flags of saved studies, and answers come from outside. Control characters in them, and those
//! that change the direction of a line, are printed as `\u{1b}` and the like. In JSON they are escaped as JSON allows it.

use anatomix::parts::text::controls_terminal;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Escapes a text of one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, controls_terminal)
}

/// Escapes a text of several lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| controls_terminal(character) && character != '\n')
}

fn escaped(text: &str, controls_terminal: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&controls_terminal) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match controls_terminal(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown.into()
}

/// Escapes JSON so that it stays JSON: outside of its strings only white space can be a control character, and inside of them any
/// character may be written as `\u202e` and the like.
fn json(text: &str) -> Cow<'_, str> {
    let is_escaped = |character| controls_terminal(character) && !matches!(character, '\n' | '\t');
    if !text.contains(is_escaped) {
        return text.into();
    }
    let escape = |character| match character {
        '\r' => "\n".into(),
        character if is_escaped(character) => format!("\\u{:04x}", u32::from(character)),
        character => character.to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

/// Whether standard output was closed when the program was started.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Looks at standard output before `main`. Rust's runtime, which starts later, opens /dev/null in the place of a closed standard output, so
/// that everything would be lost without an error.
// SAFETY: this runs before Rust's runtime is started, and uses nothing of it: it makes a system call and stores a flag.
#[cfg(unix)]
#[ctor::ctor(unsafe)]
fn look_at_output() {
    CLOSED.store(rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err(), Ordering::Relaxed);
}

/// Whether nobody can see the output, because standard output is closed.
pub fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Standard output.
pub struct Out(StdoutLock<'static>);

/// Locks standard output.
pub fn out() -> Out {
    Out(io::stdout().lock())
}

impl Out {
    /// Prints a line.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.0, "{}", line(&text.to_string()))
    }

    /// Prints a piece of text, which may have several lines, and flushes it.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        write!(self.0, "{}", lines(text))?;
        self.0.flush()
    }

    /// Prints a piece of JSON, and flushes it.
    pub fn json_text(&mut self, text: &str) -> io::Result<()> {
        write!(self.0, "{}", json(text))?;
        self.0.flush()
    }

    /// Prints a value as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut self.0, Harmless)).map_err(io::Error::from)?;
        writeln!(self.0)
    }
}

/// Prints a line on standard error. If standard error is closed, the line is lost.
pub fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{}", line(text));
}

/// Compact JSON whose strings have no control characters.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(controls_terminal) {
            let (before, order) = rest.split_at(at);
            CompactFormatter.write_string_fragment(writer, before)?;
            let character = order.chars().next().unwrap_or_default();
            // All of them have four digits at most.
            write!(writer, "\\u{:04x}", u32::from(character))?;
            rest = &order[character.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characters that may control a terminal.
    const ORDERS: &str = "\u{1b}[31m \u{7f} \u{9b}2J \u{7} \r \u{202e} \u{2066} \u{2028}";

    #[test]
    fn orders_are_shown() {
        assert_eq!(line("Pleural Effusion, 30 %: Größe µ"), "Pleural Effusion, 30 %: Größe µ");
        assert_eq!(line("a\u{1b}[31m\nb\tc"), r"a\u{1b}[31m\nb\tc");
        assert_eq!(lines("a\u{9b}2J\nb"), "a\\u{9b}2J\nb");
        assert!(!line(ORDERS).contains(controls_terminal) && !lines(ORDERS).contains(controls_terminal));
    }

    #[test]
    fn json_says_the_same_without_them() {
        let value = serde_json::json!({ ORDERS: [ORDERS, "plain", 1.5] });
        let mut written = Vec::new();
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut written, Harmless)).unwrap();
        let text = String::from_utf8(written).unwrap();
        assert!(!text.contains(controls_terminal), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn json_that_is_text_stays_json() {
        let text = format!("{{\"{0}\":\t[\r\n\"{0}\"]}}", ORDERS.replace(|c| c < ' ', ""));
        let shown = json(&text);
        assert!(!shown.contains(|c| controls_terminal(c) && !matches!(c, '\n' | '\t')), "{shown:?}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&shown), read(&text));
    }

    #[test]
    fn nothing_else_writes() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/anatomix")).unwrap() {
            let path = entry.unwrap().path();
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]").next().unwrap();
            let writes = ["stdout().lock", "writeln!(", "write!(", "println!(", "print!(", "io::stderr("].map(|way| source.contains(way));
            assert!(path.ends_with("shown.rs") || writes == [false; 6], "{} writes past shown.rs", path.display());
        }
    }
}
