//! Ports, the ends of links, and the host's own addresses.

use std::sync::Arc;

use super::{Engine, Lease, Notice, Owner, State, index::Slot, transaction::Transaction};
use crate::evidence::PortName;

impl Transaction<'_> {
    /// Declared bindings that named the port before there was such a link get its ifindex, once.
    pub(super) fn port_added(&mut self, ifindex: u32) {
        let Some(PortName { interface, bridge, .. }) = self.view.port(ifindex) else { return };
        for lease in self.engine.index.naming_interface(&interface) {
            let waits = lease.state.is_owned()
                && lease.segment.bridge == bridge
                && lease.binding.ifindex.is_none();
            if waits {
                let slot = self.engine.slot_of(&lease);
                let mut bound = (*lease).clone();
                bound.binding.ifindex = Some(ifindex);
                bound.binding.device = self.view.device(ifindex);
                bound.updated_at = self.now.wall;
                self.put(slot, bound);
                self.port_taken(ifindex, lease.owner.as_ref());
            }
        }
    }

    /// A link has ended: what was bound to it is bound to no port any more.
    pub(super) fn link_ended(&mut self, ifindex: u32) {
        for lease in self.engine.index.bound_to_port(ifindex) {
            self.end_port(&lease);
        }
    }

    /// An owner's lease is bound to a port: those of others that were bound to it before are no more.
    pub(super) fn port_taken(&mut self, ifindex: u32, owner: Option<&Owner>) {
        for lease in self.engine.index.bound_to_port_by_others(ifindex, owner) {
            self.end_port(&lease);
        }
    }

    fn end_port(&mut self, lease: &Arc<Lease>) {
        let slot = self.engine.slot_of(lease);
        let mut ended = (**lease).clone();
        ended.end_port();
        ended.updated_at = self.now.wall;
        // Until now the port spoke for it.
        if Engine::is_kept_by_port(lease) {
            self.spoken(slot);
        }
        self.put(slot, ended);
        if lease.state == State::Releasing || lease.is_recovered() {
            self.recheck(slot);
        }
    }

    /// What the host has is not handed out, and what waited for it to go waits no more.
    pub(super) fn host_addresses(&mut self) {
        let (mut taken, mut free): (Vec<Slot>, Vec<Slot>) = Default::default();
        for (id, table) in self.engine.tables.iter_mut().enumerate() {
            let here = self.view.hosts(table.pool.segment());
            let (added, left) = table.set_host(&here);
            taken.extend(added.into_iter().map(|address| (id, address)));
            free.extend(left.into_iter().map(|address| (id, address)));
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
