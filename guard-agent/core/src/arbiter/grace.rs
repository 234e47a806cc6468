//! Doubts between claimants whom nobody declared: a second one has appeared, and the first may be
//! gone without our knowing it yet (claims.md A31 to A34). The first is asked; its answer, the end
//! of its port or the end of the grace decides.

use std::time::Duration;

/// How often the holder is asked within the grace.
const PROBES: u32 = 3;

/// What is known when a doubt is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The holder's port exists.
    pub port_exists: bool,
    /// The holder was heard since the doubt began.
    pub answered: bool,
    /// On `CLOCK_MONOTONIC`.
    pub now: Duration,
}

/// A second claimant that is not yet a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracePeriod {
    since: Duration,
    length: Duration,
    /// The holder was heard within the live window before the doubt.
    holder_was_live: bool,
    probes: u32,
}

/// What becomes of a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The address has moved to the second claimant.
    Moved,
    /// Both are there.
    Conflict,
    /// Ask the holder again, and look again then.
    Ask(Duration),
    /// Look again then.
    Wait(Duration),
}

impl GracePeriod {
    /// A doubt begins. `silence` is how long the holder had not been heard.
    pub fn new(now: Duration, length: Duration, silence: Duration, live_window: Duration) -> Self {
        Self { since: now, length, holder_was_live: silence < live_window, probes: 0 }
    }

    /// Decides, or says when to look again.
    pub fn judge(&mut self, Look { port_exists, answered, now }: Look) -> Verdict {
        if !port_exists {
            return Verdict::Moved;
        }
        if answered {
            return Verdict::Conflict;
        }
        let end = self.since + self.length;
        if now >= end {
            // A paused sandbox answers nothing and is there all the same: only one that had been
            // silent for long is believed to have left.
            return if self.holder_was_live { Verdict::Conflict } else { Verdict::Moved };
        }
        let next = self.since + self.length * self.probes / PROBES;
        if self.probes < PROBES && now >= next {
            self.probes += 1;
            return Verdict::Ask(self.since + self.length * self.probes / PROBES);
        }
        Verdict::Wait(next.min(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);
    const WINDOW: Duration = Duration::from_secs(300);

    fn facts(port_exists: bool, answered: bool, seconds: u64) -> Look {
        Look { port_exists, answered, now: Duration::from_secs(seconds) }
    }

    fn grace(silence: u64) -> GracePeriod {
        GracePeriod::new(Duration::from_secs(10), GRACE, Duration::from_secs(silence), WINDOW)
    }

    #[test]
    fn a31_a_port_that_is_gone_is_a_move() {
        assert_eq!(grace(0).judge(facts(false, false, 10)), Verdict::Moved);
        assert_eq!(grace(0).judge(facts(false, true, 10)), Verdict::Moved);
    }

    #[test]
    fn a32_the_holder_is_asked_three_times_within_the_grace() {
        let mut grace = grace(0);
        let mut asked = 0;
        let mut now = 10;
        loop {
            match grace.judge(facts(true, false, now)) {
                Verdict::Ask(next) => {
                    asked += 1;
                    now = next.as_secs();
                }
                Verdict::Wait(next) => now = next.as_secs(),
                verdict => {
                    assert_eq!((verdict, asked, now), (Verdict::Conflict, 3, 13));
                    break;
                }
            }
        }
    }

    #[test]
    fn an_answer_is_a_conflict_at_once() {
        assert_eq!(grace(0).judge(facts(true, true, 10)), Verdict::Conflict);
    }

    #[test]
    fn a34_a_holder_that_was_silent_for_long_and_stays_so_has_moved() {
        assert_eq!(grace(300).judge(facts(true, false, 13)), Verdict::Moved);
        assert_eq!(grace(300).judge(facts(true, true, 13)), Verdict::Conflict);
    }
}
