//! What is refused to callers: counted, and logged so seldom that no caller can fill the log.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{audit, limit::Caller, peer::Peer};
use crate::metrics::Metrics;

/// A caller has one line in so long.
const BETWEEN_LINES: Duration = Duration::from_secs(60);
/// More callers than this are forgotten once their time is over.
const CALLERS: usize = 1024;

/// Why somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The method wants a role that the caller lacks.
    Role,
    /// The lease, the pool or the subscriber is another controller's.
    NotYours,
    /// So many calls are open already.
    Calls(u32),
    /// So many connections are open already.
    Connections(u32),
    /// So much work is being done for callers already.
    Work,
    /// It does not read its answer.
    Unread,
}

/// All refusals of the API. Clones count together.
#[derive(Clone)]
pub(super) struct Refusals {
    metrics: Arc<Metrics>,
    told: Arc<Mutex<Told>>,
    not_accepted: Arc<Mutex<Told>>,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, told: Arc::default(), not_accepted: Arc::default() }
    }

    /// Counts one. `peer` is who called, `caller` whom it counts as.
    pub(super) fn note(&self, caller: Caller, peer: &Peer, refused: Refused) {
        let (reason, why, most) = match refused {
            Refused::Role => ("role", "it lacks the role", None),
            Refused::NotYours => ("not_yours", "it is another's", None),
            Refused::Calls(most) => ("calls", "too many calls at a time", Some(most)),
            Refused::Connections(most) => {
                ("connections", "too many connections at a time", Some(most))
            }
            Refused::Work => ("work", "too many large answers at a time", None),
            Refused::Unread => ("unread", "it does not read its answers", None),
        };
        self.metrics.refused(reason).inc();
        if let Some(untold) = self.told.lock().may_tell(caller, Instant::now()) {
            let Peer { uid, pid, .. } = peer;
            tracing::warn!(target: audit::TARGET, uid, pid, most, untold, "a caller is refused: {why}");
        }
    }

    /// The kernel gives no connection.
    pub(super) fn not_accepted(&self, error: &io::Error) {
        if let Some(untold) = self.not_accepted.lock().may_tell(None, Instant::now()) {
            tracing::warn!(%error, untold, "cannot accept a connection");
        }
    }
}

/// When each caller had its last line, and how many refusals have had none since.
#[derive(Default)]
struct Told(HashMap<Caller, (Instant, u64)>);

impl Told {
    /// Whether there is a line for one more; and how many had none since the last.
    fn may_tell(&mut self, caller: Caller, now: Instant) -> Option<u64> {
        let recent = |at: Instant| now.saturating_duration_since(at) < BETWEEN_LINES;
        if let Some((at, untold)) = self.0.get_mut(&caller) {
            if recent(*at) {
                *untold += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(untold));
        }
        if self.0.len() >= CALLERS {
            self.0.retain(|_, (at, _)| recent(*at));
        }
        self.0.insert(caller, (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_line_a_minute_and_the_next_says_how_many_had_none() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut told = Told::default();
        let lines = (0..20_000).filter(|_| told.may_tell(None, at(1)).is_some()).count();
        assert_eq!(lines, 1);
        assert_eq!(told.may_tell(Some(7), at(2)), Some(0), "another has its own");
        assert_eq!(told.may_tell(None, at(60)), None);
        assert_eq!(told.may_tell(None, at(61)), Some(20_000));
    }

    #[test]
    fn callers_whose_time_is_over_are_forgotten() {
        let start = Instant::now();
        let mut told = Told::default();
        for uid in 0..10_000 {
            told.may_tell(Some(uid), start + Duration::from_secs(u64::from(uid)));
        }
        assert!(told.0.len() <= CALLERS + 1, "{}", told.0.len());
    }
}
