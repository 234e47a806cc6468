//! The MACs that live on ports, and what each port has used of its quota: the program adds, this
//! takes away and counts anew.

use std::collections::{HashMap, HashSet};

use aya::maps::{Array, HashMap as KernelMap, MapData};
use guard_core::mac::Mac;
use guard_ebpf::abi::{
    AddressKey, MAC_BOUND, MacHolder, MacKey, OWNED_MAC, OWNED_PORT, Owned, PortState,
};

use crate::datapath::{Snapshot, Used, entries, mac_keys};

/// The MACs that are remembered of a port whose binding names none.
const MACS_OF_ANY: usize = 16;

/// The maps of MACs and of quotas.
pub(crate) struct MacTable {
    macs: KernelMap<MapData, MacKey, MacHolder>,
    states: Array<MapData, PortState>,
}

impl MacTable {
    /// Takes over what is in the maps.
    pub(crate) fn new(
        macs: KernelMap<MapData, MacKey, MacHolder>,
        states: Array<MapData, PortState>,
    ) -> Self {
        Self { macs, states }
    }

    /// A port is new in a slot.
    pub(crate) fn port_added(&mut self, slot: u32) {
        self.set(slot, PortState::default());
    }

    /// What lives on a port lives nowhere, until it claims again: the port has left its bridge, or is of
    /// another kind now. What a binding keeps there stays: that ends with the binding.
    pub(crate) fn forget_on(&mut self, ifindex: u32) {
        self.retain(|_, holder| holder.ifindex != ifindex || holder.flags & MAC_BOUND != 0);
    }

    /// Whether a binding keeps a MAC on its port.
    pub(crate) fn is_bound(&self, key: &AddressKey, mac: [u8; 6]) -> bool {
        let holders = mac_keys(*key, mac).map(|key| self.macs.get(&key, 0));
        holders.iter().flatten().any(|holder| holder.flags & MAC_BOUND != 0)
    }

    /// A MAC is on a port from now on, unless a binding keeps it on another.
    pub(crate) fn hold(&mut self, key: MacKey, ifindex: u32) {
        let known = self.macs.get(&key, 0).ok();
        let stays =
            known.is_some_and(|known| known.ifindex == ifindex || known.flags & MAC_BOUND != 0);
        if !stays && let Err(error) = self.macs.insert(key, MacHolder { ifindex, flags: 0 }, 0) {
            tracing::warn!(ifindex, %error, "cannot note in the kernel where a MAC lives");
        }
    }

    /// A MAC has left a port, unless a binding keeps it there.
    pub(crate) fn moved(&mut self, key: &AddressKey, Mac(mac): Mac, from: u32) {
        for key in mac_keys(*key, mac) {
            let is_there =
                |holder: MacHolder| holder.ifindex == from && holder.flags & MAC_BOUND == 0;
            if self.macs.get(&key, 0).is_ok_and(is_there) {
                // Idempotent: it may be gone already.
                let _ = self.macs.remove(&key);
            }
        }
    }

    /// What the port in a slot has used of its quotas.
    pub(crate) fn state(&self, slot: u32) -> Option<PortState> {
        self.states.get(&slot, 0).ok()
    }

    /// Forgets the MACs that nothing shows any more.
    pub(crate) fn forget_others(&mut self, snapshot: &Snapshot) {
        let mut shown = HashSet::new();
        let (mut macs_of_any_port, mut ports_of_any_mac) = (HashSet::new(), HashSet::new());
        for (key, live) in &snapshot.live {
            shown.extend(mac_keys(*key, live.mac).map(|key| (key, live.ifindex)));
        }
        for (key, Owned { ifindex, mac, flags, .. }) in &snapshot.owned {
            if flags & (OWNED_MAC | OWNED_PORT) == OWNED_MAC | OWNED_PORT {
                shown.extend(mac_keys(*key, *mac).map(|key| (key, *ifindex)));
            } else if flags & OWNED_MAC != 0 {
                macs_of_any_port.extend(mac_keys(*key, *mac));
            } else if flags & OWNED_PORT != 0 {
                ports_of_any_mac.insert(*ifindex);
            }
        }
        // A port that may use any MAC has so many at a time, lest it fills the map with them.
        let mut others = HashMap::<u32, usize>::new();
        self.retain(|key, holder| {
            if holder.flags & MAC_BOUND != 0
                || shown.contains(&(*key, holder.ifindex))
                || macs_of_any_port.contains(key)
            {
                return true;
            }
            let others = others.entry(holder.ifindex).or_default();
            *others += 1;
            ports_of_any_mac.contains(&holder.ifindex) && *others <= MACS_OF_ANY
        });
    }

    /// Writes what the port in a slot has in the maps, and with `anew` begins to count its Ethernet
    /// sources. What the program adds meanwhile counts from the next time on.
    pub(crate) fn count(&mut self, slot: u32, used: Used, anew: bool) {
        let Used { addresses, challengers, reserved } = used;
        if let Ok(state) = self.states.get(&slot, 0) {
            let mut new = PortState { addresses, challengers, reserved, ..state };
            if anew {
                (new.macs, new.sources) = (0, [0; 16]);
                (new.admitted_macs, new.admitted) = (0, [0; 64]);
            }
            if new != state {
                self.set(slot, new);
            }
        }
    }

    fn set(&mut self, slot: u32, state: PortState) {
        if let Err(error) = self.states.set(slot, state, 0) {
            tracing::warn!(slot, %error, "cannot write a port's quota into the kernel");
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&MacKey, &MacHolder) -> bool) {
        match entries(&self.macs) {
            Ok(entries) => {
                for (key, _) in entries.iter().filter(|(key, holder)| !keep(key, holder)) {
                    // Idempotent: it may be gone already.
                    let _ = self.macs.remove(key);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read the kernel's map of MACs"),
        }
    }
}
