//! What enforcement knows, and what follows from it.

use std::{collections::BTreeSet, time::Duration};

use aya::maps::{Array, MapData, MapError};
use guard_core::enforcement::{Mode, Telling};
use guard_ebpf::{abi, counters::DropReason};

use super::{
    bridge::Bridge,
    counted::{self, Counted, DropsMap},
    file::OverridesFile,
    state::InForce,
};
use crate::{
    clock,
    events::DroppedFrames,
    observer::{PortKind, PortStatus, SharedPorts},
};

/// A port is dropping for so long after a frame of it was dropped.
const DROPPING: Duration = Duration::from_secs(60);

/// The maps, the bridges, the modes of ports.
pub(super) struct Inner {
    /// The kernel's modes of bridges.
    pub modes: Array<MapData, abi::Mode>,
    /// The kernel's counts.
    pub drops: DropsMap,
    /// The modes of ports.
    pub file: OverridesFile,
    /// In the order of their slots.
    pub bridges: Vec<Bridge>,
    /// Whether the brake may act.
    pub brake: bool,
    /// What was counted, when it was last read.
    pub counted: Vec<Counted>,
    /// The ports that there are.
    pub ports: SharedPorts,
    /// What was told of what is dropped.
    pub telling: Telling,
}

impl Inner {
    pub(super) fn at(&self, bridge: &str) -> Option<usize> {
        self.bridges.iter().position(|known| *known.name == *bridge)
    }

    pub(super) fn set_mode(&mut self, at: usize, mode: Mode) -> Result<(), MapError> {
        let was = std::mem::replace(&mut self.bridges[at].mode, mode);
        if let Err(error) = self.write(at) {
            self.bridges[at].mode = was;
            return Err(error);
        }
        if was != mode {
            self.bridges[at].brake.changed(clock::monotonic());
        }
        Ok(())
    }

    pub(super) fn write(&mut self, at: usize) -> Result<(), MapError> {
        let Bridge { slot, mode, braked, .. } = &self.bridges[at];
        let mode = abi::Mode { enforce: u32::from(mode.enforces()), braked: *braked };
        self.modes.set(*slot, mode, 0)
    }

    /// Reads what was dropped, and removes what was of ports that are gone.
    pub(super) fn read_drops(&mut self) {
        let ports = self.ports.read();
        self.counted = counted::read(&mut self.drops, |ifindex| ports.contains_key(&ifindex));
    }

    /// The frames that were dropped, by port and reason.
    pub(super) fn dropped(&self) -> impl Iterator<Item = (u32, DropReason, u64)> {
        let dropped = self.counted.iter().filter(|row| row.dropped > 0);
        dropped.map(|row| (row.ifindex, row.reason, row.dropped))
    }

    /// Of which of them it is to be told now.
    pub(super) fn untold(&mut self) -> Vec<DroppedFrames> {
        let counts: Vec<_> = self.dropped().collect();
        let due = self.telling.due(counts, clock::monotonic());
        let ports = self.ports.read();
        let of = |(ifindex, reason, frames): (u32, DropReason, u64)| {
            let port = &ports.get(&ifindex)?.port;
            let mut rows = self.counted.iter();
            let row = rows.find(|row| (row.ifindex, row.reason) == (ifindex, reason))?;
            Some(DroppedFrames {
                bridge: port.bridge.clone(),
                interface: port.interface.clone(),
                ifindex,
                reason: reason.name(),
                address: row.address(),
                frames,
                dropped: row.dropped,
            })
        };
        due.into_iter().filter_map(of).collect()
    }

    pub(super) fn in_force(&self) -> InForce {
        let mode = |bridge: &Bridge| (bridge.name.clone(), bridge.mode);
        let own = self.file.iter().map(|(at, own)| (at, (own.bridge.clone(), own.mode)));
        InForce { bridges: self.bridges.iter().map(mode).collect(), ports: own.collect() }
    }

    /// How many ports of a bridge enforce and drop, and whether nobody is before the program on any.
    pub(super) fn ports_of(&self, bridge: &Bridge) -> (usize, usize, bool) {
        let now = clock::monotonic();
        let ports = self.ports.read();
        let own = || ports.iter().filter(|(_, status)| status.port.bridge == bridge.name);
        let in_force = self.in_force();
        let enforcing = own().filter(|(at, status)| in_force.of(**at, status).enforces()).count();
        let is_dropping =
            |counted: &&Counted| counted.dropped > 0 && now.saturating_sub(counted.last) < DROPPING;
        let mut dropping: Vec<_> =
            self.counted.iter().filter(is_dropping).map(|counted| counted.ifindex).collect();
        dropping.dedup();
        let dropping = own().filter(|(ifindex, _)| dropping.contains(ifindex)).count();
        let first = own().all(|(_, status)| status.coverage.is_none() || status.why.is_none());
        (enforcing, dropping, first)
    }

    /// The ports that enforce.
    pub(super) fn enforced(&self) -> BTreeSet<u32> {
        let in_force = self.in_force();
        let ports = self.ports.read();
        let enforced = ports.iter().filter(|(at, status)| in_force.of(**at, status).enforces());
        enforced.map(|(ifindex, _)| *ifindex).collect()
    }

    /// The ports of a bridge on which nothing is dropped though nobody has said that they are uplinks.
    pub(super) fn unknown(&self, bridge: &str) -> Option<String> {
        let ports = self.ports.read();
        let is = |status: &&PortStatus| {
            *status.port.bridge == *bridge && status.kind.0 == PortKind::Unknown
        };
        let names: Vec<_> =
            ports.values().filter(is).map(|status| &*status.port.interface).collect();
        let (names, which) = (names.join(", "), "name each in uplinks or in access");
        (!names.is_empty()).then(|| format!("nothing is dropped on {names}: {which}"))
    }
}
