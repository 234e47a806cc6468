//! `Confirm` and `Bind`: the owner says that the sandbox runs, and who may use its address.

use std::sync::Arc;

use super::{
    Generation, Lease, State,
    command::{Refusal, Reply},
    index::Slot,
    reason,
    transaction::Transaction,
    transition,
};
use crate::mac::Mac;

impl Transaction<'_> {
    /// held → active.
    pub(super) fn confirm(&mut self, generation: Generation) -> Result<Reply, Refusal> {
        let Some((slot, lease)) = self.callers_own(generation)? else {
            return Ok(self.no_lease(generation));
        };
        let lease = match lease.state {
            State::Held => {
                let boot = self.engine.high_water.boot;
                self.put(slot, Lease { boot, ..transition::activate(&lease, self.now) })
            }
            _ => self.asked_for(lease),
        };
        Ok(Reply::Leases(vec![lease]))
    }

    /// Declares the binding; the owner runs, so held → active.
    pub(super) fn bind(
        &mut self,
        generation: Generation,
        mac: Option<Mac>,
        port: Option<(Arc<str>, u32)>,
    ) -> Result<Reply, Refusal> {
        let Some((slot, lease)) = self.callers_own(generation)? else {
            return Ok(self.no_lease(generation));
        };
        let mut bound = transition::activate(&lease, self.now);
        let binding = &mut bound.binding;
        if !binding.declared {
            // What was learned from frames is not declared by not being named, but the port that
            // the MAC was learned on stays known.
            let same = mac.is_some() && binding.mac == mac;
            binding.ifindex = binding.ifindex.filter(|_| same);
            binding.device = binding.device.filter(|_| same);
            binding.mac = None;
            binding.interface = None;
            binding.declared = true;
        }
        if mac.is_some() {
            binding.mac = mac;
        }
        if let Some((interface, ifindex)) = port {
            binding.interface = Some(interface);
            binding.ifindex = Some(ifindex);
            binding.device = self.view.device(ifindex);
            binding.port_ended = false;
            self.port_taken(ifindex, lease.owner.as_ref());
        }
        if bound.binding == lease.binding && lease.state == State::Active {
            return Ok(Reply::Leases(vec![self.asked_for(lease)]));
        }
        bound.misses = 0;
        bound.missed_at = None;
        bound.boot = self.engine.high_water.boot;
        Ok(Reply::Leases(vec![self.put(slot, bound)]))
    }

    /// The lease of a generation that has not ended.
    pub(super) fn owned(&self, generation: Generation) -> Option<(Slot, Arc<Lease>)> {
        let lease = Arc::clone(self.engine.index.generation(generation)?);
        let slot = self.engine.slot_of(&lease);
        lease.state.is_owned().then_some((slot, lease))
    }

    /// As [`Self::owned`], of a lease that is the caller's to change.
    pub(super) fn callers_own(
        &self,
        generation: Generation,
    ) -> Result<Option<(Slot, Arc<Lease>)>, Refusal> {
        if let Some(lease) = self.engine.index.generation(generation) {
            self.caller.check(lease.act())?;
        }
        Ok(self.owned(generation))
    }

    /// The reply about a generation that nobody has (any more).
    pub(super) fn no_lease(&self, generation: Generation) -> Reply {
        let given = self.engine.high_water.was_given(generation);
        if given { Reply::Stale } else { Reply::NotFound }
    }

    /// Whether a lease was taken over instead of handed out.
    pub(super) fn mark_adopted(lease: &mut Lease) {
        lease.reason = Arc::from(reason::ADOPTED);
    }
}
