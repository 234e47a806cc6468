//! What the workshop itself says. All of it goes to standard error, because standard output
//! belongs to the programs that it runs: `demo --json` promises a reader one line of JSON there.
//!
//! On a terminal a long task shows a spinner with the last line of its output; elsewhere, in CI's
//! log for one, the same task is a plain line at its start and one at its end.

use std::time::{Duration, Instant};

use console::style;
use indicatif::{ProgressBar, ProgressStyle};

/// Announces what is about to happen.
pub(crate) fn heading(text: &str) {
    eprintln!("{} {}", style("==>").cyan().bold().for_stderr(), style(text).bold().for_stderr());
}

/// States a fact.
pub(crate) fn line(text: &str) {
    eprintln!("    {text}");
}

/// States why the workshop stops: the operation, then each cause.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("{} {error:#}", style("error:").red().bold().for_stderr());
}

/// In the unit that a person would use.
pub(crate) fn took(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 60.. => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// A task that takes long enough for a person to wonder.
pub(crate) struct Task {
    title: String,
    started: Instant,
    // Draws nothing where standard error is not a terminal.
    bar: ProgressBar,
}

impl Task {
    /// Starts `title`; `why` says what it is needed for and, where it is long, how long.
    pub(crate) fn start(title: &str, why: &str) -> Self {
        let bar = ProgressBar::new_spinner().with_message(format!("{title}: {why}"));
        bar.set_style(
            ProgressStyle::with_template("  {spinner:.cyan} {wide_msg} {elapsed:.dim}")
                .expect("the template is a constant"),
        );
        if bar.is_hidden() {
            line(&format!("{title}: {why}"));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { title: title.to_owned(), started: Instant::now(), bar }
    }

    /// Shows where the task is, on a terminal only.
    pub(crate) fn progress(&self, text: &str) {
        self.bar.set_message(format!("{}: {text}", self.title));
    }

    /// States a fact on a line that stays.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| line(text));
    }

    /// Ends the task with success. Dropping it instead only clears the spinner.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        let tick = style("✓").green().for_stderr();
        eprintln!("  {tick} {} ({})", self.title, took(self.started.elapsed()));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_written_as_one() {
        assert_eq!(took(Duration::from_millis(48)), "48 ms");
        assert_eq!(took(Duration::from_millis(59_940)), "59.9 s");
        assert_eq!(took(Duration::from_secs(61)), "1 min 01 s");
    }
}
