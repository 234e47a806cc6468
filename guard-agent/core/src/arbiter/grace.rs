//! The grace period of a pending conflict: a second claimant has appeared where nobody is declared,
//! and the first may be gone without our knowing it yet (claims.md A31 to A34). The first is probed;
//! its answer, the end of its port or the end of the period decides.

use std::time::Duration;

/// How often the holder is asked within the grace.
const PROBES: u32 = 3;

/// What is known when a pending conflict is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The holder's port exists.
    pub port_exists: bool,
    /// The holder was heard since the period began.
    pub answered: bool,
    /// On `CLOCK_MONOTONIC`.
    pub now: Duration,
}

/// How long, and how often asked, before a second claimant is a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GracePeriod {
    since: Duration,
    length: Duration,
    /// The holder was heard within the live window before the period.
    holder_was_live: bool,
    probes: u32,
}

/// How a pending conflict is decided, or when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The address has moved to the second claimant.
    Moved,
    /// Both are there, or nobody can tell.
    Conflict,
    /// The holder was heard of late, and does not answer.
    Unanswered,
    /// Ask the holder again, and look again then.
    Ask(Duration),
    /// Look again then.
    Wait(Duration),
}

impl GracePeriod {
    /// A period begins. `silence` is how long the holder had not been heard.
    pub(super) fn new(
        now: Duration,
        length: Duration,
        silence: Duration,
        live_window: Duration,
    ) -> Self {
        Self { since: now, length, holder_was_live: silence < live_window, probes: 0 }
    }

    /// It could not be asked just now.
    pub(super) fn not_asked(&mut self) {
        self.probes = self.probes.saturating_sub(1);
    }

    /// Decides, or says when to look again.
    pub(super) fn judge(&mut self, Look { port_exists, answered, now }: Look) -> Verdict {
        if !port_exists {
            return Verdict::Moved;
        }
        if answered {
            return Verdict::Conflict;
        }
        let end = self.since + self.length;
        if now >= end {
            // A paused sandbox answers nothing and is there all the same: only one that had been
            // silent for long is believed to have left, and none that could not be asked.
            return match (self.probes, self.holder_was_live) {
                (0, _) => Verdict::Conflict,
                (_, true) => Verdict::Unanswered,
                (_, false) => Verdict::Moved,
            };
        }
        let next = self.since + self.length * self.probes / PROBES;
        if self.probes < PROBES && now >= next {
            self.probes += 1;
            // Where it was asked late, it has its time to answer all the same.
            let next = self.since + self.length * self.probes / PROBES;
            return Verdict::Ask(next.max(now + self.length / PROBES).min(end));
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
                    assert_eq!((verdict, asked, now), (Verdict::Unanswered, 3, 13));
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
        for (answers, verdict) in [(false, Verdict::Moved), (true, Verdict::Conflict)] {
            let mut grace = grace(300);
            assert!(matches!(grace.judge(facts(true, false, 10)), Verdict::Ask(_)));
            assert_eq!(grace.judge(facts(true, answers, 13)), verdict);
        }
    }

    #[test]
    fn who_could_not_be_asked_is_not_believed_to_have_left() {
        let mut grace = grace(300);
        assert!(matches!(grace.judge(facts(true, false, 10)), Verdict::Ask(_)));
        grace.not_asked();
        assert_eq!(grace.judge(facts(true, false, 13)), Verdict::Conflict);
    }
}
