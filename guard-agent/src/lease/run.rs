//! Which run of a sandbox is spoken for by a source that names none (rule 4).

use std::{collections::HashMap, sync::Arc};

use super::{Engine, Generation, Lease, Owner, State};
use crate::evidence::Evidence;

/// Whether a lease's run of its sandbox is the latest that has a lease in the pool: only then does a
/// source that names no lifecycle speak for it. A released lease for which the owner has another one
/// is spoken for by its frames alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// No later one has a lease.
    Latest,
    /// A later one has.
    Earlier,
    /// The same one has another lease under the same key.
    Replaced,
}

impl Run {
    /// Whose existence keeps the address.
    pub(super) fn owner(self, lease: &Lease) -> Option<&Owner> {
        let kept = match lease.state {
            State::Held | State::Active => true,
            State::Releasing => self != Self::Replaced,
            State::Cooling | State::Quarantined => false,
        };
        lease.owner.as_ref().filter(|_| kept)
    }

    /// Whether evidence of an owner is about this run.
    pub(super) fn is_meant(self, owner: &Owner, evidence: &Evidence) -> bool {
        let names_no_run = evidence
            .owner
            .as_ref()
            .is_some_and(|named| named.sandbox == owner.sandbox && named.lifecycle.is_empty());
        self == Self::Latest || owner.lifecycle.is_empty() || !names_no_run
    }
}

/// The latest run of each sandbox among some leases, by sandbox and pool.
#[derive(Debug)]
pub struct Runs<'a>(HashMap<(&'a str, &'a str), (Generation, &'a str)>);

impl<'a> Runs<'a> {
    /// Of leases that somebody has.
    pub fn of_all(leases: &'a [Arc<Lease>]) -> Self {
        let mut latest: HashMap<_, (Generation, &str)> = HashMap::new();
        for lease in leases {
            let Some(Owner { sandbox, lifecycle }) = &lease.owner else { continue };
            let last = latest.entry((&**sandbox, &*lease.pool)).or_default();
            *last = (*last).max((lease.generation, lifecycle));
        }
        Self(latest)
    }

    /// Whether a lease is of the latest.
    pub fn of(&self, lease: &Lease) -> Run {
        let Some(Owner { sandbox, lifecycle }) = &lease.owner else { return Run::Latest };
        let latest = self.0.get(&(&**sandbox, &*lease.pool));
        if latest.is_none_or(|(_, run)| *run == &**lifecycle) { Run::Latest } else { Run::Earlier }
    }
}

impl Engine {
    /// Whether a lease's run of its sandbox is the latest that has a lease in its pool.
    pub(super) fn run(&self, lease: &Lease) -> Run {
        let Some(owner) = &lease.owner else { return Run::Latest };
        let Owner { sandbox, lifecycle } = owner;
        if lease.state == State::Releasing
            && self.index.same_asker(owner, &lease.key, &lease.pool).is_some()
        {
            return Run::Replaced;
        }
        let released = self.index.ended(sandbox, None);
        let released = released.filter(|other| other.state == State::Releasing);
        let mut others = self.index.of_sandbox(sandbox, None).chain(released);
        let later = others.any(|other| {
            other.pool == lease.pool
                && other.generation > lease.generation
                && other.owner.as_ref().is_some_and(|owner| owner.lifecycle != *lifecycle)
        });
        if later { Run::Earlier } else { Run::Latest }
    }
}
