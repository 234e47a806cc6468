//! Standard output: one document, or one line after the other.

use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use crate::{cli::Format, error::Error};

/// What tables need to know of the place where they are read.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
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
pub trait View: Serialize {
    /// The text, with its last newline.
    fn text(&self, screen: Screen) -> String;
}

/// Prints in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Output(pub Format);

impl Output {
    /// Prints one document or one line.
    ///
    /// # Errors
    /// Standard output cannot be written, e.g. since its reader has gone.
    pub fn print(self, view: &impl View) -> Result<(), Error> {
        let mut text = match self.0 {
            Format::Json => serde_json::to_string(view)?,
            Format::Table => view.text(Screen::of_stdout()),
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
pub fn partly(rows: usize, total: i32) {
    let total = usize::try_from(total).unwrap_or(0);
    if rows < total {
        // Where stderr is closed, nobody reads it.
        let _ = writeln!(
            io::stderr(),
            "the answer lists {rows} of {total}; `guardctl leases` shows what became of the others"
        );
    }
}

/// The text without control characters: names of interfaces can hold any byte, and a terminal
/// would obey them.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_given_orders() {
        assert_eq!(printable("veth\x1b[2J"), "veth?[2J");
    }
}
