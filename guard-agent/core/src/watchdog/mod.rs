//! Which containers the watchdog may remove unasked, and which leases go with them (leases.md rule
//! 4).

use std::{sync::Arc, time::Duration};

use crate::{evidence::Entry, judgement::Verdict, lease::Lease};

/// So many are always removed unasked.
const ALWAYS: usize = 8;

/// Whether and how containers are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Without it nothing is removed; what would be can be looked at.
    pub enabled: bool,
    /// Time from one pass to the next.
    pub interval: Duration,
    /// How long a sandbox that is listed as dead is left to its controller, its leases too.
    pub grace: Duration,
    /// What runs in a container gets so much time to end by itself.
    pub stop_timeout: Duration,
}

/// A container whose sandbox a label names, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The container.
    pub container: Entry,
    /// What was to become of it.
    pub verdict: Verdict,
    /// Why that cannot be done.
    pub failed: Option<String>,
}

impl Watched {
    /// Whether it is gone, or would be after a dry run.
    pub fn is_removed(&self) -> bool {
        matches!(self.verdict, Verdict::Over(_)) && self.failed.is_none()
    }
}

/// The leases of containers that are gone. One that another container speaks for is kept.
pub fn due(leases: &[Arc<Lease>], watched: &[Watched]) -> Vec<Arc<Lease>> {
    let is_due = |lease: &&Arc<Lease>| {
        let Some(owner) = &lease.owner else { return false };
        let (gone, left): (Vec<_>, Vec<_>) = watched.iter().partition(|it| it.is_removed());
        let its_own = |container: &Entry| {
            // As CNI knows a container: by its id.
            let by_id = *container.id == *owner.sandbox && owner.lifecycle.is_empty();
            container.owner == *owner || by_id
        };
        gone.iter().any(|it| its_own(&it.container))
            && !left.iter().any(|it| it.container.speaks_for(owner))
    };
    leases.iter().filter(is_due).cloned().collect()
}

/// Whether these are more than go unasked, of all containers that are judged: a directory that has
/// lost its list speaks against every one of them.
pub fn is_mass_removal(removals: usize, all: usize) -> bool {
    removals > ALWAYS && removals > all / 5
}

#[cfg(test)]
mod tests;
