//! Allocation: which address is handed out, or why none.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use super::{
    Act, Binding, Lease, Owner, Standing, State,
    command::{Allocate, Reason, Refusal, Reply},
    index::Slot,
    reason,
    table::Candidate,
    transaction::Transaction,
    transition::{self, Assignment},
    workload::{is_former, not_known, waits_for, with_workload},
};
use crate::evidence::Evidence;

/// An address that can be handed out.
struct Chosen {
    slot: Slot,
    cooldown_bypassed: bool,
    /// A lease ended for it in this command.
    ended: bool,
}

impl Transaction<'_> {
    /// One lease from each pool, or none and the reason.
    pub(super) fn allocate(&mut self, ask: &Allocate) -> Result<Reply, Refusal> {
        let owner =
            Owner { sandbox: Arc::clone(&ask.sandbox), lifecycle: Arc::clone(&ask.lifecycle) };
        let tables = self.tables_of(ask)?;
        let target = self.target(ask, &tables)?;

        let mut leases = Vec::with_capacity(tables.len());
        let mut given = Vec::new();
        for &table in &tables {
            let wanted = target.filter(|(of, _)| *of == table);
            // Also where the pool has been moved or made smaller since.
            let pool = self.engine.tables[table].pool.name();
            let same = self.engine.index.same_asker(&owner, &ask.key, pool).cloned();
            let outcome = match same {
                Some(lease) => self.same_again(lease, ask, wanted).map(|lease| {
                    let now = self.declare_again(Arc::clone(&lease), ask);
                    given.extend((!Arc::ptr_eq(&lease, &now)).then(|| self.engine.slot_of(&now)));
                    now
                }),
                None => self.choose(table, &owner, wanted, ask).map(|chosen| {
                    let Chosen { slot, cooldown_bypassed, ended } = chosen;
                    // One change for each: what ended for it is taken back with it.
                    given.extend(std::iter::repeat_n(slot, 1 + usize::from(ended)));
                    self.hand_out(slot, ask, &owner, cooldown_bypassed)
                }),
            };
            match outcome {
                Ok(lease) => leases.push(lease),
                Err(refusal) => {
                    self.take_back(&given);
                    return Err(refusal);
                }
            }
        }
        // All are given: from now on the port speaks for them and for nobody else's.
        for ifindex in leases.iter().filter_map(|lease| lease.binding.ifindex) {
            self.port_taken(ifindex, Some(&owner));
        }
        if ask.confirmed {
            for lease in leases.iter_mut().filter(|lease| lease.state == State::Held) {
                let slot = self.engine.slot_of(lease);
                *lease = self.put(slot, transition::activate(lease, self.now));
            }
        }
        Ok(Reply::Leases(leases))
    }

    /// The pool of the configuration with this name.
    pub(super) fn table_named(&self, name: &Arc<str>) -> Result<usize, Refusal> {
        let mut tables = self.engine.tables.iter();
        tables.position(|table| !table.draining && table.pool.name() == name).ok_or_else(|| {
            Refusal::new(
                Reason::PoolUnknown,
                format!("no pool is named {name:?}; `guardctl pools` lists them"),
            )
        })
    }

    fn tables_of(&self, ask: &Allocate) -> Result<Vec<usize>, Refusal> {
        let mut tables = Vec::with_capacity(ask.pools.len());
        for name in &ask.pools {
            self.caller.check(Act::Pool(name))?;
            tables.push(self.table_named(name)?);
        }
        if tables.is_empty() {
            return Err(Refusal::new(Reason::PoolUnknown, "name at least one pool"));
        }
        Ok(tables)
    }

    /// The requested address, in the one of the pools that has it.
    fn target(&self, ask: &Allocate, tables: &[usize]) -> Result<Option<Slot>, Refusal> {
        let Some(address) = ask.address else { return Ok(None) };
        let standing = |table: &usize| (*table, self.engine.tables[*table].standing(address));
        let found = tables.iter().map(standing).find(|(_, s)| *s != Standing::Outside);
        match found {
            Some((table, Standing::Allocatable)) => Ok(Some((table, address))),
            Some((table, Standing::Excluded)) => Err(Refusal::new(
                Reason::AddressExcluded,
                format!(
                    "{address} is excluded from pool {:?} by the configuration",
                    self.engine.tables[table].pool.name()
                ),
            )),
            Some((table, Standing::Reserved)) => Err(Refusal::new(
                Reason::AddressReserved,
                format!(
                    "{address} is the network, broadcast, gateway or a host address of pool {:?}",
                    self.engine.tables[table].pool.name()
                ),
            )),
            Some((table, Standing::Carved)) => {
                let segment = self.engine.tables[table].pool.segment();
                let subnet = self.engine.subnet_of(segment, address);
                let subnet = subnet.map(ToString::to_string).unwrap_or_default();
                Err(Refusal::new(
                    Reason::AddressHeld,
                    format!("{address} is in the child subnet {subnet}; release that first"),
                ))
            }
            Some((table, Standing::Elsewhere)) => Err(Refusal::new(
                Reason::AddressHeld,
                format!(
                    "{address} is leased on the segment that pool {:?} was on before",
                    self.engine.tables[table].pool.name()
                ),
            )),
            Some((_, Standing::Outside)) | None => {
                let pools: Vec<_> = ask.pools.iter().map(|pool| format!("{pool:?}")).collect();
                Err(Refusal::new(
                    Reason::AddressOutsidePool,
                    format!("{address} is not an address of pool {}", pools.join(" or ")),
                ))
            }
        }
    }

    /// An address for this owner.
    fn choose(
        &mut self,
        table: usize,
        owner: &Owner,
        wanted: Option<Slot>,
        ask: &Allocate,
    ) -> Result<Chosen, Refusal> {
        if let Some(slot) = wanted {
            let ended = self.requested(slot, owner, ask)?;
            return Ok(Chosen { slot, cooldown_bypassed: false, ended });
        }
        let (mut tries, mut held_back, mut soonest) = (0, BTreeSet::new(), None::<Duration>);
        let max = self.engine.tables[table].pool.spec().max_attempts;
        while tries < max {
            let next = self.engine.tables[table].candidate(&mut tries, &held_back);
            let Some(candidate) = next else { break };
            let (Candidate::Free(address) | Candidate::Cooling(address)) = candidate;
            let slot = (table, address);
            if let Some(rest) = self.held_back(slot) {
                held_back.insert(address);
                soonest = Some(soonest.map_or(rest, |soonest| soonest.min(rest)));
                continue;
            }
            if let Candidate::Cooling(_) = candidate
                && self.complete(slot, self.silent_since(slot)).is_err()
            {
                break;
            }
            let evidence = self.against(slot, owner);
            if evidence.is_empty() {
                let cooldown_bypassed = matches!(candidate, Candidate::Cooling(_));
                return Ok(Chosen { slot, cooldown_bypassed, ended: false });
            }
            tries += 1;
            self.quarantine_live(slot, &evidence);
        }
        Err(self.exhausted(table, tries, soonest))
    }

    /// Evidence that stands against handing the address to this owner: all that does not name it.
    pub(super) fn against(&self, slot: Slot, owner: &Owner) -> Vec<Evidence> {
        let mut evidence = self.evidence(slot);
        evidence.retain(|e| !e.names(owner));
        evidence
    }

    /// For how long still somebody's probe keeps an address from being handed out.
    fn held_back(&self, slot: Slot) -> Option<Duration> {
        self.view.held_back(self.table(slot).pool.segment(), slot.1)
    }

    /// `held_back`: when the first is free of those that somebody has probed for.
    fn exhausted(&self, table: usize, tries: u32, held_back: Option<Duration>) -> Refusal {
        let id = table;
        let table = &self.engine.tables[id];
        let (pool, max) = (table.pool.name(), table.pool.spec().max_attempts);
        if tries >= max {
            return Refusal::new(
                Reason::NoConflictFreeAddress,
                format!(
                    "pool {pool:?}: {tries} addresses in a row are in use without a lease and are \
                     quarantined; the next call goes on from there"
                ),
            );
        }
        let until = table.first_cooled();
        let cooled = until.map(|until| until.saturating_sub(self.now.boot));
        let retry_after = cooled.into_iter().chain(held_back).min();
        let mut next = until.map_or_else(
            || "; none is cooling down".to_owned(),
            |until| format!("; the next one cools down at {}", self.now.wall_at(until)),
        );
        for (unknown, waiting) in self.engine.waiting.of_table(id) {
            next += &format!("; {waiting} wait, since {unknown}");
        }
        if held_back.is_some() {
            next += "; somebody has just probed for what is free";
        }
        if tries > 0 || table.has_live() || held_back.is_some() {
            return Refusal {
                reason: Reason::NoConflictFreeAddress,
                message: format!(
                    "pool {pool:?} has no free address ({} in use without a lease){next}",
                    table.count(State::Quarantined)
                ),
                retry_after,
            };
        }
        Refusal {
            reason: Reason::PoolExhausted,
            message: format!("pool {pool:?} has no free address{next}"),
            retry_after,
        }
    }

    /// Whether this owner can have this very address, and whether a lease of an earlier sandbox of
    /// its workload ended for it.
    fn requested(&mut self, slot: Slot, owner: &Owner, ask: &Allocate) -> Result<bool, Refusal> {
        let (_, address) = slot;
        let former = self
            .lease(slot)
            .filter(|lease| is_former(lease, owner, ask) && self.caller.may(lease.act()));
        let ended = former.as_ref().map_or(Ok(false), |former| self.end_former(former, owner))?;
        if let Some(lease) = &self.lease(slot) {
            let has = lease.owner.as_ref().map_or_else(String::new, |o| format!(" ({o})"));
            match lease.state {
                State::Held | State::Active => {
                    return Err(Refusal::new(
                        Reason::AddressHeld,
                        format!("{address} is leased to another{has}"),
                    ));
                }
                State::Releasing if &*lease.reason == reason::HOLD => {
                    return Err(waits_for(address, &lease.holds));
                }
                State::Releasing => {
                    let still = match self.complete(slot, self.silent_since(slot)) {
                        Err(unknown) if &*lease.reason == reason::UNKNOWN => {
                            format!("may be in use still: {unknown}")
                        }
                        _ => "is still in use".to_owned(),
                    };
                    return Err(Refusal::new(
                        Reason::AddressLive,
                        format!("{address} was released{has} and {still}"),
                    ));
                }
                State::Quarantined => {
                    let mut message = format!("{address} is quarantined: {}", lease.reason);
                    let user = used_by(&lease.binding);
                    if !user.is_empty() {
                        message += &format!("; it was last in use{user}");
                    }
                    return Err(Refusal {
                        reason: Reason::AddressQuarantined,
                        message,
                        retry_after: lease.until.map(|u| u.saturating_sub(self.now.boot)),
                    });
                }
                State::Cooling if lease.owner.as_ref() != Some(owner) && former.is_none() => {
                    return Err(Refusal {
                        reason: Reason::AddressCooling,
                        message: format!("{address} was released a short time ago{has}"),
                        retry_after: lease.until.map(|u| u.saturating_sub(self.now.boot)),
                    });
                }
                State::Cooling => {
                    self.complete(slot, self.silent_since(slot)).map_err(|unknown| {
                        not_known(&format!("{address} may be in use"), &unknown)
                    })?;
                }
            }
        }
        let evidence = self.against(slot, owner);
        if evidence.is_empty() {
            return self.held_back(slot).map_or(Ok(ended), |rest| {
                Err(Refusal {
                    reason: Reason::AddressLive,
                    message: format!("somebody has just probed for {address}, and may use it"),
                    retry_after: Some(rest),
                })
            });
        }
        let by = who(address, &evidence);
        self.quarantine_live(slot, &evidence);
        Err(Refusal::new(Reason::AddressLive, format!("{by}; it is quarantined")))
    }

    fn hand_out(
        &mut self,
        slot: Slot,
        ask: &Allocate,
        owner: &Owner,
        cooldown_bypassed: bool,
    ) -> Arc<Lease> {
        let generation = self.next_generation();
        let key = self.engine.shared_key(&ask.key);
        let ifindex = self.port_asked_for(slot, ask);
        let given = Assignment {
            owner: owner.clone(),
            key,
            generation,
            binding: Binding {
                declared: ask.mac.is_some() || ask.interface.is_some(),
                mac: ask.mac,
                interface: ask.interface.clone(),
                ifindex,
                device: ifindex.and_then(|ifindex| self.view.device(ifindex)),
                port_ended: false,
            },
            labels: with_workload(ask),
            cooldown_bypassed,
            boot: self.engine.high_water.boot,
            maker: self.caller.maker(),
        };
        let lease = transition::hand_out(&self.table(slot).pool, slot.1, given, self.now);
        self.spoken(slot);
        self.put(slot, lease)
    }

    /// The port that has the name now that an allocation declares.
    fn port_asked_for(&self, slot: Slot, ask: &Allocate) -> Option<u32> {
        let bridge = &self.table(slot).pool.segment().bridge;
        let named = self.view.port_named(bridge, ask.interface.as_ref()?);
        named.filter(|ifindex| self.view.port_exists(*ifindex))
    }

    /// The asker has a lease already: the same one, unless it asks for something else now.
    fn same_again(
        &self,
        lease: Arc<Lease>,
        ask: &Allocate,
        wanted: Option<Slot>,
    ) -> Result<Arc<Lease>, Refusal> {
        self.caller.check(lease.act())?;
        let other = match (wanted, ask.mac) {
            (Some((_, address)), _) if address != lease.address => format!("address {address}"),
            (_, Some(mac)) if lease.is_declared_to_another(mac) => format!("MAC {mac}"),
            _ => return Ok(lease),
        };
        let mac = lease.binding.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        Err(Refusal::new(
            Reason::OwnerHasLease,
            format!(
                "sandbox {:?} already has {} (generation {}, MAC {mac}) in pool {:?} under the key \
                 {:?}, and asks for {other}; release it first, or use another key",
                &*ask.sandbox, lease.address, lease.generation, &*lease.pool, &*ask.key
            ),
        ))
    }

    /// The asker has a lease already: the same one. What it declares now and did not before is taken.
    fn declare_again(&mut self, lease: Arc<Lease>, ask: &Allocate) -> Arc<Lease> {
        let slot = self.engine.slot_of(&lease);
        let mut now = (*lease).clone();
        let binding = &mut now.binding;
        if let Some(mac) = ask.mac
            && !(binding.declared && binding.mac == Some(mac))
        {
            let same = binding.mac == Some(mac);
            *binding = Binding {
                declared: true,
                mac: Some(mac),
                interface: binding.interface.take().filter(|_| binding.declared),
                ifindex: binding.ifindex.filter(|_| binding.declared || same),
                ..binding.clone()
            };
        }
        if let Some(interface) = &ask.interface
            && binding.interface.is_none()
        {
            binding.declared = true;
            binding.interface = Some(Arc::clone(interface));
            binding.ifindex = self.port_asked_for(slot, ask);
            binding.port_ended = false;
        }
        if now.binding == lease.binding {
            return self.asked_for(lease);
        }
        now.binding.device = now.binding.ifindex.and_then(|ifindex| self.view.device(ifindex));
        let boot = self.engine.high_water.boot;
        let updated_at = self.now.wall;
        self.put(slot, Lease { misses: 0, missed_at: None, boot, updated_at, ..now })
    }
}

/// "10.8.64.9 is in use by 02:… on veth7 (claimed by ARP)".
pub(super) fn who(address: IpAddr, evidence: &[Evidence]) -> String {
    let user = used_by(&transition::user(evidence));
    let detail = evidence.first().map(|e| e.detail.as_str()).unwrap_or_default();
    format!("{address} is in use{user} ({detail})")
}

/// " by 02:… on veth7", as far as it is known.
fn used_by(binding: &Binding) -> String {
    let mac = binding.mac.map(|mac| format!(" by {mac}")).unwrap_or_default();
    let port = binding.interface.as_ref().map(|port| format!(" on {port}")).unwrap_or_default();
    mac + &port
}
