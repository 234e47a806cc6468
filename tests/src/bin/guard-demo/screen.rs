//! What a person sees.

use std::io::{IsTerminal, Write, stderr, stdout};

/// Where the demo's story is told: on standard output, or on standard error where standard output
/// is for a program.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    terminal: bool,
    colour: bool,
}

/// How wide a terminal is at least.
const WIDTH: usize = 80;
/// Before what is a part of something, and before what a program printed.
const INDENT: usize = 3;
const QUOTED: usize = 5;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Screen {
    pub(crate) fn new(stdout_is_for_json: bool) -> Self {
        let terminal =
            if stdout_is_for_json { stderr().is_terminal() } else { stdout().is_terminal() };
        let out: Box<dyn Write> =
            if stdout_is_for_json { Box::new(stderr()) } else { Box::new(stdout()) };
        Self { out, terminal, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    pub(crate) fn title(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        self.line(&text);
    }

    pub(crate) fn part(&mut self, number: u8, text: &str) {
        let text = self.paint(BOLD, &format!("{number}  {text}"));
        self.line(&format!("\n{text}"));
    }

    /// What happens: somebody, and what they do.
    pub(crate) fn step(&mut self, who: &str, what: &str) {
        let who = format!("{who:<10}");
        self.told(&who, who.len(), what);
    }

    /// A finding that is the point of guard.
    pub(crate) fn good(&mut self, text: &str) {
        let mark = self.paint(GREEN, "✓");
        self.told(&mark, 1, text);
    }

    /// A finding that is the point of the incident.
    pub(crate) fn bad(&mut self, text: &str) {
        let mark = self.paint(YELLOW, "!");
        self.told(&mark, 1, text);
    }

    /// A finding that should not be.
    pub(crate) fn broken(&mut self, text: &str) {
        let mark = self.paint(RED, "✗");
        self.told(&mark, 1, text);
    }

    /// How many columns there are for what a program prints.
    pub(crate) fn columns(&self) -> usize {
        WIDTH - QUOTED
    }

    /// What a program printed.
    pub(crate) fn quote(&mut self, command: &str, text: &str) {
        let command = self.paint(BOLD, command);
        self.line(&format!("{:INDENT$}{command}", ""));
        for line in text.lines() {
            for piece in self.folded(line, self.columns()) {
                let piece = self.paint(DIM, &piece);
                self.line(&format!("{:QUOTED$}{piece}", ""));
            }
        }
    }

    /// Text behind something that takes so many columns.
    fn told(&mut self, lead: &str, columns: usize, text: &str) {
        let mut lead = lead.to_owned();
        for piece in self.folded(text, WIDTH - INDENT - columns - 1) {
            self.line(&format!("{:INDENT$}{lead} {piece}", ""));
            lead = " ".repeat(columns);
        }
    }

    /// As lines for a terminal; what is no terminal gets it as it is.
    fn folded(&self, text: &str, width: usize) -> Vec<String> {
        if self.terminal { fold(text, width) } else { vec![text.to_owned()] }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        // A reader that hung up, as `head` does, is no reason to stop measuring.
        let _ = writeln!(self.out, "{text}");
    }
}

/// Breaks a line that is too long between its words; a word that is too long stays whole.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        if !line.is_empty() && line.chars().count() + word.trim_end().chars().count() > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_between_words_and_others_stay_as_they_are() {
        assert_eq!(fold("ADDRESS    STATE", 16), ["ADDRESS    STATE"]);
        assert_eq!(fold("one two three", 7), ["one two ", "three"]);
        assert_eq!(fold("one a-long-word", 6), ["one ", "a-long-word"]);
    }
}
