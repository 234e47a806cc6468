//! Checks that the program is still the first on the ports. Someone else may take it off (`tc filter del`,
//! `bpftool link detach`, a pin that is removed) or go before it, and nothing reports it. So the kernel is
//! asked, once a second: a system call or two a port. It is asked for the ports of each bridge as well, by
//! number: netlink's notices may have told of less.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::ports::SharedPorts;
use crate::{
    datapath::{Coverage, Place},
    network::{ask, link::exists},
    supervisor::Supervisor,
};

/// Asks the kernel on a thread of its own, so that a thousand ports keep nobody waiting.
pub(super) struct CoverageCheck {
    found: mpsc::Sender<Found>,
    supervisor: Supervisor,
}

/// Ports that are not as expected.
#[derive(Default)]
pub(super) struct Found {
    /// The program is not on them, or not the first.
    pub uncovered: Vec<u32>,
    /// The kernel lists them and the observer does not, or the other way round.
    pub differing: Vec<u32>,
}

/// A port, and what should be on it.
struct Expected {
    ifindex: u32,
    coverage: Option<Coverage>,
    is_covered: bool,
}

impl CoverageCheck {
    /// The check, and the channel on which it reports the ports that are not as expected.
    pub(super) fn new(supervisor: Supervisor) -> (Self, mpsc::Receiver<Found>) {
        let (sender, found) = mpsc::channel(1);
        (Self { found: sender, supervisor }, found)
    }

    /// Looks at all ports of these bridges, unless the last check is still under way.
    pub(super) fn start(&self, bridges: BTreeSet<u32>, ports: &SharedPorts) {
        let Ok(permit) = self.found.clone().try_reserve_owned() else { return };
        let expected: Vec<_> = ports
            .read()
            .iter()
            .map(|(ifindex, status)| Expected {
                ifindex: *ifindex,
                coverage: status.coverage,
                is_covered: status.is_covered(),
            })
            .collect();
        self.supervisor.spawn_blocking("look at the ports", move || {
            let uncovered = expected.iter().filter(|port| port.differs());
            let found = Found {
                uncovered: uncovered.map(|port| port.ifindex).collect(),
                differing: differing(&bridges, &expected),
            };
            // Nothing to tell gives the place in the channel back.
            if !found.uncovered.is_empty() || !found.differing.is_empty() {
                permit.send(found);
            }
        });
    }
}

/// The ports that the kernel has and we do not, and those that we have and it does not. Of a bridge that
/// cannot be asked, which is about to go, there is nothing to tell.
fn differing(bridges: &BTreeSet<u32>, expected: &[Expected]) -> Vec<u32> {
    let mut there = BTreeSet::new();
    for bridge in bridges {
        match ask::ports(*bridge) {
            Ok(ports) => there.extend(ports),
            Err(_) => return Vec::new(),
        }
    }
    let known: BTreeSet<_> = expected.iter().map(|port| port.ifindex).collect();
    there.symmetric_difference(&known).copied().collect()
}

impl Expected {
    fn differs(&self) -> bool {
        // Where it could not be put, it is tried again.
        let Some(coverage) = self.coverage else { return true };
        match coverage.place(self.ifindex) {
            Ok(place) => place != Place::First || !self.is_covered,
            // One that is about to go cannot be asked: netlink tells.
            Err(_) => exists(self.ifindex),
        }
    }
}
