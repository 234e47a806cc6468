//! How a source is, and what may be concluded from what it does not list.

use std::{sync::Arc, time::Duration};

use guard_core::evidence::{EventStream, PollOutcome, PollResult, Source, Unreadable};

use super::events::Mark;

/// After so long without a complete answer a source is named wherever people look.
pub const AWAY: Duration = Duration::from_secs(600);

/// How a source is.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// What kind of evidence it gives.
    pub source: Source,
    /// Its name in the configuration.
    pub name: &'static str,
    /// The last answer.
    pub last: Option<PollResult>,
    /// When the last complete answer was asked for, on `CLOCK_BOOTTIME`.
    pub complete: Option<Duration>,
    /// An event stream has lasted since before that answer was asked for, and has told nothing that
    /// the answer does not show: what is not in it did not exist a moment ago either.
    pub streaming: bool,
    /// Why there is no event stream, of a source that should have one.
    pub stream_fault: Option<Arc<str>>,
    /// Since when it does not answer completely, on `CLOCK_BOOTTIME`.
    pub failing: Option<Duration>,
    /// Until when an operator does without it, on `CLOCK_BOOTTIME`.
    pub ignored: Option<Duration>,
    /// The entries that cannot be read.
    pub unreadable: Arc<[Unreadable]>,
}

/// A source that keeps something from happening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Since when it does not answer completely, on `CLOCK_BOOTTIME`, if that is why.
    pub failing: Option<Duration>,
    /// What is wrong with it.
    pub why: String,
}

impl SourceStatus {
    /// Whether its last answer was complete, and an event stream can be held where there should be one.
    pub fn healthy(&self) -> bool {
        self.why().is_none()
    }

    /// Why it is not.
    pub fn why(&self) -> Option<String> {
        match &self.last {
            None => Some("it was not asked yet".to_owned()),
            Some(PollResult {
                outcome: PollOutcome::Partial(why) | PollOutcome::Failed(why),
                ..
            }) => Some(why.clone()),
            Some(PollResult { outcome: PollOutcome::Complete, .. }) => {
                self.stream_fault.as_ref().map(ToString::to_string)
            }
        }
    }

    /// Whether an operator does without it now.
    pub fn is_ignored(&self, now: Duration) -> bool {
        self.ignored.is_some_and(|until| now < until)
    }

    /// Whether it has been away for long enough to be named wherever people look.
    pub fn is_away(&self, now: Duration) -> bool {
        self.failing.is_some_and(|since| now.saturating_sub(since) >= AWAY)
    }

    /// It, as one that something waits for.
    pub(super) fn awaited(&self) -> Awaited {
        let older = || "its last complete answer is older".to_owned();
        Awaited { name: self.name, failing: self.failing, why: self.why().unwrap_or_else(older) }
    }
}

/// What is kept of a source between its answers.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) status: SourceStatus,
    /// What the event stream had told when the last complete answer was asked for.
    pub(super) mark: Option<Mark>,
}

impl Known {
    /// Nothing is known at `now`, on `CLOCK_BOOTTIME`.
    pub(super) fn new(source: Source, name: &'static str, now: Duration) -> Self {
        let status = SourceStatus {
            source,
            name,
            last: None,
            complete: None,
            streaming: false,
            stream_fault: None,
            failing: Some(now),
            ignored: None,
            unreadable: Arc::default(),
        };
        Self { status, mark: None }
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.mark.as_ref().is_some_and(EventStream::is_current)
    }

    /// How it is at this moment.
    pub(super) fn now(&self) -> SourceStatus {
        SourceStatus { streaming: self.is_streaming(), ..self.status.clone() }
    }
}
