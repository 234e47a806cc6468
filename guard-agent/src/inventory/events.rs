//! An event stream: what it has told so far, and whether it lasts.
//!
//! What a stream has told and no list has shown yet is not known yet. So a list is marked with what
//! had been told when it was asked for; as long as the stream lasts and has told nothing more, the
//! list is what there is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use guard_core::evidence::EventStream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;

/// An event stream of a source, shared by the task that reads it and those who rely on it.
#[derive(Debug)]
pub(super) struct Events {
    /// `CLOCK_BOOTTIME` at which it was asked for.
    begun: Duration,
    /// The source has said that it has begun, or told something.
    confirmed: AtomicBool,
    told: AtomicU64,
    ended: Mutex<Option<Arc<str>>>,
    news: Notify,
}

/// What a stream had told when a list was asked for.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    events: Arc<Events>,
    told: u64,
}

impl Events {
    /// One that is asked for now.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: clock::now().boot,
            confirmed: AtomicBool::new(false),
            told: AtomicU64::new(0),
            ended: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// It has begun for certain.
    pub(super) fn confirm(&self) {
        self.confirmed.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// It has told something.
    pub(super) fn tell(&self) {
        self.told.fetch_add(1, Ordering::Release);
        self.confirm();
    }

    /// It has ended, and for this reason.
    pub(super) fn end(&self, why: &str) {
        self.ended.lock().get_or_insert_with(|| Arc::from(why));
        self.news.notify_one();
    }

    /// Why it has ended, if it has.
    pub(super) fn ended(&self) -> Option<Arc<str>> {
        self.ended.lock().clone()
    }

    /// Whether the source has said that it has begun.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    /// How long ago it was asked for.
    pub(super) fn age(&self) -> Duration {
        clock::now().boot.saturating_sub(self.begun)
    }

    /// What it has told so far.
    pub(super) fn mark(self: &Arc<Self>) -> Mark {
        Mark { events: Arc::clone(self), told: self.told.load(Ordering::Acquire) }
    }

    /// Waits until it has said anything; it may be known already.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

impl EventStream for Mark {
    fn is_current(&self) -> bool {
        self.events.ended.lock().is_none() && self.told == self.events.told.load(Ordering::Acquire)
    }
}

impl Mark {
    /// How long ago its stream was asked for.
    pub(super) fn age(&self) -> Duration {
        self.events.age()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_current_until_its_stream_tells_something_or_ends() {
        let events = Events::new();
        let first = events.mark();
        assert!(first.is_current() && !events.is_confirmed());
        events.confirm();
        assert!(first.is_current() && events.is_confirmed());
        events.tell();
        let second = events.mark();
        assert!(!first.is_current() && second.is_current());
        events.end("closed");
        events.end("later");
        assert!(!second.is_current());
        assert_eq!(events.ended().as_deref(), Some("closed"));
    }
}
