//! Taking back what nobody uses any more (leases.md rule 6), slow and sure: misses first, in a
//! transaction of their own, and then the leases that are at the threshold, after a last look.

use std::{sync::Arc, time::Duration};

use super::{
    Generation, Lease, State,
    command::{CountMisses, Reply},
    index::Slot,
    transaction::Transaction,
};

impl Transaction<'_> {
    /// Counts at most one miss for each silent lease, and starts anew for those that are not.
    pub(super) fn count_misses(&mut self, found: &CountMisses) -> Reply {
        for generation in &found.seen {
            if let Some((_, lease)) = self.owned(*generation) {
                let boot = lease.boot;
                self.not_missed(lease, boot);
            }
        }
        let mut silent = Vec::with_capacity(found.silent.len());
        for generation in &found.silent {
            if let Some((slot, lease)) = self.silent(*generation, found.since) {
                silent.push(self.missed(slot, lease, found));
            }
        }
        Reply::Leases(silent)
    }

    fn missed(&mut self, slot: Slot, lease: Arc<Lease>, found: &CountMisses) -> Arc<Lease> {
        let CountMisses { started, interval, threshold, silent: _, seen: _, since: _ } = found;
        // Of a miss that an older version counted, nobody knows when it was.
        let due = lease.misses == 0 || lease.missed_at.is_some_and(|at| *started >= at + *interval);
        if lease.misses >= *threshold || !due && lease.missed_at.is_some() {
            return lease;
        }
        let (misses, missed_at) = (lease.misses + u32::from(due), Some(*started));
        let updated_at = self.now.wall;
        self.put(slot, Lease { misses, missed_at, updated_at, ..(*lease).clone() })
    }

    /// The last look, within the transaction that releases. What is held has no misses, so that it
    /// goes only where none are asked for.
    pub(super) fn reap(
        &mut self,
        generations: &[Generation],
        threshold: u32,
        since: Duration,
    ) -> Reply {
        let mut reaped = Vec::with_capacity(generations.len());
        for generation in generations {
            if let Some((slot, lease)) = self.owned(*generation)
                && lease.misses >= threshold
                && self.is_absent(slot, since)
            {
                reaped.push(self.give_back(slot, since));
            }
        }
        Reply::Leases(reaped)
    }

    /// The owner asks for it: it is of this boot, and what was missed does not count.
    pub(super) fn asked_for(&mut self, lease: Arc<Lease>) -> Arc<Lease> {
        let boot = self.engine.high_water.boot;
        self.not_missed(lease, boot)
    }

    /// What was missed does not count, and the lease is of this boot.
    fn not_missed(&mut self, lease: Arc<Lease>, boot: u64) -> Arc<Lease> {
        if lease.misses == 0 && lease.boot == boot {
            return lease;
        }
        let slot = self.engine.slot_of(&lease);
        let updated_at = self.now.wall;
        self.put(slot, Lease { misses: 0, missed_at: None, boot, updated_at, ..(*lease).clone() })
    }

    /// The lease of a generation, if it can miss anything and nothing speaks for it. One that is
    /// held ends by its own deadline.
    fn silent(&self, generation: Generation, since: Duration) -> Option<(Slot, Arc<Lease>)> {
        let (slot, lease) = self.owned(generation)?;
        let silent = lease.state == State::Active && self.is_absent(slot, since);
        silent.then_some((slot, lease))
    }

    /// Whether nothing speaks for an address, and something would.
    fn is_absent(&self, slot: Slot, since: Duration) -> bool {
        self.evidence(slot).is_empty() && self.complete(slot, since).is_ok()
    }
}
