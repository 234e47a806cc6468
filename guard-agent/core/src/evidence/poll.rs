//! What a source's answer is worth, and its word about a single sandbox.

use std::time::Duration;

use super::Source;

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollOutcome {
    /// It was read to its end.
    Complete,
    /// Some of it could not be read.
    Partial(String),
    /// There was none.
    Failed(String),
}

/// An answer of a source; what it said is in the live set by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollResult {
    /// What kind of evidence it gives.
    pub source: Source,
    /// Its name in the configuration.
    pub name: &'static str,
    /// When it was asked, on `CLOCK_BOOTTIME`.
    pub asked: Duration,
    /// Whether it answered.
    pub outcome: PollOutcome,
    /// How many of the things that it lists have a label or field that is meant for us.
    pub ours: usize,
}

/// The answer about one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// It is there.
    Alive,
    /// It has ended.
    Dead,
    /// There is none.
    NotFound,
}
