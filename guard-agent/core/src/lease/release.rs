//! Releasing leases. Release is not removal: an address that is still in use is not free.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Act, Binding, Generation, Hold, Lease, State,
    command::{Reason, Refusal, Reply},
    index::Slot,
    reason,
    transaction::Transaction,
    transition,
};
use crate::segment::Segment;

impl Transaction<'_> {
    /// By generation, which ends with the first release: a second one is stale.
    pub(super) fn release(&mut self, generation: Generation) -> Result<Reply, Refusal> {
        Ok(match self.callers_own(generation)? {
            Some((slot, _)) => released(vec![self.give_back(slot, self.now.boot)]),
            None => self.no_lease(generation),
        })
    }

    /// Nobody may use the address of a lease that was given back, not even who has it still.
    pub(super) fn cut(&mut self, generation: Generation) -> Result<Reply, Refusal> {
        let Some(lease) = self.engine.index.generation(generation).cloned() else {
            return Ok(self.no_lease(generation));
        };
        self.caller.check(lease.act())?;
        if lease.state != State::Releasing {
            return Ok(Reply::Stale);
        }
        let binding = Binding { declared: true, port_ended: true, ..Binding::default() };
        if lease.binding == binding {
            return Ok(released(vec![lease]));
        }
        let slot = self.engine.slot_of(&lease);
        let cut = Lease { binding, updated_at: self.now.wall, ..(*lease).clone() };
        Ok(released(vec![self.put(slot, cut)]))
    }

    /// All leases of a sandbox, or of one run of it, that are the caller's.
    pub(super) fn release_owner(
        &mut self,
        sandbox: &Arc<str>,
        lifecycle: Option<&Arc<str>>,
    ) -> Result<Reply, Refusal> {
        let lifecycle = lifecycle.filter(|lifecycle| !lifecycle.is_empty());
        let all = || self.engine.index.of_sandbox(sandbox, lifecycle);
        let own = |lease: &&Arc<Lease>| self.caller.may(lease.act());
        let held: Vec<_> = all().filter(own).cloned().collect();
        let run =
            |lease: &Arc<Lease>| lease.owner.as_ref().map(|owner| Arc::clone(&owner.lifecycle));
        if let (Some(first), Some(last)) = (held.first().and_then(run), held.last().and_then(run))
            && first != last
        {
            return Err(Refusal::new(
                Reason::AmbiguousOwner,
                format!(
                    "several lifecycles of sandbox {sandbox:?} hold leases, {first:?} and {last:?} \
                     among them; name the lifecycle or the generation"
                ),
            ));
        }
        if !held.is_empty() {
            let since = self.now.boot;
            let give_back = |lease: Arc<Lease>| self.give_back(self.engine.slot_of(&lease), since);
            return Ok(released(held.into_iter().map(give_back).collect()));
        }
        let ended: Vec<_> = self
            .engine
            .index
            .ended(sandbox, lifecycle)
            .filter(|lease| given_back(lease) && own(lease))
            .cloned()
            .collect();
        if let Some(last) = ended.iter().max_by_key(|lease| lease.generation).cloned() {
            // What still waits, or else the last one: a name may have had very many.
            let waits = ended.into_iter().filter(|lease| lease.state == State::Releasing);
            let waits: Vec<_> = waits.collect();
            return Ok(released(if waits.is_empty() { vec![last] } else { waits }));
        }
        if let Some(lease) = all().next() {
            self.caller.check(lease.act())?;
        }
        let other_run = self.engine.index.of_sandbox(sandbox, None).next().is_some();
        Ok(if other_run { Reply::Stale } else { Reply::NotFound })
    }

    /// Whatever the owner says. What nobody has (any more) is left as it is.
    pub(super) fn force_release(&mut self, segment: &Segment, address: IpAddr) -> Reply {
        let slot = self.engine.slot(segment, address);
        let Some((slot, lease)) = slot.and_then(|slot| Some((slot, self.lease(slot)?))) else {
            return Reply::NotFound;
        };
        match lease.state {
            State::Held | State::Active => released(vec![self.give_back(slot, self.now.boot)]),
            State::Releasing | State::Cooling => released(vec![lease]),
            State::Quarantined => Reply::NotFound,
        }
    }

    /// A subscriber lets go of a released address. Idempotent.
    pub(super) fn ack_hold(
        &mut self,
        generation: Generation,
        subscriber: &Arc<str>,
    ) -> Result<Reply, Refusal> {
        self.caller.check(Act::Subscriber(subscriber))?;
        let Some(lease) = self.engine.index.generation(generation).cloned() else {
            return Ok(self.no_lease(generation));
        };
        let slot = self.engine.slot_of(&lease);
        if !given_back(&lease) {
            return Ok(Reply::Stale);
        }
        if lease.holds.iter().any(|hold| hold.subscriber == *subscriber) {
            let mut waits = (*lease).clone();
            waits.holds.retain(|hold| hold.subscriber != *subscriber);
            waits.until = waits.holds.iter().map(|hold| hold.until).min();
            self.put(slot, waits);
            self.recheck(slot);
        }
        Ok(Reply::Done)
    }

    /// Ends a lease of which nothing is to be left since that moment.
    pub(super) fn give_back(&mut self, slot: Slot, since: Duration) -> Arc<Lease> {
        let lease = self.lease(slot).expect("the index names leases that exist");
        let until = |deadline: &Duration| self.now.boot + *deadline;
        let holds: Vec<_> = self
            .engine
            .subscribers
            .iter()
            .map(|(subscriber, deadline)| Hold {
                subscriber: Arc::clone(subscriber),
                until: until(deadline),
            })
            .collect();
        // What speaks for a released lease is not all that speaks for one that somebody has.
        let given = transition::release(&lease, reason::HOLD, holds, self.now);
        let complete = self.complete(slot, since);
        let why = if !self.evidence_of(slot, &given).is_empty() {
            reason::LIVE
        } else if complete.is_err() {
            reason::UNKNOWN
        } else if given.holds.is_empty() {
            self.silent_from(slot, since);
            return self.cool(slot, &lease);
        } else {
            reason::HOLD
        };
        let given = self.put(slot, Lease { reason: Arc::from(why), ..given });
        self.spoken(slot);
        if let (reason::UNKNOWN, Err(unknown)) = (why, complete) {
            self.engine.wait(slot, unknown);
        }
        given
    }

    pub(super) fn cool(&mut self, slot: Slot, lease: &Lease) -> Arc<Lease> {
        let order = self.next_order();
        let cooldown = self.table(slot).pool.spec().cooldown;
        self.put(slot, transition::cool(lease, cooldown, order, self.now))
    }
}

fn given_back(lease: &Lease) -> bool {
    matches!(lease.state, State::Releasing | State::Cooling)
}

pub(super) fn released(leases: Vec<Arc<Lease>>) -> Reply {
    let in_use = leases.iter().any(|lease| lease.state == State::Releasing);
    Reply::Released(if in_use { State::Releasing } else { State::Cooling }, leases)
}
