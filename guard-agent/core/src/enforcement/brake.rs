//! The brake: where soon after a change many ports at once begin to have frames dropped that claim
//! nothing of anybody, it is the change that is wrong, not they. It counts ports and not frames, so that
//! one that floods does not trip it, and it lets pass nothing that takes what is another's, so that no
//! attacker gains by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use guard_ebpf::counters::DropReason;

/// What a change brings about, it does within so long.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer ports than so many are no sign of anything.
const PORTS: usize = 3;
/// Nor is less than one in so many of those that are bound.
const ONE_IN: usize = 10;

/// Whether frames that are dropped for this reason pass again when the brake is on.
pub fn can_be_braked(reason: DropReason) -> bool {
    ["mac", "unowned", "off_prefix", "quota", "ethertype"].contains(&reason.name())
}

/// The brake of one bridge. Times are on a clock that does not go back.
#[derive(Clone, Debug, Default)]
pub struct Brake {
    /// When the last change was made, while it is looked at.
    changed: Option<Duration>,
    /// The ports that had frames dropped before it.
    before: BTreeSet<u32>,
    /// The ports that have begun to since.
    begun: BTreeSet<u32>,
    /// When ports last had a frame dropped.
    last: BTreeMap<u32, Duration>,
}

impl Brake {
    /// Mode, rules or agent are others from now on.
    pub fn changed(&mut self, now: Duration) {
        self.last.retain(|_, at| now.saturating_sub(*at) < WINDOW);
        self.before = self.last.keys().copied().collect();
        self.begun.clear();
        self.changed = Some(now);
    }

    /// These of so many bound ports have had frames dropped, for reasons that can be braked, since this
    /// was last told. Returns whether the brake acts: once for each change.
    pub fn dropping(
        &mut self,
        now: Duration,
        ports: impl IntoIterator<Item = u32>,
        bound: usize,
    ) -> bool {
        let ports: BTreeSet<_> = ports.into_iter().collect();
        self.last.extend(ports.iter().map(|port| (*port, now)));
        let Some(changed) = self.changed else { return false };
        if now.saturating_sub(changed) > WINDOW {
            self.changed = None;
            return false;
        }
        self.begun.extend(ports.difference(&self.before));
        let acts = self.begun.len() >= PORTS && self.begun.len() * ONE_IN >= bound;
        if acts {
            self.changed = None;
        }
        acts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn rules_that_drop_the_frames_of_half_of_all_ports_are_braked_once() {
        let mut brake = Brake::default();
        brake.changed(at(100));
        assert!(!brake.dropping(at(101), 1..=2, 20));
        assert!(brake.dropping(at(102), 3..=10, 20));
        assert!(!brake.dropping(at(103), 1..=10, 20), "it is on already");
    }

    #[test]
    fn one_port_that_floods_trips_nothing_and_neither_do_few_of_many() {
        let mut brake = Brake::default();
        brake.changed(at(0));
        assert!((1..60).all(|second| !brake.dropping(at(second), [1], 20)));
        assert!(!brake.dropping(at(60), 1..=9, 100));
        assert!(brake.dropping(at(60), [10], 100));
    }

    #[test]
    fn what_was_dropped_before_a_change_or_long_after_it_is_not_its_fault() {
        let mut brake = Brake::default();
        assert!(!brake.dropping(at(50), 1..=10, 10));
        brake.changed(at(100));
        assert!(!brake.dropping(at(101), 1..=10, 10), "they were dropped before");
        brake.changed(at(300));
        assert!(!brake.dropping(at(361), 11..=20, 20), "the change is old");
        brake.changed(at(500));
        assert!(brake.dropping(at(501), 1..=3, 20), "that was long ago");
    }

    #[test]
    fn what_claims_by_theft_is_never_braked() {
        let braked = DropReason::ALL.iter().filter(|reason| can_be_braked(**reason));
        for reason in braked.map(|reason| reason.name()) {
            let taken = ["violation", "clone", "bridge_mac", "router", "dhcp_server", "control"];
            assert!(!taken.contains(&reason), "{reason}");
        }
    }
}
