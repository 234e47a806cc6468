//! Absence: whether nothing speaks for an address, and whether that proves anything (`leases.md`,
//! "What is known"). Every transition that rests on absence asks here; those that add a reason to keep
//! an address do not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    Engine, Generation, Lease, RowChange, State, Write, index::Slot, transaction::Transaction,
};
use crate::evidence::{Evidence, Unknown};

/// For how long whoever asks again asks the same.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// What is found where a transition asks whether an address is in use no more.
#[derive(Debug)]
pub(super) enum Absence {
    /// Something speaks for it.
    Live(Vec<Evidence>),
    /// Nothing does, and not enough is known for that to mean anything. The address is looked at again
    /// once more is.
    Unknown,
    /// Nothing does, and something would.
    Proven,
}

/// Addresses whose next transition waits until more is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// Each with what it waits for.
    for_what: BTreeMap<Slot, Unknown>,
    /// Sources that should be asked soon.
    wanted: BTreeSet<&'static str>,
    /// When something last spoke for an address, or it was given back, on `CLOCK_BOOTTIME`.
    last_spoken: HashMap<Slot, Duration>,
    /// When somebody asked for a lease to end because nothing speaks for it, and that was not known.
    asked: HashMap<Generation, Duration>,
    /// When the leases were read from the store: before that nothing is known.
    opened: Duration,
}

impl Waiting {
    /// For leases that were read from the store at this moment.
    pub(super) fn since(opened: Duration) -> Self {
        Self { opened, ..Self::default() }
    }

    /// How many addresses of a table wait for each thing.
    pub(super) fn of_table(&self, table: usize) -> BTreeMap<Unknown, u64> {
        let mut counts = BTreeMap::new();
        let own = self.for_what.iter().filter(|((of, _), _)| *of == table);
        for (_, unknown) in own {
            *counts.entry(unknown.clone()).or_default() += 1;
        }
        counts
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        self.for_what.keys().copied().collect()
    }
}

impl Engine {
    /// Sources that were not asked since something happened that waits for their word. Each is
    /// returned once.
    pub fn take_wanted(&mut self) -> BTreeSet<&'static str> {
        std::mem::take(&mut self.waiting.wanted)
    }

    /// The address is looked at again once more is known; until then it has no deadline.
    pub(super) fn wait(&mut self, slot: Slot, unknown: Unknown) {
        if let Some(lease) = self.lease(slot).cloned() {
            self.index.park(&lease);
        }
        let known = self.waiting.for_what.get(&slot) == Some(&unknown);
        if let Unknown::Source(name) = &unknown
            && !known
        {
            self.waiting.wanted.insert(name);
        }
        self.waiting.for_what.insert(slot, unknown);
    }

    /// Changes could not be stored, and whatever led to them may not be told again.
    pub fn look_again(&mut self, changes: &[Write]) {
        for change in changes {
            if let Write::Address(RowChange { place, table, .. }) = change {
                self.wait((*table, place.address), Unknown::Boot);
            }
        }
    }

    /// The row of an address is another one now. Whoever waits waits on in the same state.
    pub(super) fn row_changed(&mut self, slot: Slot, old: Option<&Arc<Lease>>) {
        let new = self.lease(slot).cloned();
        let state = |lease: Option<&Arc<Lease>>| lease.map(|lease| lease.state);
        if state(old) != state(new.as_ref()) {
            self.waiting.for_what.remove(&slot);
        } else if let Some(lease) = &new
            && self.waiting.for_what.contains_key(&slot)
        {
            self.index.park(lease);
        }
        if let Some(old) = old.filter(|_| new.as_ref().is_none_or(|new| !new.state.is_owned())) {
            self.waiting.asked.remove(&old.generation);
        }
        if new.is_none_or(|lease| lease.state == State::Active) {
            self.waiting.last_spoken.remove(&slot);
        }
    }

    /// As it was before a command that was only tried.
    pub(super) fn set_waiting(&mut self, before: Waiting) {
        for slot in self.waiting.slots() {
            self.resume(slot);
        }
        let Waiting { for_what, wanted, last_spoken, asked, opened } = before;
        for (slot, unknown) in for_what {
            self.wait(slot, unknown);
        }
        let waiting = &mut self.waiting;
        (waiting.wanted, waiting.last_spoken) = (wanted, last_spoken);
        (waiting.asked, waiting.opened) = (asked, opened);
    }

    /// The address waits no more: its deadline counts again.
    fn resume(&mut self, slot: Slot) {
        if self.waiting.for_what.remove(&slot).is_some()
            && let Some(lease) = self.lease(slot).cloned()
        {
            self.index.unpark(&lease);
        }
    }
}

