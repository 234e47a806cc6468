//! One command: what it reads and writes in the engine, and what it changes.

use std::sync::Arc;

use super::{
    Caller, Engine, Generation, Lease, Notice, Row, RowChange, Standing, State, Write,
    command::{Command, Refusal, Reply},
    index::Slot,
    reason,
    table::Table,
    transition,
};
use crate::{
    evidence::{Evidence, EvidenceView, Source},
    time::Now,
};

/// The engine, the time and the evidence of one command, and what it changed so far.
pub(super) struct Transaction<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) view: &'a dyn EvidenceView,
    pub(super) now: Now,
    pub(super) caller: Caller,
    pub(super) changes: Vec<Write>,
    notices: Vec<Notice>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(engine: &'a mut Engine, view: &'a dyn EvidenceView, now: Now) -> Self {
        let caller = Caller::Agent;
        Self { engine, view, now, caller, changes: Vec::new(), notices: Vec::new() }
    }

    pub(super) fn end(self) -> (Vec<Write>, Vec<Notice>) {
        (self.changes, self.notices)
    }

    pub(super) fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::For(caller, command) => {
                self.caller = caller;
                return self.run(*command);
            }
            Command::Allocate(ask) => return self.allocate(&ask),
            Command::Confirm(generation) => return self.confirm(generation),
            Command::Bind { generation, mac, port } => {
                return self.bind(generation, mac, port);
            }
            Command::Release(generation) => return self.release(generation),
            Command::ReleaseGone(generation) => return self.release_gone(generation),
            Command::Cut(generation) => return self.cut(generation),
            Command::ReleaseOwner { sandbox, lifecycle } => {
                return self.release_owner(&sandbox, lifecycle.as_ref());
            }
            Command::ForceRelease { segment, address } => {
                return Ok(self.force_release(&segment, address));
            }
            Command::AckHold { generation, subscriber } => {
                return self.ack_hold(generation, &subscriber);
            }
            Command::Subscribers(subscribers) => self.engine.subscribers = subscribers,
            Command::Pools(pools) => self.engine.set_pools(&pools),
            Command::Adopt { pool, address, owner, key } => {
                return self.adopt(&pool, address, owner, key);
            }
            Command::Look(changes) => self.look(&changes),
            Command::RecheckAll => self.recheck_all(),
            Command::RaiseGeneration(generation) => {
                let high = &mut self.engine.high_water.generation;
                *high = (*high).max(generation);
            }
            Command::Quarantine { segment, address } => {
                return self.operator_quarantine(&segment, address);
            }
            Command::Unquarantine { segment, address } => {
                return Ok(self.operator_unquarantine(&segment, address));
            }
            Command::ReserveSubnet(ask) => return self.reserve_subnet(&ask),
            Command::ReleaseSubnet(which) => return self.release_subnet(&which),
            Command::ReserveInterface { prefix, id } => {
                return self.reserve_interface(&prefix, &id);
            }
            Command::ReleaseInterface(name) => return self.release_interface(&name),
            Command::CountMisses(found) => return Ok(self.count_misses(&found)),
            Command::Reap { generations, threshold, since } => {
                return Ok(self.reap(&generations, threshold, since));
            }
            Command::Tick => self.tick(),
        }
        Ok(Reply::Done)
    }

    pub(super) fn table(&self, (table, _): Slot) -> &Table {
        &self.engine.tables[table]
    }

    pub(super) fn lease(&self, slot: Slot) -> Option<Arc<Lease>> {
        self.engine.lease(slot).cloned()
    }

    /// Writes a lease.
    pub(super) fn put(&mut self, slot: Slot, lease: Lease) -> Arc<Lease> {
        let lease = Arc::new(lease);
        let change = self.engine.change(slot, Some(Row::Lease(Arc::clone(&lease))));
        self.changes.push(change);
        lease
    }

    /// Frees an address. IPv4 addresses keep their place in the order of releases; in a pool that
    /// is not configured any more nothing has to be kept.
    pub(super) fn free(&mut self, slot: Slot) {
        let Some(lease) = self.engine.lease(slot) else { return };
        let order = lease.release_order;
        let order = if lease.state == State::Cooling { order } else { self.next_order() };
        let table = self.table(slot);
        let keep = slot.1.is_ipv4()
            && !table.draining
            && table.pool.standing(slot.1) == Standing::Allocatable;
        let change = self.engine.change(slot, keep.then_some(Row::Free { order }));
        self.changes.push(change);
    }

    /// Takes back what this command changed since `mark`, for these slots only.
    pub(super) fn take_back(&mut self, slots: &[Slot]) {
        for &(table, address) in slots.iter().rev() {
            let at = self
                .changes
                .iter()
                .rposition(|change| match change {
                    Write::Address(RowChange { place, table: of, .. }) => {
                        *of == table && place.address == address
                    }
                    Write::Subnet(_) | Write::Interface(_) => false,
                })
                .expect("the slot was changed by this command");
            let change = self.changes.remove(at);
            self.engine.undo(&[change]);
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    pub(super) fn next_generation(&mut self) -> Generation {
        self.engine.high_water.generation += 1;
        self.engine.high_water.generation
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.engine.high_water.release_order += 1;
        self.engine.high_water.release_order
    }

    /// What is known of an address, whoever has it.
    pub(super) fn evidence(&self, slot: Slot) -> Vec<Evidence> {
        match self.engine.lease(slot) {
            Some(lease) => self.evidence_of(slot, lease),
            None => self.evidence_here(slot),
        }
    }

    /// What is known of an address, if its lease were this one.
    pub(super) fn evidence_of(&self, slot: Slot, lease: &Lease) -> Vec<Evidence> {
        Engine::with_own(self.evidence_here(slot), lease, self.view, self.engine.run(lease))
    }

    /// What names the address, and means that of this segment: without what is known of the port and
    /// the owner of its lease.
    pub(super) fn evidence_here(&self, slot: Slot) -> Vec<Evidence> {
        let mut all = self.view.evidence(self.table(slot).pool.segment(), slot.1);
        if self.engine.tables.len() > 1 {
            all.retain(|evidence| !self.is_of_another_segment(slot, evidence));
        }
        all
    }

    /// A label names an address and no segment. Where its owner has the address on another one,
    /// that is the one that is meant.
    fn is_of_another_segment(&self, (table, address): Slot, evidence: &Evidence) -> bool {
        let tables = self.engine.tables.iter().enumerate();
        evidence.source == Source::Inventory
            && tables.filter(|(other, _)| *other != table).any(|(_, other)| {
                let lease = other.lease(address).filter(|lease| lease.state.is_owned());
                let owner = lease.and_then(|lease| lease.owner.as_ref());
                owner.is_some_and(|owner| evidence.names(owner))
            })
    }

    /// Takes an address that nobody has out of use.
    pub(super) fn quarantine(&mut self, slot: Slot, why: &str, evidence: &[Evidence]) {
        let before = self.lease(slot);
        let table = self.table(slot);
        let mut lease =
            transition::quarantine(&table.pool, slot.1, before.as_deref(), why, evidence, self.now);
        let segment = table.pool.segment();
        if why != reason::OPERATOR && self.view.evidence(segment, slot.1).is_empty() {
            // The claim that told of it has ended by now.
            lease.until = Some(self.now.boot + table.pool.spec().probation);
        }
        self.put(slot, lease);
    }
}
