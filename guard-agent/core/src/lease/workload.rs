//! A sandbox that is said to be over, by its workload in another sandbox or by a list that leaves
//! it out: what it has ends only where nothing speaks for it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{
    Generation, Hold, Lease, Owner, State,
    allocate::who,
    command::{Allocate, Reason, Refusal, Reply},
    release::released,
    transaction::Transaction,
};
use crate::evidence::{Evidence, Unknown};

/// The label that a lease has its workload in: what its sandbox is one run of.
pub const WORKLOAD: &str = "guard.v1/workload";

/// How soon what an address waits for may be over.
const SOON: Duration = Duration::from_secs(1);

/// The labels of a lease that is asked for.
pub(super) fn with_workload(ask: &Allocate) -> BTreeMap<String, String> {
    let mut labels = ask.labels.clone();
    if !ask.workload.is_empty() {
        labels.insert(WORKLOAD.to_owned(), ask.workload.to_string());
    }
    labels
}

/// Whether a lease is, or was, that of another sandbox for the same interface of the same workload.
pub(super) fn is_former(lease: &Lease, owner: &Owner, ask: &Allocate) -> bool {
    let workload = lease.labels.get(WORKLOAD);
    workload.is_some_and(|workload| !workload.is_empty() && **workload == *ask.workload)
        && lease.key == ask.key
        && lease.owner.as_ref().is_some_and(|other| other != owner)
}

impl Transaction<'_> {
    /// The workload is in another sandbox now: what this one has ends. Whether it ended by this.
    pub(super) fn end_former(
        &mut self,
        former: &Arc<Lease>,
        asker: &Owner,
    ) -> Result<bool, Refusal> {
        if let Some((sandbox, speaks)) = self.speaks_for_owner(former, Some(asker)) {
            self.ask_sources(former);
            let workload = former.labels.get(WORKLOAD).map(String::as_str).unwrap_or_default();
            return Err(Refusal::new(
                Reason::AddressLive,
                format!(
                    "{} is of the same workload {workload:?} in sandbox {sandbox}, which is still \
                     there: {speaks}; remove that sandbox first",
                    former.address
                ),
            ));
        }
        let slot = self.engine.slot_of(former);
        let known = match former.state {
            State::Held | State::Active => self.complete_since_asked(slot, former),
            State::Releasing => {
                let since = self.silent_since(slot);
                self.complete(slot, since).map(|()| since)
            }
            State::Cooling | State::Quarantined => return Ok(false),
        };
        let since = known.map_err(|unknown| not_known(&may_be_there(former), &unknown))?;
        let holds = match former.state {
            State::Releasing => former.holds.clone(),
            _ if self.engine.subscribers.is_empty() => Vec::new(),
            _ => self.give_back(slot, since).holds.clone(),
        };
        if holds.is_empty() {
            self.cool(slot, former);
            return Ok(true);
        }
        Err(waits_for(former.address, &holds))
    }

    /// Gives back the lease of a sandbox that is not in its runtime's list.
    pub(super) fn release_gone(&mut self, generation: Generation) -> Result<Reply, Refusal> {
        let Some((slot, lease)) = self.callers_own(generation)? else {
            return Ok(self.no_lease(generation));
        };
        if let Some((sandbox, speaks)) = self.speaks_for_owner(&lease, None) {
            self.ask_sources(&lease);
            let message = format!("sandbox {sandbox} is still there: {speaks}");
            return Err(Refusal::new(Reason::AddressLive, message));
        }
        let since = self
            .complete_since_asked(slot, &lease)
            .map_err(|unknown| not_known(&may_be_there(&lease), &unknown))?;
        Ok(released(vec![self.give_back(slot, since)]))
    }

    /// The owner of a lease and what says that it is there: evidence of any address that it has or
    /// had, or of itself. One address may be silent while another is in use.
    fn speaks_for_owner(&self, lease: &Lease, asker: Option<&Owner>) -> Option<(Owner, String)> {
        let owner = lease.owner.as_ref()?;
        let counts = |e: &Evidence| asker.is_none_or(|asker| !e.names(asker));
        let Owner { sandbox, lifecycle } = owner;
        let index = &self.engine.index;
        let ended = index.ended(sandbox, Some(lifecycle));
        let mut leases = index
            .of_sandbox(sandbox, Some(lifecycle))
            .chain(ended.filter(|lease| lease.state == State::Releasing));
        let speaks = leases.find_map(|lease| {
            let mut evidence = self.evidence(self.engine.slot_of(lease));
            evidence.retain(counts);
            (!evidence.is_empty()).then(|| who(lease.address, &evidence))
        });
        let itself = || self.view.owner(owner).into_iter().find(counts).map(|e| e.detail);
        Some((owner.clone(), speaks.or_else(itself)?))
    }
}

fn may_be_there(lease: &Lease) -> String {
    let owner = lease.owner.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("sandbox {owner}, which has {}, may still be there", lease.address)
}

/// Nothing speaks for an address, and that proves nothing yet.
pub(super) fn not_known(what: &str, unknown: &Unknown) -> Refusal {
    let reason = match unknown {
        Unknown::Boot => Reason::Starting,
        Unknown::Bridge(_) => Reason::BridgeAbsent,
        Unknown::Source(_) => Reason::InventoryDegraded,
    };
    Refusal { reason, message: format!("{what}: {unknown}"), retry_after: Some(SOON) }
}

/// A released address that subscribers have not acknowledged.
pub(super) fn waits_for(address: IpAddr, holds: &[Hold]) -> Refusal {
    let waits: Vec<_> = holds.iter().map(ToString::to_string).collect();
    Refusal {
        reason: Reason::AddressHeld,
        message: format!("{address} is released and waits for {}", waits.join(", ")),
        retry_after: Some(SOON),
    }
}
