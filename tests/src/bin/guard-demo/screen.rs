//! What a person sees.

use std::io::{IsTerminal, Write, stderr, stdout};

/// Where the demo's story is told: on standard output, or on standard error where standard output
/// is for a program.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    colour: bool,
}

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
        Self { out, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
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
        self.line(&format!("   {who:<10} {what}"));
    }

    /// A finding that is the point of guard.
    pub(crate) fn good(&mut self, text: &str) {
        let mark = self.paint(GREEN, "✓");
        self.line(&format!("   {mark} {text}"));
    }

    /// A finding that is the point of the incident.
    pub(crate) fn bad(&mut self, text: &str) {
        let mark = self.paint(YELLOW, "!");
        self.line(&format!("   {mark} {text}"));
    }

    /// A finding that should not be.
    pub(crate) fn broken(&mut self, text: &str) {
        let mark = self.paint(RED, "✗");
        self.line(&format!("   {mark} {text}"));
    }

    /// What a program printed.
    pub(crate) fn quote(&mut self, command: &str, text: &str) {
        let command = self.paint(BOLD, command);
        self.line(&format!("   {command}"));
        for line in text.lines() {
            let line = self.paint(DIM, line);
            self.line(&format!("     {line}"));
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        // A reader that hung up, as `head` does, is no reason to stop measuring.
        let _ = writeln!(self.out, "{text}");
    }
}
