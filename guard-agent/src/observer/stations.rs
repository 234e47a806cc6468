//! The MACs that live on ports, and what each port has used of its quota: the program adds, this
//! takes away and counts anew.

use std::collections::HashSet;

use aya::maps::{Array, HashMap, MapData};
use guard_ebpf::abi::{
    AddressKey, MAC_BOUND, MacHolder, MacKey, OWNED_MAC, OWNED_PORT, Owned, PortState,
};

use super::sweep::Snapshot;

/// The maps of MACs and of quotas.
pub struct Stations {
    macs: HashMap<MapData, MacKey, MacHolder>,
    states: Array<MapData, PortState>,
}

impl Stations {
    /// Takes over what is in the maps.
    pub fn new(
        macs: HashMap<MapData, MacKey, MacHolder>,
        states: Array<MapData, PortState>,
    ) -> Self {
        Self { macs, states }
    }

    /// A port is new in a slot.
    pub fn port_added(&mut self, slot: u32) {
        self.set(slot, PortState::default());
    }

    /// A port is gone, and what lived on it lives nowhere.
    pub fn port_gone(&mut self, ifindex: u32) {
        self.retain(|_, holder| holder.ifindex != ifindex);
    }

    /// Forgets the MACs that nothing shows any more.
    pub fn forget_others(&mut self, snapshot: &Snapshot) {
        let mut shown = HashSet::new();
        let mut ports_of_any_mac = HashSet::new();
        for (key, live) in &snapshot.live {
            shown.insert(mac_key(key, live.mac));
        }
        for (key, Owned { ifindex, mac, flags, .. }) in &snapshot.owned {
            if flags & OWNED_MAC != 0 {
                shown.insert(mac_key(key, *mac));
            } else if flags & OWNED_PORT != 0 {
                ports_of_any_mac.insert(*ifindex);
            }
        }
        self.retain(|key, holder| {
            holder.flags & MAC_BOUND != 0
                || shown.contains(key)
                || ports_of_any_mac.contains(&holder.ifindex)
        });
    }

    /// Writes how many addresses that nobody owns are live on the port in a slot. What the program
    /// adds meanwhile counts from the next time on.
    pub fn count(&mut self, slot: u32, addresses: u32) {
        if let Ok(state) = self.states.get(&slot, 0)
            && state.addresses != addresses
        {
            self.set(slot, PortState { addresses, ..state });
        }
    }

    fn set(&mut self, slot: u32, state: PortState) {
        if let Err(error) = self.states.set(slot, state, 0) {
            tracing::warn!(slot, %error, "cannot write a port's quota into the kernel");
        }
    }

    fn retain(&mut self, keep: impl Fn(&MacKey, &MacHolder) -> bool) {
        let entries = self.macs.iter().filter_map(Result::ok);
        let over: Vec<_> = entries.filter(|(key, holder)| !keep(key, holder)).collect();
        for (key, _) in over {
            // Not there is as good as removed.
            let _ = self.macs.remove(&key);
        }
    }
}

fn mac_key(key: &AddressKey, mac: [u8; 6]) -> MacKey {
    MacKey::new(key.segment(), mac)
}
