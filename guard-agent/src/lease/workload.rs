//! A sandbox that is said to be over, by its workload in another sandbox or by a list that leaves
//! it out: what it has ends only where nothing speaks for it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{
    Generation, Hold, Lease, Owner, State,
    allocate::who,
    command::{Allocate, Reason, Refusal, Reply},
    reason,
    release::released,
    step::Step,
    transition,
};
use crate::evidence::Evidence;

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

impl Step<'_> {
    /// The workload is in another sandbox now: what this one has ends. Whether it ended by this.
    pub(super) fn end_former(
        &mut self,
        former: &Arc<Lease>,
        asker: &Owner,
    ) -> Result<bool, Refusal> {
        if let Some((sandbox, speaks)) = self.speaks_for_owner(former, Some(asker)) {
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
        let holds = match former.state {
            State::Held | State::Active => self.holds(),
            State::Releasing => former.holds.clone(),
            State::Cooling | State::Quarantined => return Ok(false),
        };
        if holds.is_empty() {
            self.cool(slot, former);
            return Ok(true);
        }
        if former.state.is_owned() {
            let released = transition::release(former, reason::HOLD, holds.clone(), self.now);
            self.put(slot, released);
        }
        Err(waits_for(former.address, &holds))
    }

    /// Gives back the lease of a sandbox that is not in its runtime's list.
    pub(super) fn release_gone(&mut self, generation: Generation) -> Result<Reply, Refusal> {
        let Some((slot, lease)) = self.owned(generation) else {
            return Ok(self.no_lease(generation));
        };
        match self.speaks_for_owner(&lease, None) {
            None => Ok(released(vec![self.give_back(slot)])),
            Some((sandbox, speaks)) => Err(Refusal::new(
                Reason::AddressLive,
                format!("sandbox {sandbox} is still there: {speaks}"),
            )),
        }
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

/// A released address that subscribers have not acknowledged.
pub(super) fn waits_for(address: IpAddr, holds: &[Hold]) -> Refusal {
    let waits: Vec<_> = holds.iter().map(ToString::to_string).collect();
    Refusal {
        reason: Reason::AddressHeld,
        message: format!("{address} is released and waits for {}", waits.join(", ")),
        retry_after: Some(SOON),
    }
}
