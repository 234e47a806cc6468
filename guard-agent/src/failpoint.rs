//! Moments at which a test ends the agent, as a crash would: with SIGKILL, and nothing after it; has
//! the observer stand still for a while; or has a part of the agent panic.
//!
//! `GUARD_FAILPOINT=before_reply=17` acts when it gets to `before_reply` for the 17th time, and
//! `GUARD_FAILPOINT=panic:before_reply=17` panics there. `GUARD_FAILPOINT=reconciler@/FILE` panics
//! in the part that [`crate::supervisor`] knows as the reconciler, once the file exists. Only builds
//! with debug assertions and the feature `failpoints` know of it: in a release, all this is empty.

/// A moment in the life of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// All is written, and the transaction is open.
    BeforeCommit,
    /// The transaction is on disk, and nobody knows.
    AfterCommit,
    /// The hooks know, the callers do not.
    BeforeReply,
    /// A recovery is about to touch another file.
    RecoveryStep,
    /// The observer has done its work of a second, and stands still.
    ObserverRound,
}

/// The agent got here.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[inline]
pub(crate) fn reach(_: Moment) {}

/// A part of the agent, as it is.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[inline]
pub(crate) fn with_panic<F: Future>(_: &'static str, part: F) -> F {
    part
}

/// A part of the agent that is no future got here.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[inline]
pub(crate) fn panic_here(_: &'static str) {}

#[cfg(all(feature = "failpoints", debug_assertions))]
pub(crate) use armed::{panic_here, reach, with_panic};

#[cfg(all(feature = "failpoints", debug_assertions))]
mod armed {
    use std::{
        path::PathBuf,
        pin::pin,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
        time::{Duration, Instant},
    };

    use nix::sys::signal::{Signal, raise};

    use super::Moment;

    /// Longer than the agent lets pass in silence, and than the watchdog of a test.
    const STANDSTILL: Duration = Duration::from_secs(20);

    /// How often it is looked whether the file of a part's panic exists.
    const LOOK: Duration = Duration::from_millis(20);

    enum Armed {
        Moment { moment: Moment, panics: bool, left: AtomicU64 },
        Part { name: String, file: PathBuf },
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var("GUARD_FAILPOINT").ok()?;
        let armed = parse(&text);
        assert!(
            armed.is_some(),
            "GUARD_FAILPOINT={text:?} is no [panic:]MOMENT=COUNT or PART@FILE"
        );
        armed
    });

    /// The agent got here: for the last time, or for a while, if the environment says so.
    pub(crate) fn reach(reached: Moment) {
        if let Some(Armed::Moment { moment, panics, left }) = &*ARMED
            && *moment == reached
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            match moment {
                _ if *panics => panic_now(),
                Moment::ObserverRound => stand_still(),
                _ => drop(raise(Signal::SIGKILL)),
            }
        }
    }

    /// A part of the agent, which panics when the environment says so.
    pub(crate) async fn with_panic<F: Future>(name: &'static str, part: F) -> F::Output {
        let Some(Armed::Part { name: armed, file }) = &*ARMED else { return part.await };
        if armed != name {
            return part.await;
        }
        let mut part = pin!(part);
        loop {
            if let Ok(output) = tokio::time::timeout(LOOK, &mut part).await {
                return output;
            }
            if file.exists() {
                panic_now();
            }
        }
    }

    /// A part of the agent that is no future got here, for the last time if the environment says so.
    pub(crate) fn panic_here(part: &'static str) {
        if let Some(Armed::Part { name, file }) = &*ARMED
            && name == part
            && file.exists()
        {
            panic_now();
        }
    }

    #[expect(clippy::panic, reason = "it is what the test has asked for")]
    fn panic_now() {
        panic!("as GUARD_FAILPOINT says");
    }

    /// Whoever may wake this thread meanwhile.
    fn stand_still() {
        let end = Instant::now() + STANDSTILL;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
    }

    fn parse(text: &str) -> Option<Armed> {
        if let Some((name, file)) = text.split_once('@') {
            return Some(Armed::Part { name: name.to_owned(), file: file.into() });
        }
        let (panics, text) = text.strip_prefix("panic:").map_or((false, text), |text| (true, text));
        let (name, count) = text.split_once('=')?;
        let moment = match name {
            "before_commit" => Moment::BeforeCommit,
            "after_commit" => Moment::AfterCommit,
            "before_reply" => Moment::BeforeReply,
            "recovery_step" => Moment::RecoveryStep,
            "observer_round" => Moment::ObserverRound,
            _ => return None,
        };
        Some(Armed::Moment { moment, panics, left: AtomicU64::new(count.parse().ok()?) })
    }
}
