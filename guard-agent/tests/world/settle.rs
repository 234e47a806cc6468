//! The end of a history: whoever is left ends, and nothing is kept for ever.

use std::{sync::Arc, time::Duration};

use guard_core::lease::{Lease, Row, State};
use jiff::SignedDuration;

use super::{World, agent::Phase, rules::INTERVAL};

impl World {
    /// All that there is ends, and the agent is given time to see it.
    pub(crate) fn settle(&mut self) {
        self.fails = false;
        self.start();
        self.end_boot_pass();
        let links: Vec<_> = self.node.links.keys().copied().collect();
        self.node.end_all();
        for number in links {
            self.tell_link_ended(number);
        }
        for bridge in 0..2 {
            self.tell_watched(bridge);
            self.tell_hosts(bridge);
        }
        let live = self.live.claims(None);
        assert!(live.is_empty(), "what is behind no port is live: {live:?}");
        // Three misses; what is unconfirmed, held and released; what cools or is on probation.
        for wait in [INTERVAL; 4].into_iter().chain([Duration::from_secs(2000); 3]) {
            self.now.boot += wait;
            self.now.wall += SignedDuration::try_from(wait).unwrap();
            self.pass();
            self.tick();
            // An operator agrees where it takes one: what is left of an earlier boot takes none.
            let boot = self.boot;
            let blocked = self.blocked.iter().map(|lease| lease.generation);
            let own = |generation: &u64| self.given[generation].boot == boot;
            self.consented = blocked.filter(own).collect();
            // What the wall clock shows, and who has counted so far, plays no part.
            if wait == INTERVAL {
                self.now.wall -= SignedDuration::from_hours(24);
                self.stop(false);
                self.start();
                self.end_boot_pass();
            }
        }
        assert_eq!(self.phase, Phase::Up);
        let left = self.shadow.values().filter_map(Row::lease).filter(|l| !self.may_stay(l));
        let left: Vec<Arc<Lease>> = left.cloned().collect();
        assert!(left.is_empty(), "it is kept for nobody: {left:#?}");
    }

    /// What an operator took out of use; and where nobody lists who there is, a lease of which nobody
    /// can tell.
    fn may_stay(&self, lease: &Lease) -> bool {
        let nobody_tells = !self.setup.runtime && !self.setup.directory;
        let given = self.given(lease.generation);
        let over = given.is_some_and(|given| given.was_bound || given.boot != self.boot);
        lease.is_operators() || lease.state == State::Active && nobody_tells && !over
    }
}
