//! Ports and the host's own addresses.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Notice, State, index::Slot, step::Step};

impl Step<'_> {
    /// Declared bindings that name the port get its ifindex.
    pub(super) fn port_added(&mut self, bridge: &Arc<str>, interface: &Arc<str>, ifindex: u32) {
        self.engine.ports.insert((Arc::clone(bridge), Arc::clone(interface)), ifindex);
        for lease in self.engine.index.naming_interface(interface) {
            let slot = self.engine.slot_of(&lease);
            // A released lease waits for the end of its own port, not for a namesake's.
            let named =
                lease.state.is_owned() && lease.segment.bridge == *bridge && lease.binding.declared;
            let old = lease.binding.ifindex;
            let waits = old.is_none_or(|old| old != ifindex && !self.view.port_exists(old));
            if named && waits {
                let mut bound = (*lease).clone();
                bound.binding.ifindex = Some(ifindex);
                // The MAC was the one behind the port that ended (row A31).
                bound.binding.mac = bound.binding.mac.filter(|_| old.is_none());
                bound.updated_at = self.now.wall;
                self.put(slot, bound);
            }
        }
    }

    /// Leases that were given back and waited for this port cool down.
    pub(super) fn port_removed(&mut self, ifindex: u32) {
        self.engine.ports.retain(|_, existing| *existing != ifindex);
        for lease in self.engine.index.bound_to_port(ifindex) {
            if lease.state == State::Releasing {
                self.recheck(self.engine.slot_of(&lease));
            }
        }
    }

    /// What the host has is not handed out, and what waited for it to go waits no more.
    pub(super) fn host_addresses(
        &mut self,
        bridge: &Arc<str>,
        addresses: &BTreeSet<(u16, IpAddr)>,
    ) {
        let (mut taken, mut free): (Vec<Slot>, Vec<Slot>) = Default::default();
        for (id, table) in self.engine.tables.iter_mut().enumerate() {
            let segment = table.pool.segment();
            if segment.bridge == *bridge {
                let here = addresses.iter().filter(|(vlan, _)| *vlan == segment.vlan);
                let here: Vec<_> = here.map(|(_, address)| *address).collect();
                let (added, left) = table.set_host(&here);
                taken.extend(added.into_iter().map(|address| (id, address)));
                free.extend(left.into_iter().map(|address| (id, address)));
            }
        }
        for slot in free {
            if self.lease(slot).is_some_and(|lease| lease.state == State::Releasing) {
                self.recheck(slot);
            }
        }
        for slot in taken {
            if let Some(lease) = self.lease(slot) {
                self.notice(Notice::HostAddress(lease));
            }
        }
    }
}
