//! A store that cannot be written or opened: told once when it begins and once when it is over, and
//! tried again once a second, however much waits to be written.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long what nobody waits for rests after a commit that failed, and callers are told to.
pub(super) const AFTER_FAILURE: Duration =
    Duration::from_millis(if cfg!(test) { 10 } else { 1000 });

/// How many of these have to pass without a failure until it is over: a disk that is nearly full has
/// room for one commit and none for the next.
const SETTLED: u32 = 3;

pub(super) struct Trouble {
    why: watch::Sender<Option<String>>,
    /// When a commit failed last.
    failed: Option<Instant>,
    /// When it was last tried whether it is over.
    tried: Option<Instant>,
}

impl Trouble {
    pub(super) fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (why, told) = watch::channel(None);
        (Self { why, failed: None, tried: None }, told)
    }

    /// A commit failed.
    pub(super) fn failed(&mut self, why: &str, now: Instant) {
        (self.failed, self.tried) = (Some(now), Some(now));
        // The first reason stands until it is over: two that take turns are no news.
        if self.why.borrow().is_none() {
            self.why.send_replace(Some(why.to_owned()));
        }
    }

    /// There is no store. Returns whether that is news.
    pub(super) fn lost(&mut self, why: &str, now: Instant) -> bool {
        self.tried = Some(now);
        self.why.send_if_modified(|known| {
            let is_news = known.as_deref() != Some(why);
            *known = Some(why.to_owned());
            is_news
        })
    }

    /// Something was written.
    pub(super) fn wrote(&mut self, now: Instant) {
        if self.failed.is_some_and(|failed| now - failed >= AFTER_FAILURE * SETTLED) {
            self.over();
        }
    }

    /// The store is there, and was written.
    pub(super) fn over(&mut self) {
        (self.failed, self.tried) = (None, None);
        self.why.send_if_modified(|why| why.take().is_some());
    }

    pub(super) fn is_on(&self) -> bool {
        self.why.borrow().is_some()
    }

    /// Whether what nobody waits for is to rest.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.failed.is_some_and(|failed| now - failed < AFTER_FAILURE)
    }

    /// Whether it is time to try again; if so, that is now.
    pub(super) fn try_now(&mut self, now: Instant) -> bool {
        let due = self.is_on() && self.tried.is_none_or(|tried| now - tried >= AFTER_FAILURE);
        if due {
            self.tried = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_11_it_is_told_once_and_over_when_nothing_fails_any_more() {
        let (mut trouble, mut told) = Trouble::new();
        let mut now = Instant::now();
        for _ in 0..100 {
            trouble.failed("the disk is full", now);
            trouble.failed("the disk is slow", now);
            // There is room for this one.
            trouble.wrote(now);
        }
        assert!(trouble.rests(now) && !trouble.try_now(now));
        assert_eq!(told.borrow_and_update().as_deref(), Some("the disk is full"));
        now += AFTER_FAILURE;
        assert!(!trouble.rests(now) && trouble.try_now(now) && !trouble.try_now(now));
        trouble.wrote(now);
        assert!(!told.has_changed().unwrap(), "not over yet");
        now += AFTER_FAILURE * SETTLED;
        trouble.wrote(now);
        assert_eq!(*told.borrow_and_update(), None);
        assert!(!trouble.is_on() && !trouble.try_now(now));
    }

    #[test]
    fn another_reason_for_a_loss_is_news() {
        let (mut trouble, _told) = Trouble::new();
        let now = Instant::now();
        assert!(trouble.lost("it is missing", now) && !trouble.lost("it is missing", now));
        assert!(trouble.lost("it is damaged", now));
    }
}
