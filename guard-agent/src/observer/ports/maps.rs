//! What the kernel has of ports, and what was written of it.

use std::collections::{self, BTreeMap};

use aya::maps::{Array, HashMap, MapData, MapError};
use bytemuck::Zeroable as _;
use guard_ebpf::abi::{self, PORT_FILTERS_VLANS, near_slot};

use crate::{datapath::entries, owners::MacTable};

/// The kernel's maps that are about ports.
pub(in crate::observer) struct PortMaps {
    /// What the agent says of each.
    pub(super) ports: HashMap<MapData, u32, abi::Port>,
    /// The same of some of them.
    near: Array<MapData, abi::Port>,
    /// The VLANs of those whose bridge filters them.
    vlans: HashMap<MapData, u32, abi::Vlans>,
    /// What lives on them.
    pub(super) stations: MacTable,
    /// What was written of each.
    pub(super) written: BTreeMap<u32, abi::Port>,
    written_vlans: BTreeMap<u32, abi::Vlans>,
}

impl PortMaps {
    pub(in crate::observer) fn new(
        ports: HashMap<MapData, u32, abi::Port>,
        near: Array<MapData, abi::Port>,
        vlans: HashMap<MapData, u32, abi::Vlans>,
        stations: MacTable,
    ) -> Self {
        let (written, written_vlans) = (BTreeMap::new(), BTreeMap::new());
        Self { ports, near, vlans, stations, written, written_vlans }
    }

    /// Writes what is said of a port, and into its near slot unless another's is there.
    pub(super) fn insert(&mut self, port: abi::Port) -> Result<(), MapError> {
        if port.flags & PORT_FILTERS_VLANS == 0 {
            self.remove_vlans(port.ifindex);
        }
        self.written.insert(port.ifindex, port);
        self.ports.insert(port.ifindex, port, 0)?;
        let slot = near_slot(port.ifindex);
        let there = self.near.get(&slot, 0)?.ifindex;
        if there == 0 || there == port.ifindex {
            self.near.set(slot, port, 0)?;
        }
        Ok(())
    }

    /// Writes the VLANs of a port whose bridge filters them.
    pub(super) fn insert_vlans(
        &mut self,
        ifindex: u32,
        member: abi::Vlans,
    ) -> Result<(), MapError> {
        self.written_vlans.insert(ifindex, member);
        self.vlans.insert(ifindex, member, 0)
    }

    /// Idempotent: they may be gone already.
    fn remove_vlans(&mut self, ifindex: u32) {
        self.written_vlans.remove(&ifindex);
        let _ = self.vlans.remove(&ifindex);
    }

    /// Puts right the VLANs that are not as they were written. Returns of how many ports those were.
    pub(super) fn repair_vlans(&mut self) -> Result<usize, MapError> {
        let mut there: collections::HashMap<_, _> = entries(&self.vlans)?.into_iter().collect();
        let is_wrong =
            |(ifindex, member): &(u32, abi::Vlans)| there.remove(ifindex) != Some(*member);
        let written = self.written_vlans.iter().map(|(ifindex, member)| (*ifindex, *member));
        let wrong: Vec<_> = written.filter(is_wrong).collect();
        for (ifindex, member) in &wrong {
            self.vlans.insert(ifindex, member, 0)?;
        }
        for ifindex in there.keys() {
            self.remove_vlans(*ifindex);
        }
        Ok(wrong.len() + there.len())
    }

    /// Puts right what is not as it was written. Returns how many ports that were.
    pub(super) fn repair(&mut self) -> Result<usize, MapError> {
        let mut there: collections::HashMap<_, _> = entries(&self.ports)?.into_iter().collect();
        let mut wrong = Vec::new();
        for (ifindex, port) in &self.written {
            let near = self.near.get(&near_slot(*ifindex), 0)?;
            if there.remove(ifindex) != Some(*port) || (near.ifindex == *ifindex && near != *port) {
                wrong.push(*port);
            }
        }
        for port in &wrong {
            self.insert(*port)?;
        }
        for ifindex in there.keys() {
            self.remove(*ifindex);
        }
        Ok(wrong.len() + there.len())
    }

    /// Idempotent: it may be gone already.
    pub(super) fn remove(&mut self, ifindex: u32) {
        let slot = near_slot(ifindex);
        if self.near.get(&slot, 0).is_ok_and(|near| near.ifindex == ifindex) {
            let _ = self.near.set(slot, abi::Port::zeroed(), 0);
        }
        self.written.remove(&ifindex);
        let _ = self.ports.remove(&ifindex);
        self.remove_vlans(ifindex);
        self.stations.forget_on(ifindex);
    }
}
