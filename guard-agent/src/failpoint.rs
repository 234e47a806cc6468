//! Moments at which a test ends the agent, as a crash would: with SIGKILL, and nothing after it; or
//! has the observer stand still for a while.
//!
//! `GUARD_FAILPOINT=before_reply=17` acts when it gets to `before_reply` for the 17th time. Only
//! builds with debug assertions and the feature `failpoints` know of it: in a release, [`reach`] is
//! empty.

/// A moment in the life of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// All is written, and the transaction is open.
    BeforeCommit,
    /// The transaction is on disk, and nobody knows.
    AfterCommit,
    /// The observers know, the callers do not.
    BeforeReply,
    /// A recovery is about to touch another file.
    RecoveryStep,
    /// The observer has done its work of a second, and stands still.
    ObserverRound,
}

/// The agent got here.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[inline]
pub fn reach(_: Moment) {}

#[cfg(all(feature = "failpoints", debug_assertions))]
pub use armed::reach;

#[cfg(all(feature = "failpoints", debug_assertions))]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, raise};

    use super::Moment;

    /// Longer than the agent lets pass in silence, and than the watchdog of a test.
    const STANDSTILL: Duration = Duration::from_secs(20);

    static ARMED: LazyLock<Option<(Moment, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("GUARD_FAILPOINT").ok()?;
        let armed = parse(&text);
        assert!(armed.is_some(), "GUARD_FAILPOINT={text:?} is no MOMENT=COUNT");
        armed
    });

    /// The agent got here: for the last time, or for a while, if the environment says so.
    pub fn reach(moment: Moment) {
        if let Some((armed, left)) = &*ARMED
            && *armed == moment
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            match moment {
                Moment::ObserverRound => stand_still(),
                _ => drop(raise(Signal::SIGKILL)),
            }
        }
    }

    /// Whoever may wake this thread meanwhile.
    fn stand_still() {
        let end = Instant::now() + STANDSTILL;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
    }

    fn parse(text: &str) -> Option<(Moment, AtomicU64)> {
        let (name, count) = text.split_once('=')?;
        let moment = match name {
            "before_commit" => Moment::BeforeCommit,
            "after_commit" => Moment::AfterCommit,
            "before_reply" => Moment::BeforeReply,
            "recovery_step" => Moment::RecoveryStep,
            "observer_round" => Moment::ObserverRound,
            _ => return None,
        };
        Some((moment, AtomicU64::new(count.parse().ok()?)))
    }
}
