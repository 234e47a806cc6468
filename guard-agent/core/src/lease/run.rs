//! What speaks for a lease, and for which run of a sandbox a source speaks that names none
//! (leases.md rule 4).

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Engine, Generation, Lease, Owner, State};
use crate::evidence::{Evidence, EvidenceView, Source};

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
    /// All evidence that a lease's address is in use: what is known of the address, the port that
    /// the lease is bound to, if it exists, and while it has an owner what is known of that.
    pub fn evidence_of(lease: &Lease, view: &dyn EvidenceView) -> Vec<Evidence> {
        let all = view.evidence(&lease.segment, lease.address);
        Self::with_own(all, lease, view, Run::Latest)
    }

    /// To what is known of an address, adds what is known of its lease's port and owner.
    pub(super) fn with_own(
        mut all: Vec<Evidence>,
        lease: &Lease,
        view: &dyn EvidenceView,
        run: Run,
    ) -> Vec<Evidence> {
        if let Some(ifindex) = Self::bound_port(lease, view) {
            all.push(Evidence {
                source: Source::Kernel,
                detail: "the bound port exists".to_owned(),
                mac: lease.binding.mac,
                interface: view.name_now(ifindex).or_else(|| lease.binding.interface.clone()),
                ifindex: Some(ifindex),
                owner: lease.owner.clone(),
                id: None,
                unsure: false,
                since: lease.updated_at,
                age: Duration::ZERO,
            });
        }
        if let Some(owner) = run.owner(lease) {
            for of_owner in view.owner(owner).into_iter().filter(|e| run.is_meant(owner, e)) {
                let said =
                    |e: &Evidence| e.source == of_owner.source && e.detail == of_owner.detail;
                if !all.iter().any(said) {
                    all.push(of_owner);
                }
            }
        }
        all
    }

    /// Whether [`Self::evidence_of`] has anything to say.
    pub fn is_live(lease: &Lease, view: &dyn EvidenceView, run: Run) -> bool {
        Self::bound_port(lease, view).is_some()
            || view.is_live(&lease.segment, lease.address)
            || run.owner(lease).is_some_and(|owner| {
                view.knows(owner) && view.owner(owner).iter().any(|e| run.is_meant(owner, e))
            })
    }

    /// The port that a lease is bound to, if it exists.
    fn bound_port(lease: &Lease, view: &dyn EvidenceView) -> Option<u32> {
        let kept = Self::is_kept_by_port(lease);
        lease.binding.ifindex.filter(|ifindex| kept && view.port_exists(*ifindex))
    }

    /// Whether the port that it is bound to, if it exists, is a reason to keep the address. Who used a
    /// quarantined one is on record only, but for one that was found after a loss of the store.
    pub(super) fn is_kept_by_port(lease: &Lease) -> bool {
        lease.state.is_owned() || lease.state == State::Releasing || lease.is_recovered()
    }

    /// Whether a lease's run of its sandbox is the latest that has a lease in its pool.
    pub(super) fn run(&self, lease: &Lease) -> Run {
        let Some(owner) = &lease.owner else { return Run::Latest };
        let Owner { sandbox, lifecycle } = owner;
        // While it is being given back it is itself what the owner has.
        let another = self.index.same_asker(owner, &lease.key, &lease.pool);
        let another = another.is_some_and(|other| other.generation != lease.generation);
        if lease.state == State::Releasing && another {
            return Run::Replaced;
        }
        let later = self.index.of_other_runs(sandbox, lifecycle).any(|other| {
            other.state != State::Cooling
                && other.state != State::Quarantined
                && other.pool == lease.pool
                && other.generation > lease.generation
        });
        if later { Run::Earlier } else { Run::Latest }
    }
}
