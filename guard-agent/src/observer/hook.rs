//! What is remembered of a port's hook, where another program may be before ours.

use std::time::{Duration, Instant};

/// How long a port that exists may be without the program before it counts as degraded.
const PATIENCE: Duration = Duration::from_millis(300);

/// The program is put before another so often at once, and then only as often as this passes: what puts
/// itself in front each time would do so for ever.
const TRIES: u32 = 3;
const TRUCE: Duration = Duration::from_secs(600);

/// Frames of a port by two counts: the device's, and the program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub received: u64,
    pub seen: u64,
}

/// The hook of one port.
#[derive(Debug, Default)]
pub(super) struct Hook {
    /// When the program was put on it.
    base: Option<Counts>,
    /// Since when it could not be.
    bare_since: Option<Instant>,
    tries: u32,
    /// When the program was last put before another, and when another was last before it.
    put_at: Option<Instant>,
    contested_at: Option<Instant>,
    /// It was noted that the other lets everything pass.
    pub noted: bool,
}

impl Hook {
    /// The program was put on it, or is the first again.
    pub(super) fn covered(&mut self, counts: Option<Counts>) {
        (self.base, self.bare_since, self.noted) = (counts, None, false);
    }

    /// The program cannot be put on it. Whether that has lasted.
    pub(super) fn bare(&mut self, now: Instant) -> bool {
        let since = *self.bare_since.get_or_insert(now);
        now.saturating_duration_since(since) >= PATIENCE
    }

    /// Another program is before ours. Whether ours may be put before it.
    pub(super) fn contested(&mut self, now: Instant) -> bool {
        let lately =
            |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < TRUCE);
        if !lately(self.contested_at) {
            self.tries = 0;
        }
        self.contested_at = Some(now);
        let may = self.tries < TRIES || !lately(self.put_at);
        if may {
            self.tries += 1;
            self.put_at = Some(now);
        }
        may
    }

    /// Whether the program has seen all that the port has received, since it was put on it.
    pub(super) fn has_seen_all(&self, now: Option<Counts>) -> bool {
        let Some((base, now)) = self.base.zip(now) else { return false };
        let received = now.received.wrapping_sub(base.received);
        received > 0 && received == now.seen.wrapping_sub(base.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_degraded_once_it_has_been_without_the_program_for_a_while() {
        let (mut hook, start) = (Hook::default(), Instant::now());
        assert!(!hook.bare(start));
        assert!(!hook.bare(start + PATIENCE / 2));
        assert!(hook.bare(start + PATIENCE));
        hook.covered(None);
        assert!(!hook.bare(start + PATIENCE), "it is another time");
    }

    #[test]
    fn who_puts_itself_in_front_each_time_is_left_there_for_a_while() {
        let (mut hook, start) = (Hook::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let tried: Vec<_> = (0..2000).filter(|second| hook.contested(at(*second))).collect();
        assert_eq!(tried, [0, 1, 2, 602, 1202, 1802]);
        let tried: Vec<_> = (2600..2605).filter(|second| hook.contested(at(*second))).collect();
        assert_eq!(tried, [2600, 2601, 2602], "it was quiet in between");
    }

    #[test]
    fn all_was_seen_where_both_counts_have_grown_alike() {
        let counts = |received, seen| Some(Counts { received, seen });
        let mut hook = Hook::default();
        assert!(!hook.has_seen_all(counts(7, 7)), "nobody knows since when");
        hook.covered(counts(100, 7));
        assert!(!hook.has_seen_all(counts(100, 7)), "there was nothing to see");
        assert!(hook.has_seen_all(counts(103, 10)));
        assert!(!hook.has_seen_all(counts(103, 9)));
        assert!(!hook.has_seen_all(None));
    }
}
