//! Standard output: one document, or one line after the other.

use std::io::{self, IsTerminal as _, Write as _};

use guard_core::text;
use jiff::Timestamp;
use serde::Serialize;

use crate::{cli::Format, error::Error};

/// What tables need to know of the place where they are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// In characters; the greatest where there is no terminal, and nothing is folded.
    pub width: u16,
    /// Whether to colour.
    pub colour: bool,
    /// For ages.
    pub now: Timestamp,
}

impl Screen {
    /// The terminal. What is read by a program or a file has no width, unless `COLUMNS` says so.
    fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let environment = |name| std::env::var(name).unwrap_or_default();
        let columns = || environment("COLUMNS").parse().ok().filter(|width| *width > 0);
        let width = comfy_table::Table::new().width().or_else(columns).unwrap_or(u16::MAX);
        let plain = !environment("NO_COLOR").is_empty() || environment("TERM") == "dumb";
        Self { width, colour: terminal && !plain, now: Timestamp::now() }
    }
}

/// An answer that reads as JSON and as text for people.
pub(crate) trait View: Serialize {
    /// The text, with its last newline.
    fn text(&self, screen: Screen) -> String;
}

/// Prints in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output(pub Format);

impl Output {
    /// Prints one document or one line.
    ///
    /// # Errors
    /// Standard output cannot be written, e.g. since its reader has gone.
    pub(crate) fn print(self, view: &impl View) -> Result<(), Error> {
        let mut text = match self.0 {
            Format::Json => json(&serde_json::to_string(view)?),
            Format::Table => {
                let screen = Screen::of_stdout();
                lines(&view.text(screen), screen.colour)
            }
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

/// Says so on standard error where the list on standard output is not whole: of what a call has
/// done, the agent lists as much as one answer takes.
pub(crate) fn partly(rows: usize, total: i32) {
    let total = usize::try_from(total).unwrap_or(0);
    if rows < total {
        // Where stderr is closed, nobody reads it.
        let _ = writeln!(
            io::stderr(),
            "the answer lists {rows} of {total}; `guardctl leases` shows what became of the others"
        );
    }
}

/// The text with escapes for what a terminal would obey, and for what cannot be seen: names of interfaces
/// can hold any byte.
pub(crate) fn printable(text: &str) -> String {
    text::escaped(text)
}

/// All of a text of several lines, whatever has made it: what is left of such characters are the ends of
/// lines and, in colour, colours.
fn lines(text: &str, colour: bool) -> String {
    let line = |line: &str| {
        let mut pieces = line.split('\x1b');
        let mut shown = printable(pieces.next().unwrap_or_default());
        for piece in pieces {
            let parameters = piece.strip_prefix('[').and_then(|piece| piece.split_once('m'));
            let is = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b';');
            let is_colour = colour && parameters.is_some_and(|(numbers, _)| is(numbers));
            shown.push_str(if is_colour { "\x1b" } else { "\\u{1b}" });
            shown.push_str(&printable(piece));
        }
        shown
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// JSON in which what cannot be seen is escaped, which is the same document.
fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if text::is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out += &format!("\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_given_orders() {
        assert_eq!(printable("veth\x1b[2J\u{202e}"), "veth\\u{1b}[2J\\u{202e}");
        let text = "\x1b[31mred\x1b[0m \x1b[2J\u{202e}\nb\r";
        assert_eq!(lines(text, true), "\x1b[31mred\x1b[0m \\u{1b}[2J\\u{202e}\nb\\r");
        assert_eq!(lines("\x1b[31mred\x1b[0m", false), "\\u{1b}[31mred\\u{1b}[0m");
    }

    #[test]
    fn json_shows_what_cannot_be_seen_and_is_the_same() {
        let name = "a\u{202e}b\u{e0041}\u{7f}é";
        let shown = json(&serde_json::to_string(name).unwrap());
        assert_eq!(shown, "\"a\\u202eb\\udb40\\udc41\\u007fé\"");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), name);
    }
}
