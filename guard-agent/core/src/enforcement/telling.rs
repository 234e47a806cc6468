//! When it is told that frames of a port are dropped: at the first, and again less and less often.

use std::{collections::BTreeMap, time::Duration};

use guard_ebpf::counters::DropReason;

/// When it is told again, after the first time. From then on it is each time the last of these.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// So many are told at a time; the others wait, and lose nothing of their count.
const MOST: usize = 32;

/// What was told of the frames of each port that are dropped for a reason.
#[derive(Debug, Default)]
pub struct Telling {
    known: BTreeMap<(u32, u8), Told>,
}

#[derive(Debug)]
struct Told {
    frames: u64,
    next: Duration,
    again: usize,
}

impl Telling {
    /// These were dropped before anybody was there to tell of it.
    pub fn begin(&mut self, counts: impl IntoIterator<Item = (u32, DropReason, u64)>) {
        for (port, reason, frames) in counts {
            let told = Told { frames, next: Duration::ZERO, again: 0 };
            self.known.insert((port, reason as u8), told);
        }
    }

    /// Of which it is to be told now, given how many were dropped in all: with how many were since it was
    /// told last.
    pub fn due(
        &mut self,
        counts: impl IntoIterator<Item = (u32, DropReason, u64)>,
        now: Duration,
    ) -> Vec<(u32, DropReason, u64)> {
        let (mut due, mut here) = (Vec::new(), BTreeMap::new());
        for (port, reason, frames) in counts {
            let key = (port, reason as u8);
            let was = self.known.remove(&key);
            let mut told = was.unwrap_or(Told { frames: 0, next: now, again: 0 });
            // The kernel's entry was made anew.
            told.frames = told.frames.min(frames);
            let new = frames - told.frames;
            if new == 0 && now >= told.next + AGAIN[AGAIN.len() - 1] {
                told.again = 0;
            } else if new > 0 && now >= told.next && due.len() < MOST {
                due.push((port, reason, new));
                let after = AGAIN[told.again.min(AGAIN.len() - 1)];
                told = Told { frames, next: now + after, again: told.again + 1 };
            }
            here.insert(key, told);
        }
        // What is left is of ports that are gone.
        self.known = here;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASON: DropReason = DropReason::Violation;

    /// A frame each second: of how many it is told, and when.
    fn told(telling: &mut Telling, seconds: std::ops::Range<u64>) -> Vec<(u64, u64)> {
        let at = |second: u64| {
            let due = telling.due([(7, REASON, second + 1)], Duration::from_secs(second));
            due.first().map(|(_, _, frames)| (second, *frames))
        };
        seconds.filter_map(at).collect()
    }

    #[test]
    fn the_first_frame_is_told_at_once_and_the_others_are_counted() {
        let mut telling = Telling::default();
        let all = told(&mut telling, 0..1000);
        assert_eq!(all, [(0, 1), (1, 1), (11, 10), (71, 60), (371, 300), (671, 300), (971, 300)]);
        // Nothing for more than five minutes after it could have been told: the next is a first one.
        let idle = Duration::from_secs(2000);
        assert_eq!(telling.due([(7, REASON, 1000)], idle), [(7, REASON, 28)]);
        for later in [3000, 4000] {
            assert_eq!(telling.due([(7, REASON, 1000)], Duration::from_secs(later)), []);
        }
        assert_eq!(telling.due([(7, REASON, 1001)], Duration::from_secs(4001)), [(7, REASON, 1)]);
        assert_eq!(telling.due([(7, REASON, 1002)], Duration::from_secs(4002)), [(7, REASON, 1)]);
    }

    #[test]
    fn what_was_before_is_not_told_and_what_does_not_fit_waits() {
        let mut telling = Telling::default();
        telling.begin([(1, REASON, 9)]);
        let counts = |more: u64| (1..=40).map(move |port| (port, REASON, 9 + more));
        let now = Duration::from_secs(1);
        let first = telling.due(counts(0), now);
        assert_eq!((first.len(), first[0]), (MOST, (2, REASON, 9)));
        let rest = telling.due(counts(0), now + now);
        assert_eq!(rest.len(), 39 - MOST);
        assert_eq!(telling.due([(1, REASON, 10)], now * 3), [(1, REASON, 1)]);
    }
}
