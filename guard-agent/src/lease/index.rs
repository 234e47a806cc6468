//! Who has what, and when it ends, over all pools.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{Generation, Lease, Owner};

/// Where a row is: the table's number and the address.
pub(super) type Slot = (usize, IpAddr);

/// An owner's lease: sandbox, lifecycle, key, and where it is.
type Held = (Arc<str>, Arc<str>, Arc<str>, Slot);

/// Derived from the leases of all tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    by_generation: HashMap<Generation, Slot>,
    /// Leases that somebody has.
    held: BTreeSet<Held>,
    /// Leases that were given back and are not free yet.
    ended: BTreeSet<(Arc<str>, Arc<str>, Generation)>,
    /// Leases bound to a port that exists or did.
    by_port: BTreeSet<(u32, Slot)>,
    /// Leases whose declared binding names a port.
    by_interface: BTreeSet<(Arc<str>, Slot)>,
    deadlines: BTreeSet<(Duration, Slot)>,
}

impl Index {
    pub(super) fn add(&mut self, slot: Slot, lease: &Lease) {
        if lease.generation != 0 {
            self.by_generation.insert(lease.generation, slot);
        }
        if let Some(Owner { sandbox, lifecycle }) = &lease.owner {
            let (sandbox, lifecycle) = (Arc::clone(sandbox), Arc::clone(lifecycle));
            if lease.state.is_owned() {
                self.held.insert((sandbox, lifecycle, Arc::clone(&lease.key), slot));
            } else {
                self.ended.insert((sandbox, lifecycle, lease.generation));
            }
        }
        if let Some(ifindex) = lease.binding.ifindex {
            self.by_port.insert((ifindex, slot));
        }
        if let Some(interface) = declared_interface(lease) {
            self.by_interface.insert((Arc::clone(interface), slot));
        }
        if let Some(until) = lease.until {
            self.deadlines.insert((until, slot));
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, lease: &Lease) {
        if self.by_generation.get(&lease.generation) == Some(&slot) {
            self.by_generation.remove(&lease.generation);
        }
        if let Some(Owner { sandbox, lifecycle }) = &lease.owner {
            let (sandbox, lifecycle) = (Arc::clone(sandbox), Arc::clone(lifecycle));
            if lease.state.is_owned() {
                self.held.remove(&(sandbox, lifecycle, Arc::clone(&lease.key), slot));
            } else {
                self.ended.remove(&(sandbox, lifecycle, lease.generation));
            }
        }
        if let Some(ifindex) = lease.binding.ifindex {
            self.by_port.remove(&(ifindex, slot));
        }
        if let Some(interface) = declared_interface(lease) {
            self.by_interface.remove(&(Arc::clone(interface), slot));
        }
        if let Some(until) = lease.until {
            self.deadlines.remove(&(until, slot));
        }
    }

    pub(super) fn generation(&self, generation: Generation) -> Option<Slot> {
        self.by_generation.get(&generation).copied()
    }

    /// The lease that this asker has in this table.
    pub(super) fn same_asker(&self, owner: &Owner, key: &Arc<str>, table: usize) -> Option<Slot> {
        let from: Held = (
            Arc::clone(&owner.sandbox),
            Arc::clone(&owner.lifecycle),
            Arc::clone(key),
            (table, LOWEST),
        );
        let (sandbox, lifecycle, found, slot) = self.held.range(from..).next()?;
        (*sandbox == owner.sandbox
            && *lifecycle == owner.lifecycle
            && found == key
            && slot.0 == table)
            .then_some(*slot)
    }

    /// All leases that a sandbox has, of one lifecycle or of all.
    pub(super) fn of_sandbox<'a>(
        &'a self,
        sandbox: &'a Arc<str>,
        lifecycle: Option<&'a Arc<str>>,
    ) -> impl Iterator<Item = (&'a Arc<str>, Slot)> {
        let empty: Arc<str> = Arc::from("");
        let first = lifecycle.map_or_else(|| Arc::clone(&empty), Arc::clone);
        self.held
            .range((Arc::clone(sandbox), first, empty, (0, LOWEST))..)
            .take_while(move |(of, run, _, _)| {
                of == sandbox && lifecycle.is_none_or(|lifecycle| lifecycle == run)
            })
            .map(|(_, run, _, slot)| (run, *slot))
    }

    /// What a sandbox gave back and is not free yet.
    pub(super) fn ended<'a>(
        &'a self,
        sandbox: &'a Arc<str>,
        lifecycle: Option<&'a Arc<str>>,
    ) -> impl Iterator<Item = Slot> + 'a {
        let first = lifecycle.map_or_else(|| Arc::from(""), Arc::clone);
        self.ended
            .range((Arc::clone(sandbox), first, 0)..)
            .take_while(move |(of, run, _)| {
                of == sandbox && lifecycle.is_none_or(|lifecycle| lifecycle == run)
            })
            .filter_map(|(_, _, generation)| self.generation(*generation))
    }

    pub(super) fn bound_to_port(&self, ifindex: u32) -> Vec<Slot> {
        let from = (ifindex, (0, LOWEST));
        self.by_port.range(from..).take_while(|(i, _)| *i == ifindex).map(|(_, s)| *s).collect()
    }

    pub(super) fn naming_interface(&self, interface: &Arc<str>) -> Vec<Slot> {
        let from = (Arc::clone(interface), (0, LOWEST));
        self.by_interface
            .range(from..)
            .take_while(|(name, _)| name == interface)
            .map(|(_, slot)| *slot)
            .collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// What is due, the first `most` of it.
    pub(super) fn due(&self, now: Duration, most: usize) -> Vec<Slot> {
        let due = self.deadlines.iter().take_while(|(until, _)| *until <= now);
        due.take(most).map(|(_, slot)| *slot).collect()
    }
}

/// Lower than every other address in the order of `IpAddr`.
const LOWEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

fn declared_interface(lease: &Lease) -> Option<&Arc<str>> {
    if lease.binding.declared { lease.binding.interface.as_ref() } else { None }
}
