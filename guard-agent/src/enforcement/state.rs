//! How a bridge is, for those who ask.

use std::{collections::BTreeMap, sync::Arc};

use guard_core::enforcement::{Finding, Mode, Override, Settings};
use guard_ebpf::counters::DropReason;

use crate::observer::{PortKind, PortStatus};

/// How frames are judged on one bridge.
#[derive(Clone, Debug)]
pub(crate) struct BridgeState {
    /// Its name.
    pub name: Arc<str>,
    /// What is in force.
    pub mode: Mode,
    /// What the configuration says.
    pub settings: Settings,
    /// For which reasons frames pass since the brake has acted.
    pub braked: Vec<DropReason>,
    /// How many ports enforce.
    pub ports_enforcing: usize,
    /// Of how many frames were dropped of late.
    pub ports_dropping: usize,
    /// The ports with a mode of their own.
    pub ports: Vec<Override>,
    /// What speaks against enforcing.
    pub findings: Vec<Finding>,
}

/// The modes that are in force.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    /// By bridge.
    pub(super) bridges: BTreeMap<Arc<str>, Mode>,
    /// Of ports that have one of their own, by ifindex, each with its bridge.
    pub(super) ports: BTreeMap<u32, (Arc<str>, Mode)>,
}

impl InForce {
    /// What becomes of the frames of a port.
    pub(crate) fn of(&self, ifindex: u32, status: &PortStatus) -> Mode {
        let PortStatus { port, kind, coverage, .. } = status;
        if kind.0 != PortKind::Access || coverage.is_none() {
            return Mode::Observe;
        }
        let own = self.ports.get(&ifindex).filter(|(bridge, _)| *bridge == port.bridge);
        let own = own.map(|(_, mode)| mode);
        own.or_else(|| self.bridges.get(&port.bridge)).copied().unwrap_or_default()
    }
}
