//! Someone else may take the program off a port (`tc filter del`, `bpftool link detach`, a pin that
//! is removed), and nothing tells of it. So the kernel is asked, once a second: two or three system
//! calls a port.

use tokio::sync::mpsc;

use super::ports::SharedPorts;
use crate::{datapath::Coverage, supervisor::Supervisor};

/// Asks the kernel on a thread of its own, so that a thousand ports keep nobody waiting.
pub struct CoverageCheck {
    uncovered: mpsc::Sender<Vec<u32>>,
    supervisor: Supervisor,
}

/// A port, and what should be on it.
struct Expected {
    ifindex: u32,
    interface: String,
    coverage: Option<Coverage>,
}

impl CoverageCheck {
    /// The check, and where it tells of the ports that it found without the program.
    pub fn new(supervisor: Supervisor) -> (Self, mpsc::Receiver<Vec<u32>>) {
        let (uncovered, found) = mpsc::channel(1);
        (Self { uncovered, supervisor }, found)
    }

    /// Looks at all ports, unless the last check is still under way.
    pub fn start(&self, ports: &SharedPorts) {
        let Ok(permit) = self.uncovered.clone().try_reserve_owned() else { return };
        let expected: Vec<_> = ports
            .read()
            .iter()
            .map(|(ifindex, status)| Expected {
                ifindex: *ifindex,
                interface: status.port.interface.to_string(),
                coverage: status.coverage,
            })
            .collect();
        self.supervisor.spawn_blocking("look at the ports", move || {
            let uncovered: Vec<_> =
                expected.iter().filter(|port| port.is_bare()).map(|port| port.ifindex).collect();
            // Nothing to tell gives the place in the channel back.
            if !uncovered.is_empty() {
                permit.send(uncovered);
            }
        });
    }
}

impl Expected {
    fn is_bare(&self) -> bool {
        let Self { ifindex, interface, coverage } = self;
        // Where it could not be put, it is tried again.
        let Some(Coverage { attach, program_id, .. }) = coverage else { return true };
        // A port that cannot be asked is about to go, or its name has changed: netlink tells.
        attach.is_on(*program_id, *ifindex, interface).is_ok_and(|on| !on)
    }
}
