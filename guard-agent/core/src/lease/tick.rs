//! States that end by themselves.

use std::{sync::Arc, time::Duration};

use super::{
    Lease, Notice, State, absence::Absence, index::Slot, reason, transaction::Transaction,
};

/// How many deadlines one command lets take effect, so that no caller waits long for its turn.
const MOST: usize = 1024;

impl Transaction<'_> {
    /// Carries out what is due.
    pub(super) fn tick(&mut self) {
        for lease in self.engine.index.due(self.now.boot, MOST) {
            self.due(self.engine.slot_of(&lease), &lease);
        }
    }

    /// Carries out what the end of a lease's time means, as far as enough is known for it.
    pub(super) fn due(&mut self, slot: Slot, lease: &Lease) {
        match lease.state {
            State::Held => self.unconfirmed(slot, lease),
            State::Cooling | State::Quarantined => self.rested(slot, lease),
            State::Releasing => self.holds_expired(slot, lease),
            // An active lease has no deadline.
            State::Active => {
                self.put(slot, Lease { until: None, ..lease.clone() });
            }
        }
    }

    /// From when on all must be known for a lease's time to have passed in silence.
    fn silent_until(&self, slot: Slot, lease: &Lease) -> Duration {
        self.silent_since(slot).max(lease.until.unwrap_or_default())
    }

    /// Nobody confirmed the lease in time.
    fn unconfirmed(&mut self, slot: Slot, lease: &Lease) {
        let since = self.silent_until(slot, lease);
        let evidence = match self.absence(slot, since) {
            Absence::Unknown => return,
            Absence::Proven => {
                self.silent_from(slot, since);
                self.cool(slot, lease);
                return;
            }
            Absence::Live(evidence) => evidence,
        };
        let of_owner = evidence.iter().any(|e| {
            lease.owner.as_ref().is_some_and(|owner| e.names(owner))
                || lease.is_bound_to(e.mac, e.ifindex)
        });
        if of_owner {
            // It is the owner's after all: it stays, and is looked at again.
            let until = Some(self.now.boot + self.table(slot).pool.spec().unconfirmed_ttl);
            self.put(slot, Lease { until, ..lease.clone() });
        } else if self.is_complete(slot, since) {
            self.quarantine(slot, reason::UNCONFIRMED_LIVE, &evidence);
        }
    }

    /// The cooldown or the probation is over. The evidence has the last word.
    fn rested(&mut self, slot: Slot, lease: &Lease) {
        match self.absence(slot, self.silent_until(slot, lease)) {
            Absence::Proven => return self.free(slot),
            Absence::Unknown => return,
            Absence::Live(_) => {}
        }
        // In use again: quarantined, or quarantined still, or it waits to be known whose it is.
        self.recheck(slot);
    }

    /// Subscribers that did not answer in time are waited for no longer.
    fn holds_expired(&mut self, slot: Slot, lease: &Lease) {
        let mut waits = lease.clone();
        waits.holds.retain(|hold| hold.until > self.now.boot);
        waits.until = waits.holds.iter().map(|hold| hold.until).min();
        let late = lease.holds.iter().filter(|hold| hold.until <= self.now.boot);
        let late: Vec<_> = late.map(|hold| Arc::clone(&hold.subscriber)).collect();
        let waits = self.put(slot, waits);
        self.notice(Notice::HoldExpired(waits, late));
        self.recheck(slot);
    }
}
