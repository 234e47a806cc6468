//! What a running program has said: its log, its readiness and its end, in the order they came.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use parking_lot::{Condvar, Mutex};

use crate::wait::TIMEOUT;

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// Its text.
    pub text: String,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    ready: bool,
    exit: Option<Option<i32>>,
}

/// The journal of one run. Cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Journal {
    /// Everything it has logged so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.shared.0.lock().lines.clone()
    }

    /// Everything it has logged so far, as one text.
    #[must_use]
    pub fn text(&self) -> String {
        let state = self.shared.0.lock();
        state.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// How many lines it has logged that contain each of `parts`.
    #[must_use]
    pub fn count(&self, parts: &[&str]) -> usize {
        self.shared.0.lock().lines.iter().filter(|line| has_all(line, parts)).count()
    }

    /// Waits for a line that contains each of `parts`, also among those that were logged already.
    ///
    /// # Errors
    /// It ended, or time passed, without one.
    pub fn await_line(&self, parts: &[&str]) -> Result<Line> {
        self.wait(&format!("a log line with {parts:?}"), |state| {
            state.lines.iter().find(|line| has_all(line, parts)).cloned()
        })
    }

    pub(crate) fn await_ready(&self) -> Result<()> {
        self.wait("READY=1", |state| state.ready.then_some(()))
    }

    /// Waits for its end and returns its exit code, `None` where a signal ended it.
    pub(crate) fn await_exit(&self) -> Result<Option<i32>> {
        self.wait("the end of the program", |state| state.exit)
    }

    pub(crate) fn set_ready(&self) {
        self.shared.0.lock().ready = true;
        self.shared.1.notify_all();
    }

    pub(crate) fn set_exit(&self, code: Option<i32>) {
        self.shared.0.lock().exit = Some(code);
        self.shared.1.notify_all();
    }

    /// Reads a log to its end, with a copy in a file for those who come later.
    pub(crate) fn read(&self, log: impl Read, copy: &Path) -> Result<()> {
        let mut copy = File::options().create(true).append(true).open(copy)?;
        for line in BufReader::new(log).lines() {
            let line = Line { text: line.context("reading a log")?, at: Instant::now() };
            writeln!(copy, "{}", line.text).context("copying a log")?;
            self.shared.0.lock().lines.push(line);
            self.shared.1.notify_all();
        }
        Ok(())
    }

    fn wait<T>(&self, what: &str, mut find: impl FnMut(&State) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.shared.0.lock();
        loop {
            if let Some(found) = find(&state) {
                return Ok(found);
            }
            let late = self.shared.1.wait_until(&mut state, deadline).timed_out();
            if let Some(found) = find(&state) {
                return Ok(found);
            }
            if late || state.exit.is_some() {
                let lines: Vec<_> = state.lines.iter().map(|line| line.text.as_str()).collect();
                let end = match state.exit {
                    Some(code) => format!("it ended with {code:?}"),
                    None => format!("{TIMEOUT:?} passed"),
                };
                bail!("{end} without {what}; its log:\n{}", lines.join("\n"));
            }
        }
    }
}

fn has_all(line: &Line, parts: &[&str]) -> bool {
    parts.iter().all(|part| line.text.contains(part))
}
