//! Checks that the program is still the first on the ports. Someone else may take it off (`tc filter del`,
//! `bpftool link detach`, a pin that is removed) or go before it, and nothing reports it. So the kernel is
//! asked, once a second: a system call or two a port.

use tokio::sync::mpsc;

use super::ports::SharedPorts;
use crate::{
    datapath::{Coverage, Place},
    supervisor::Supervisor,
};

/// Asks the kernel on a thread of its own, so that a thousand ports keep nobody waiting.
pub struct CoverageCheck {
    found: mpsc::Sender<Vec<u32>>,
    supervisor: Supervisor,
}

/// A port, and what should be on it.
struct Expected {
    ifindex: u32,
    coverage: Option<Coverage>,
    is_covered: bool,
}

impl CoverageCheck {
    /// The check, and the channel on which it reports the ports that are not as expected.
    pub fn new(supervisor: Supervisor) -> (Self, mpsc::Receiver<Vec<u32>>) {
        let (sender, found) = mpsc::channel(1);
        (Self { found: sender, supervisor }, found)
    }

    /// Looks at all ports, unless the last check is still under way.
    pub fn start(&self, ports: &SharedPorts) {
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
            let found: Vec<_> =
                expected.iter().filter(|port| port.differs()).map(|port| port.ifindex).collect();
            // Nothing to tell gives the place in the channel back.
            if !found.is_empty() {
                permit.send(found);
            }
        });
    }
}

impl Expected {
    fn differs(&self) -> bool {
        // Where it could not be put, it is tried again.
        let Some(coverage) = self.coverage else { return true };
        // A port that cannot be asked is about to go: netlink tells.
        coverage.place(self.ifindex).is_ok_and(|place| place != Place::First || !self.is_covered)
    }
}
