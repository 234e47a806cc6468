//! What came of asking a source, for its list or about a single sandbox.

use std::time::Duration;

use super::Source;

/// Whether a source's list was read, and to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollOutcome {
    /// It was read to its end.
    Complete,
    /// Some of it could not be read.
    Partial(String),
    /// There was none.
    Failed(String),
}

/// The result of asking a source; what it listed is in the shared evidence by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollResult {
    /// What kind of evidence it gives.
    pub source: Source,
    /// Its name in the configuration.
    pub name: &'static str,
    /// When it was asked, on `CLOCK_BOOTTIME`.
    pub asked: Duration,
    /// Whether its list was read.
    pub outcome: PollOutcome,
    /// How many of the things that it lists have a label or field that is meant for us.
    pub ours: usize,
}

/// What the directory says of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// It is there.
    Alive,
    /// It has ended.
    Dead,
    /// There is none.
    NotFound,
}
