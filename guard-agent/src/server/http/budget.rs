//! How often something may be done for whoever asks.

use std::time::{Duration, Instant};

/// One each second, and a few more where nobody has asked for a while.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Up to when it is spent.
    spent: Option<Instant>,
}

impl Budget {
    const EACH: Duration = Duration::from_secs(1);
    /// So many can be had at once.
    const BURST: u32 = 8;

    /// Whether it may be done now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let spent = self.spent.map_or(now, |spent| spent.max(now)) + Self::EACH;
        let may = spent.saturating_duration_since(now) <= Self::EACH * Self::BURST;
        if may {
            self.spent = Some(spent);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_seldom_gets_it_and_who_asks_often_once_a_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut budget = Budget::default();
        let first = (0..100).filter(|_| budget.take(at(0))).count();
        assert_eq!(first, Budget::BURST as usize);
        let then = (1..=10_000).filter(|millis| budget.take(at(*millis))).count();
        assert_eq!(then, 10);
        let rested = (0..100).filter(|_| budget.take(at(3_600_000))).count();
        assert_eq!(rested, Budget::BURST as usize);
    }
}
