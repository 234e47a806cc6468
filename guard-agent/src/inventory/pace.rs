//! How often a source is asked: at once where that helps, and never in a loop without a pause.

use std::time::Duration;

use crate::clock;

/// A stream that lasts so long can be held. One that ended before is awaited for so long until it
/// counts as held again.
pub(super) const HELD: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 30_000 });

/// How long it is waited for a stream at first, and at most.
const FIRST: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });
const LONGEST: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 30_000 });

/// Between two lists that events ask for, so many times as long as the last one took.
const SHARE: u32 = 4;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long to wait after a list that took so long until events ask for the next one.
pub(super) fn pause(took: Duration) -> Duration {
    (took * SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Streams that ended soon, one after the other.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// A stream has ended at this age: how long to wait before the next one is asked for.
    pub(super) fn ended(&mut self, age: Duration) -> Duration {
        self.0 = if age < HELD { self.0.saturating_add(1) } else { 0 };
        // The first one is likely a restart of the source.
        let Some(doubled) = self.0.checked_sub(2) else { return Duration::ZERO };
        let longest = FIRST.saturating_mul(1 << doubled.min(16)).min(LONGEST);
        jittered(longest)
    }

    /// The source itself was away: what its streams were like before says nothing any more.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    /// Whether a stream of this age can be relied on to last.
    pub(super) fn is_held(&self, age: Duration) -> bool {
        self.0 < 2 || age >= HELD
    }
}

/// Between three quarters and all of it, so that the agents of many nodes do not ask together. The
/// clock's last digits are random enough here.
fn jittered(longest: Duration) -> Duration {
    let part = clock::now().boot.subsec_nanos() % 1024;
    longest * 3 / 4 + longest / 4 * part / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_a_stream_that_ends_at_once_is_asked_for_less_and_less_often() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.ended(Duration::ZERO), Duration::ZERO, "as after a restart");
        assert!(backoff.is_held(Duration::ZERO));
        let mut longest = FIRST;
        for _ in 0..40 {
            let wait = backoff.ended(Duration::ZERO);
            assert!((longest * 3 / 4..=longest).contains(&wait), "{wait:?} of {longest:?}");
            longest = (longest * 2).min(LONGEST);
            assert!(!backoff.is_held(HELD / 2) && backoff.is_held(HELD));
        }
        // After one that lasted, the pauses begin anew.
        assert_eq!(backoff.ended(HELD), Duration::ZERO);
        assert_eq!(backoff.ended(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn rule_8_events_never_keep_a_source_busy_with_lists() {
        assert_eq!(pause(Duration::ZERO), SHORTEST_PAUSE);
        assert_eq!(pause(Duration::from_millis(50)), Duration::from_millis(200));
        assert_eq!(pause(Duration::from_secs(9)), LONGEST_PAUSE);
    }
}
