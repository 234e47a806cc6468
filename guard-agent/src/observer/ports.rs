//! The ports of the watched bridges: on each the program, and in the kernel's map of ports its
//! segment.

use std::{collections::BTreeMap, sync::Arc};

use aya::maps::{HashMap, MapData};
use guard_ebpf::abi::{self, MAX_PORTS, PORT_ACCESS, PORT_UPLINK};
use parking_lot::RwLock;

use super::{
    kernel::{Coverage, Kernel, KernelError},
    topology::{self, View},
};
use crate::{config::Bridge, health::Health};

/// A port, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// What netlink says.
    pub port: topology::Port,
    /// It leads to other hosts.
    pub uplink: bool,
    /// Index into the counters of frames.
    pub slot: u32,
    /// The program is on it.
    pub coverage: Option<Coverage>,
}

/// The ports by ifindex, shared with those who ask.
pub type SharedPorts = Arc<RwLock<BTreeMap<u32, PortStatus>>>;

/// The ports, and the hand that puts the program on them.
pub struct Ports {
    kernel: Kernel,
    map: HashMap<MapData, u32, abi::Port>,
    bridges: Vec<Bridge>,
    shared: SharedPorts,
    free_slots: Vec<u32>,
    health: Arc<Health>,
}

impl Ports {
    /// Takes over what an earlier agent left: ports keep their counters.
    ///
    /// # Errors
    /// The map of ports cannot be read.
    pub fn new(
        kernel: Kernel,
        map: HashMap<MapData, u32, abi::Port>,
        bridges: Vec<Bridge>,
        shared: SharedPorts,
        health: Arc<Health>,
    ) -> Result<Self, KernelError> {
        let error = |source| KernelError::Map { name: abi::MAP_PORTS, source };
        let mut used = vec![false; MAX_PORTS as usize];
        for entry in map.iter() {
            let (_, port) = entry.map_err(error)?;
            if let Some(slot) = used.get_mut(port.port_slot as usize) {
                *slot = true;
            }
        }
        let free_slots = (0..MAX_PORTS).rev().filter(|slot| !used[*slot as usize]).collect();
        Ok(Self { kernel, map, bridges, shared, free_slots, health })
    }

    /// The ports by ifindex.
    pub fn shared(&self) -> &SharedPorts {
        &self.shared
    }

    /// Forgets the ports of an earlier agent that are none of ours now.
    pub fn forget_others(&mut self, view: &View) {
        let in_map = self.map.keys().filter_map(Result::ok);
        let pinned = self.kernel.pinned().unwrap_or_default();
        let known: Vec<_> = in_map.chain(pinned).collect();
        for ifindex in known.into_iter().filter(|ifindex| !view.ports.contains_key(ifindex)) {
            self.remove(ifindex);
        }
    }

    /// Puts the program on a port that is new, or changed its name or bridge.
    pub fn cover(&mut self, ifindex: u32, port: &topology::Port) {
        let what = format!("port {}", port.interface);
        match self.try_cover(ifindex, port) {
            Ok(status) => {
                self.health.recovered(&what);
                self.shared.write().insert(ifindex, status);
            }
            Err(error) if !exists(ifindex) => {
                tracing::debug!(port = %port.interface, ifindex, %error, "gone before it was covered");
                self.remove(ifindex);
            }
            Err(error) => {
                self.health.degraded(&what, &format!("it is not watched: {error}"));
                let uplink = self.is_uplink(port);
                let status = PortStatus { port: port.clone(), uplink, slot: 0, coverage: None };
                self.shared.write().insert(ifindex, status);
            }
        }
    }

    fn try_cover(
        &mut self,
        ifindex: u32,
        port: &topology::Port,
    ) -> Result<PortStatus, KernelError> {
        let slot = match self.map.get(&ifindex, 0) {
            Ok(known) => known.port_slot,
            // Taken off the list once it is in the map.
            Err(_) => {
                *self.free_slots.last().ok_or(KernelError::Missing("room for another port"))?
            }
        };
        let bridge_slot = self.bridges.iter().position(|bridge| bridge.name == port.bridge);
        let uplink = self.is_uplink(port);
        let entry = abi::Port {
            bridge: port.bridge_ifindex,
            bridge_slot: bridge_slot.and_then(|slot| slot.try_into().ok()).unwrap_or(0),
            port_slot: slot,
            pvid: 0,
            kind: if uplink { PORT_UPLINK } else { PORT_ACCESS },
            reserved: 0,
        };
        self.map
            .insert(ifindex, entry, 0)
            .map_err(|source| KernelError::Map { name: abi::MAP_PORTS, source })?;
        self.free_slots.pop_if(|free| *free == slot);
        let coverage = self.kernel.attach(ifindex, &port.interface)?;
        Ok(PortStatus { port: port.clone(), uplink, slot, coverage: Some(coverage) })
    }

    /// Puts the program back on ports that are found without it. Gives back whether one of them had
    /// it before: what passed there in between was not seen.
    pub fn repair(&mut self, uncovered: &[u32]) -> bool {
        let mut lost = false;
        for ifindex in uncovered {
            // It may be gone by now, and its end is told by netlink.
            let Some(status) = self.shared.read().get(ifindex).cloned() else { continue };
            let PortStatus { port, coverage, .. } = status;
            if coverage.is_some() && exists(*ifindex) {
                let why = "the program was taken off it by someone else; it is put back";
                self.health.degraded(&format!("port {}", port.interface), why);
                lost = true;
            }
            self.cover(*ifindex, &port);
        }
        lost
    }

    /// Forgets a port that is gone or left its bridge.
    pub fn remove(&mut self, ifindex: u32) {
        if let Some(status) = self.shared.write().remove(&ifindex) {
            self.health.recovered(&format!("port {}", status.port.interface));
        }
        if let Ok(entry) = self.map.get(&ifindex, 0) {
            self.free_slots.push(entry.port_slot);
        }
        // Not there is as good as removed.
        let _ = self.map.remove(&ifindex);
        if let Err(error) = self.kernel.detach(ifindex) {
            tracing::warn!(ifindex, %error, "cannot take the program off a port");
        }
    }

    /// Whether it leads to other hosts.
    pub fn is_uplink(&self, port: &topology::Port) -> bool {
        let bridge = self.bridges.iter().find(|bridge| bridge.name == port.bridge);
        bridge.is_some_and(|bridge| bridge.uplinks.contains(&port.interface))
    }
}

/// Whether an interface with this ifindex exists now, whatever netlink has told so far.
pub fn exists(ifindex: u32) -> bool {
    name(ifindex).is_some()
}

/// The name of an interface now.
pub fn name(ifindex: u32) -> Option<String> {
    nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()
}
