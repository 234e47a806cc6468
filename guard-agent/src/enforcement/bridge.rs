//! One bridge: what it is set to, what is in force, and its brake.

use std::sync::Arc;

use aya::maps::{Array, MapData};
use guard_core::{
    enforcement::{Brake, Mode, Settings, can_be_braked},
    policy::Allow,
};
use guard_ebpf::{abi, counters::DropReason};

use crate::{clock, config, datapath::Slot};

/// A bridge that is watched.
pub(super) struct Bridge {
    /// Its place in the kernel's map.
    pub slot: u32,
    /// Its name.
    pub name: Arc<str>,
    /// What the configuration says.
    pub settings: Settings,
    /// Its rules.
    pub allow: Vec<Allow>,
    /// What is in force.
    pub mode: Mode,
    /// A bit for each reason for which frames pass since the brake has acted.
    pub braked: u32,
    /// Looks at what a change leads to.
    pub brake: Brake,
}

impl Bridge {
    /// As the kernel has it: what an earlier agent has put in force goes on.
    pub(super) fn new(
        slot: Slot,
        bridge: &config::Bridge,
        modes: &Array<MapData, abi::Mode>,
    ) -> Self {
        let mode = slot.kept.then(|| modes.get(&slot.at, 0).unwrap_or_default());
        let abi::Mode { enforce, braked } = mode.unwrap_or_default();
        let mut brake = Brake::default();
        // Another agent may judge otherwise.
        brake.changed(clock::monotonic());
        Self {
            slot: slot.at,
            name: bridge.name.clone(),
            settings: bridge.enforcement.clone(),
            allow: bridge.allow.clone(),
            mode: if enforce == 0 { Mode::Observe } else { Mode::Enforce },
            braked,
            brake,
        }
    }

    /// Whether it is set to this, and that is in force.
    pub(super) fn is_set_to(&self, new: &config::Bridge) -> bool {
        self.settings == new.enforcement && self.mode == new.enforcement.mode
    }
}

/// The reasons that the brake lets pass.
pub(super) fn braked() -> u32 {
    let reasons = DropReason::ALL.iter().filter(|reason| can_be_braked(**reason));
    reasons.fold(0, |bits, reason| bits | reason.bit())
}
