//! Compares the evidence of an address with its lease, and changes the lease where they differ.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use super::{
    Binding, Lease, Notice, Owner, Standing, State,
    absence::Absence,
    command::{Reason, Refusal, Reply},
    index::Slot,
    reason,
    transaction::Transaction,
    transition::{self, Assignment},
};
use crate::{
    evidence::{Changes, Evidence, Source, Station},
    segment::Segment,
};

impl Transaction<'_> {
    /// Compares what has changed. Ends come first: what comes after the end of a link is another one.
    pub(super) fn look(&mut self, changes: &Changes) {
        let Changes { ended, ports, hosts, places, owners, known } = changes;
        for ifindex in ended {
            self.link_ended(*ifindex);
        }
        for ifindex in ports {
            self.port_added(*ifindex);
        }
        if *hosts {
            self.host_addresses();
        }
        for (segment, address) in places {
            if let Some(slot) = self.engine.slot(segment, *address) {
                self.recheck(slot);
            }
        }
        if *owners {
            self.recheck_all_releasing();
        }
        if *known {
            self.look_at_waiting();
        }
    }

    /// Compares one address with its evidence, and tells who is said to have it.
    pub(super) fn recheck(&mut self, slot: Slot) {
        self.compare(slot);
        let named = self.named(slot);
        self.notice(named);
    }

    fn named(&self, slot: Slot) -> Notice {
        let holder = self.lease(slot).filter(|lease| lease.state.is_owned());
        let owner = holder.as_ref().and_then(|lease| lease.owner.as_ref());
        // Of a lease's evidence, what is about its owner and not about the address names no other.
        let evidence = if owner.is_some() { self.evidence_here(slot) } else { self.evidence(slot) };
        let others = evidence.iter().filter(|e| owner.is_none_or(|owner| !e.names(owner)));
        let others = inventory_owners(others).into_iter().collect();
        let segment = self.table(slot).pool.segment().clone();
        Notice::Named { segment, address: slot.1, holder, others }
    }

    fn compare(&mut self, slot: Slot) {
        let Some(lease) = self.lease(slot) else { return self.found(slot) };
        match lease.state {
            State::Cooling => self.found(slot),
            State::Held | State::Active => self.learn_from_evidence(slot),
            State::Releasing => self.recheck_releasing(slot, &lease),
            State::Quarantined => self.recheck_quarantined(slot, &lease),
        }
    }

    /// Compares everything. That nobody else is said to have an address is not told of each.
    pub(super) fn recheck_all(&mut self) {
        let mut slots: BTreeSet<Slot> = BTreeSet::new();
        for (id, table) in self.engine.tables.iter().enumerate() {
            slots.extend(
                table.rows.iter().filter(|(_, r)| r.lease().is_some()).map(|(a, _)| (id, *a)),
            );
        }
        for segment in self.engine.by_segment.keys() {
            let live = self.view.addresses(segment);
            slots.extend(live.into_iter().filter_map(|a| self.engine.slot(segment, a)));
        }
        for slot in slots {
            self.compare(slot);
            let named = self.named(slot);
            if matches!(&named, Notice::Named { others, .. } if !others.is_empty()) {
                self.notice(named);
            }
        }
    }

    /// Compares what was given back.
    pub(super) fn recheck_all_releasing(&mut self) {
        let mut slots: Vec<Slot> = Vec::new();
        for (id, table) in self.engine.tables.iter().enumerate() {
            let releasing = table.rows.iter().filter(|(_, row)| {
                row.lease().is_some_and(|lease| lease.state == State::Releasing)
            });
            slots.extend(releasing.map(|(address, _)| (id, *address)));
        }
        for slot in slots {
            self.recheck(slot);
        }
    }

    /// An address that nobody has: if it is in use it is taken over or quarantined, at once.
    fn found(&mut self, slot: Slot) {
        let known = self.lease(slot);
        if known.is_none() && self.table(slot).standing(slot.1) != Standing::Allocatable {
            return;
        }
        let evidence = self.evidence(slot);
        if evidence.is_empty() {
            return;
        }
        match sole_owner(&evidence) {
            // Its owner gave it back: it is not given to it again without being asked.
            Some(owner) if known.is_some_and(|lease| is_of(&owner, &lease)) => {
                self.quarantine(slot, reason::RELEASED_RUNNING, &evidence);
            }
            // While others may claim it that nobody has read of, nobody gets it.
            Some(owner) if self.is_complete(slot, Duration::ZERO) => {
                self.adopt_listed(slot, owner, &evidence);
            }
            Some(_) => {}
            None => self.quarantine_live(slot, &evidence),
        }
    }

    /// Quarantines an address for its evidence.
    pub(super) fn quarantine_live(&mut self, slot: Slot, evidence: &[Evidence]) {
        let why =
            if inventory_owners(evidence).len() > 1 { reason::DISPUTED } else { reason::LIVE };
        self.quarantine(slot, why, evidence);
    }

    /// The inventory says whose it is.
    fn adopt_listed(&mut self, slot: Slot, owner: Owner, evidence: &[Evidence]) {
        let wire: Vec<_> = evidence.iter().filter(|e| e.source == Source::Wire).cloned().collect();
        self.adopt_as(slot, owner, transition::empty(), transition::user(&wire));
    }

    fn adopt_as(
        &mut self,
        slot: Slot,
        owner: Owner,
        key: Arc<str>,
        binding: Binding,
    ) -> Arc<Lease> {
        let generation = self.next_generation();
        let labels = std::collections::BTreeMap::default();
        let boot = self.engine.high_water.boot;
        let given = Assignment {
            owner,
            key,
            generation,
            binding,
            labels,
            cooldown_bypassed: false,
            boot,
            // It was found, and made by nobody here.
            maker: None,
        };
        let lease = transition::hand_out(&self.table(slot).pool, slot.1, given, self.now);
        let mut lease = transition::activate(&lease, self.now);
        Self::mark_adopted(&mut lease);
        self.put(slot, lease)
    }

    /// Another allocator gave this address to this owner. Evidence does not stand against it: it
    /// is the owner's. A lease of ours does.
    pub(super) fn adopt(
        &mut self,
        pool: &Arc<str>,
        address: IpAddr,
        owner: Owner,
        key: Arc<str>,
    ) -> Result<Reply, Refusal> {
        let slot = (self.table_named(pool)?, address);
        let standing = self.table(slot).standing(address);
        if let Some(lease) = self.lease(slot) {
            return match lease.state {
                State::Held | State::Active if lease.owner.as_ref() == Some(&owner) => {
                    Ok(Reply::Leases(vec![lease]))
                }
                State::Cooling | State::Quarantined if !lease.is_operators() => {
                    let binding = lease.binding.clone();
                    let binding = Binding { declared: false, ..binding };
                    Ok(Reply::Leases(vec![self.adopt_as(slot, owner, key, binding)]))
                }
                state => Err(Refusal::new(
                    Reason::AddressHeld,
                    format!("{address} is {} here already", state.name()),
                )),
            };
        }
        let reason = match standing {
            Standing::Allocatable => {
                let user = transition::user(&self.evidence(slot));
                return Ok(Reply::Leases(vec![self.adopt_as(slot, owner, key, user)]));
            }
            Standing::Outside => Reason::AddressOutsidePool,
            Standing::Carved | Standing::Elsewhere => Reason::AddressHeld,
            Standing::Reserved => Reason::AddressReserved,
            Standing::Excluded => Reason::AddressExcluded,
        };
        Err(Refusal::new(reason, format!("{address} is not an address that pool {pool:?} gives")))
    }

    fn recheck_releasing(&mut self, slot: Slot, lease: &Lease) {
        let why = match self.absence(slot, self.silent_since(slot)) {
            Absence::Live(_) => reason::LIVE,
            Absence::Unknown => reason::UNKNOWN,
            Absence::Proven if lease.holds.is_empty() => {
                self.cool(slot, lease);
                return;
            }
            Absence::Proven => reason::HOLD,
        };
        if &*lease.reason != why {
            self.put(slot, Lease { reason: Arc::from(why), ..lease.clone() });
        }
    }

    fn recheck_quarantined(&mut self, slot: Slot, lease: &Lease) {
        if lease.is_operators() {
            return;
        }
        let evidence = self.evidence(slot);
        let owner = sole_owner(&evidence);
        // Whose time to confirm ran out did not give it back.
        let gave_back = *lease.reason != *reason::UNCONFIRMED_LIVE;
        let had_it_last = gave_back && owner.as_ref().is_some_and(|owner| is_of(owner, lease));
        if let Some(owner) = owner
            && !had_it_last
            && self.is_complete(slot, Duration::ZERO)
        {
            return self.adopt_listed(slot, owner, &evidence);
        }
        let mut next = lease.clone();
        if had_it_last {
            next.reason = Arc::from(reason::RELEASED_RUNNING);
        }
        if evidence.is_empty() {
            // Silent from now on; if it was already, since then.
            let end = self.now.boot + self.table(slot).pool.spec().probation;
            next.until = Some(lease.until.unwrap_or(end));
        } else {
            next.until = None;
            // The port that keeps it is not another's.
            let kept = lease.is_recovered() && lease.binding.ifindex.is_some();
            if next.binding.mac.is_none() && !kept {
                next.binding = transition::user(&evidence);
            }
        }
        if next != *lease {
            next.updated_at = self.now.wall;
            self.put(slot, next);
        }
    }

    /// The claims on a leased address.
    fn learn_from_evidence(&mut self, slot: Slot) {
        let wire = self.evidence_here(slot).into_iter().filter(|e| e.source == Source::Wire);
        let mut wire: Vec<_> = wire.collect();
        // Where nothing is declared, the first is right.
        wire.sort_by_key(|evidence| evidence.since);
        let stations: Vec<_> = wire
            .into_iter()
            .filter_map(|e| match (e.mac, e.interface, e.ifindex) {
                (Some(mac), Some(interface), Some(ifindex)) => {
                    Some(Station { mac, interface, ifindex })
                }
                _ => None,
            })
            .collect();
        for station in &stations {
            self.learn(slot, station);
        }
    }

    /// A claim on a leased address: by the bound station, or by the first (RFC 6620). Anyone
    /// else's changes nothing here; it is a conflict, which is the observer's to report.
    fn learn(&mut self, slot: Slot, station: &Station) {
        let Some(lease) = self.lease(slot) else { return };
        let gone = lease.binding.ifindex.is_none_or(|ifindex| !self.view.port_exists(ifindex));
        let mut binding = lease.binding.clone();
        if binding.declared && gone && binding.mac.is_some() {
            // The MAC's port, which nobody has named, or which has just come by its name; after the end of
            // the one that was named the first on which the MAC claims. That one is learned, and so it has
            // no name here: what enforcement holds others to is what was declared (enforce.md, "In short").
            let named = binding.interface.as_deref();
            let is_it = match binding.port_ended {
                true => self.may_teach(&lease, station),
                false => named.is_none_or(|named| *named == *station.interface),
            };
            if is_it {
                binding.ifindex = Some(station.ifindex);
                binding.device = self.view.device(station.ifindex);
                binding.port_ended = false;
            }
        } else if !binding.declared && gone && self.may_teach(&lease, station) {
            binding = Binding {
                mac: Some(station.mac),
                interface: Some(Arc::clone(&station.interface)),
                ifindex: Some(station.ifindex),
                device: self.view.device(station.ifindex),
                ..Binding::default()
            };
        }
        let learned = Lease { binding, ..(*lease).clone() };
        if !learned.is_bound_to(Some(station.mac), Some(station.ifindex)) {
            return;
        }
        if lease.state == State::Held {
            self.put(slot, transition::activate(&learned, self.now));
        } else if learned.binding != lease.binding {
            self.put(slot, Lease { updated_at: self.now.wall, ..learned });
        }
    }

    /// Whether a lease may learn from a station who uses its address: not from other hosts, nor from a
    /// port that another owner's lease is bound to, be it declared or learned. One port confirms the
    /// leases of one owner.
    fn may_teach(&self, lease: &Lease, station: &Station) -> bool {
        let uplink = self.view.port(station.ifindex).is_none_or(|port| port.uplink);
        let others = self.engine.index.bound_to_port(station.ifindex);
        !uplink && !others.iter().any(|other| other.state.is_owned() && other.owner != lease.owner)
    }

    /// Takes an address out of use on an operator's word.
    pub(super) fn operator_quarantine(
        &mut self,
        segment: &Segment,
        address: IpAddr,
    ) -> Result<Reply, Refusal> {
        let slot = self.engine.slot(segment, address).ok_or_else(|| {
            let message = format!("{address} is in no pool on {segment}");
            Refusal::new(Reason::AddressOutsidePool, message)
        })?;
        match self.lease(slot) {
            Some(lease) if !matches!(lease.state, State::Cooling | State::Quarantined) => {
                return Err(Refusal::new(
                    Reason::AddressHeld,
                    format!("{address} is {}; release it first", lease.state.name()),
                ));
            }
            None if self.table(slot).standing(address) != Standing::Allocatable => {
                return Err(Refusal::new(
                    Reason::AddressReserved,
                    format!("{address} is never handed out anyway"),
                ));
            }
            _ => {}
        }
        let evidence = self.evidence(slot);
        self.quarantine(slot, reason::OPERATOR, &evidence);
        Ok(Reply::Leases(self.lease(slot).into_iter().collect()))
    }

    /// Ends an operator's quarantine; what is in use stays quarantined for that.
    pub(super) fn operator_unquarantine(&mut self, segment: &Segment, address: IpAddr) -> Reply {
        let slot = self.engine.slot(segment, address);
        let Some(slot) = slot.filter(|s| self.lease(*s).is_some_and(|l| l.is_operators())) else {
            return Reply::NotFound;
        };
        let evidence = self.evidence(slot);
        if evidence.is_empty() && self.complete(slot, self.silent_since(slot)).is_ok() {
            self.free(slot);
        } else {
            self.quarantine_live(slot, &evidence);
        }
        Reply::Done
    }
}

/// Whether who is named had the lease. A source that names no lifecycle may mean each.
fn is_of(named: &Owner, lease: &Lease) -> bool {
    let Owner { sandbox, lifecycle } = named;
    lease.owner.as_ref().is_some_and(|last| {
        last.sandbox == *sandbox && (lifecycle.is_empty() || last.lifecycle == *lifecycle)
    })
}

/// The owner, where the inventory names exactly one and no frame comes from another port.
fn sole_owner(evidence: &[Evidence]) -> Option<Owner> {
    let owners = inventory_owners(evidence);
    let [owner] = owners.iter().collect::<Vec<_>>()[..] else { return None };
    let ports: BTreeSet<_> = evidence
        .iter()
        .filter(|e| e.source == Source::Wire || e.owner.as_ref() == Some(owner))
        .filter_map(|e| e.ifindex)
        .collect();
    (ports.len() <= 1).then(|| owner.clone())
}

fn inventory_owners<'a>(evidence: impl IntoIterator<Item = &'a Evidence>) -> BTreeSet<Owner> {
    let named = evidence.into_iter().filter(|e| e.source == Source::Inventory && !e.unsure);
    named.filter_map(|e| e.owner.clone()).collect()
}