impl Transaction<'_> {
    /// Whether nothing has spoken for an address since that moment. Where that cannot be told, the
    /// address waits.
    pub(super) fn absence(&mut self, slot: Slot, since: Duration) -> Absence {
        let evidence = self.evidence(slot);
        if !evidence.is_empty() {
            self.spoken(slot);
            return Absence::Live(evidence);
        }
        if self.is_complete(slot, since) { Absence::Proven } else { Absence::Unknown }
    }

    /// Whether all that has happened to a segment since that moment is known. Where it is not, the
    /// address waits.
    pub(super) fn is_complete(&mut self, slot: Slot, since: Duration) -> bool {
        match self.complete(slot, since) {
            Ok(()) => true,
            Err(unknown) => {
                self.engine.wait(slot, unknown);
                false
            }
        }
    }

    /// As [`Transaction::is_complete`], without waiting.
    pub(super) fn complete(&self, slot: Slot, since: Duration) -> Result<(), Unknown> {
        self.view.complete(self.table(slot).pool.segment(), since)
    }

    /// Something speaks for an address now, or it is given back: what was before proves nothing.
    pub(super) fn spoken(&mut self, slot: Slot) {
        self.silent_from(slot, self.now.boot);
    }

    /// What was before that moment proves nothing.
    pub(super) fn silent_from(&mut self, slot: Slot, since: Duration) {
        let last = self.engine.waiting.last_spoken.entry(slot).or_insert(since);
        *last = since.max(*last);
    }

    /// Since when nothing is known to have spoken for an address.
    pub(super) fn silent_since(&self, slot: Slot) -> Duration {
        let Waiting { last_spoken, opened, .. } = &self.engine.waiting;
        last_spoken.get(&slot).copied().unwrap_or(*opened)
    }

    /// Since when all is known that may speak for a lease that somebody has, for whoever infers its
    /// end from something else. Sources are asked after the first who wanted to know: what they
    /// listed before may be without a sandbox that has come since.
    pub(super) fn complete_since_asked(
        &mut self,
        slot: Slot,
        lease: &Lease,
    ) -> Result<Duration, Unknown> {
        let now = self.now.boot;
        let asked = &mut self.engine.waiting.asked;
        let recent = asked.get(&lease.generation).filter(|asked| now < **asked + ASKED_AGAIN);
        let since = recent.copied().unwrap_or(now);
        if let Err(unknown) = self.complete(slot, since) {
            self.engine.waiting.asked.insert(lease.generation, since);
            self.engine.wait(slot, unknown.clone());
            return Err(unknown);
        }
        Ok(since)
    }

    /// What a source listed some time ago may be over: whoever asks again has what it lists now.
    pub(super) fn ask_sources(&mut self, lease: &Lease) {
        if lease.state.is_owned() {
            self.engine.waiting.asked.remove(&lease.generation);
            let _ = self.complete_since_asked(self.engine.slot_of(lease), lease);
        }
    }

    /// More is known than before: those that wait are looked at again.
    pub(super) fn look_at_waiting(&mut self) {
        for slot in self.engine.waiting.slots() {
            self.engine.resume(slot);
            let due = self
                .lease(slot)
                .filter(|lease| lease.until.is_some_and(|until| until <= self.now.boot));
            match due {
                Some(lease) => self.due(slot, &lease),
                None => self.recheck(slot),
            }
        }
    }
}
