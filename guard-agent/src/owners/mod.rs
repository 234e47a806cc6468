//! Who may claim what: the leases' bindings, the gateways and the host's addresses, in memory and
//! in the kernel's map of owners.
//!
//! This is the one thing that flows back from the leases to the program. It is written on the
//! ledger's thread, after the commit and before the reply: when `Bind` returns, the binding is in
//! the kernel.

mod addresses;
mod check;
mod exceptions;
pub(crate) mod fence;
mod handovers;
mod listed;
mod mac_table;
mod macs;
mod policies;
mod repair;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use aya::maps::{Array, HashMap as KernelMap, LpmTrie, MapData, MapError};
use guard_ebpf::abi::{AddressKey, MacHolder, MacKey, Owned, Policy, PortMac};
use parking_lot::Mutex;
use tokio::sync::Notify;

use exceptions::Exceptions;
use guard_core::{
    arbiter::{Handovers, Holder, Rebound},
    evidence::{Device, Station},
    lease::{Generation, Lease, Place, State, command::Change, model::Binding},
    mac::Mac,
    owner::Owner,
    segment::Segment,
    time::Now,
};
use listed::move_key;
pub(crate) use mac_table::MacTable;
use macs::BoundMacs;
pub(crate) use policies::Judged;
use policies::Policies;

use crate::{
    datapath::{CountedMap, entries},
    health::Health,
    ledger::{AfterCommit, KernelHolder},
};

/// Who may claim what.
pub struct Owners {
    health: Arc<Health>,
    inner: Mutex<Inner>,
    /// There may be somebody to announce.
    handed_over: Notify,
}

#[derive(Default)]
struct Inner {
    /// The leases are known. Until then the kernel keeps what an earlier agent wrote.
    known: bool,
    map: Option<CountedMap<Owned>>,
    macs: BoundMacs,
    policies: Policies,
    exceptions: Exceptions,
    handovers: Handovers,
    /// All watched bridges that exist are in `bridges`.
    settled: bool,
    /// The watched bridges that exist.
    bridges: HashMap<Arc<str>, u32>,
    /// The leases that bind an address, and what a loss of the store has left; the ledger has them
    /// anyway.
    holders: BTreeMap<(Segment, IpAddr), Arc<Lease>>,
    /// The holders whose binding names a port that is yet to come, by that name.
    by_interface: HashMap<Arc<str>, HashSet<(Segment, IpAddr)>>,
    /// The holders that are bound to a port, by its ifindex.
    by_port: HashMap<u32, HashSet<(Segment, IpAddr)>>,
    /// Addresses of which the kernel does not have all that it should: it had no room.
    unwritten: BTreeSet<(Segment, IpAddr)>,
    /// Holders whose port has ended, while their lease does not say so yet.
    ended: HashSet<(Segment, IpAddr)>,
    /// The ports that exist: bridge and name by ifindex, and the other way round.
    ports: HashMap<u32, (Arc<str>, Arc<str>)>,
    ifindexes: HashMap<(Arc<str>, Arc<str>), u32>,
    /// Bindings that were written, for the observer to see who else is live there.
    rebound: Vec<Rebound>,
    /// The gateways, each with the bit of the ports that it is at home on.
    gateways: HashMap<(Segment, IpAddr), u16>,
    /// The host's addresses on each bridge, each with its VLAN.
    hosts: HashMap<Arc<str>, BTreeSet<(u16, IpAddr)>>,
    /// How many holders nobody has declared a binding of, by bridge and pool.
    learned: BTreeMap<(Arc<str>, Arc<str>), usize>,
}

impl Owners {
    /// Knows the pools' gateways, and no kernel yet.
    pub fn new(
        gateways: impl IntoIterator<Item = ((Segment, IpAddr), u16)>,
        health: Arc<Health>,
    ) -> Self {
        let inner = Inner { gateways: gateways.into_iter().collect(), ..Inner::default() };
        Self { health, inner: Mutex::new(inner), handed_over: Notify::new() }
    }

    /// Writes to these maps from now on: of owners, of MACs, of policies, and of exceptions.
    pub fn set_maps(
        &self,
        owned: CountedMap<Owned>,
        macs: KernelMap<MapData, MacKey, MacHolder>,
        bound_macs: KernelMap<MapData, PortMac, u32>,
        policies: Array<MapData, Policy>,
        exceptions: LpmTrie<MapData, AddressKey, u32>,
    ) {
        let inner = &mut *self.inner.lock();
        inner.map = Some(owned);
        inner.macs.set_maps(macs, bound_macs);
        inner.policies.set_map(policies);
        inner.exceptions.set_map(exceptions);
    }

    /// A bridge exists (again), with these addresses of the host: makes the kernel's entries for
    /// it what they should be, whatever an earlier agent left.
    pub fn bridge_present(
        &self,
        bridge: &Arc<str>,
        ifindex: u32,
        filters_vlans: bool,
        hosts: BTreeSet<(u16, IpAddr)>,
    ) {
        let inner = &mut *self.inner.lock();
        let old = inner.bridges.insert(bridge.clone(), ifindex);
        inner.hosts.insert(bridge.clone(), hosts);
        let macs = inner.macs.set_filtering(ifindex, filters_vlans);
        let result = inner.write_bridge(bridge, ifindex, old).and(macs);
        self.report(result);
    }

    /// The leases that the kernel knows of, and what an earlier loss of the store has left of some:
    /// what an earlier agent wrote, where this one does not know the leases.
    ///
    /// # Errors
    /// The kernel's map cannot be read.
    pub fn leased_in_kernel(&self) -> Result<Vec<KernelHolder>, MapError> {
        let inner = self.inner.lock();
        let Some(map) = &inner.map else { return Ok(Vec::new()) };
        let bridges: HashMap<_, _> = inner.bridges.iter().map(|(name, at)| (*at, name)).collect();
        let mut leased = entries(&**map)?;
        // All but a gateway's or the host's alone.
        leased.retain(|(_, owned)| owned.flags == 0 || owned.generation != 0);
        let holder = |(key, owned): &(AddressKey, Owned)| {
            let segment = Segment::new(Arc::clone(bridges.get(&key.bridge)?), key.vlan);
            let place = Place { segment, address: key.ip() };
            let binding = inner.binding_in_kernel(owned);
            Some(KernelHolder { place, generation: owned.generation, binding })
        };
        Ok(leased.iter().filter_map(holder).collect())
    }

    /// All watched bridges that exist are known: entries of others, which an earlier agent watched,
    /// are over.
    pub fn forget_others(&self) {
        let inner = &mut *self.inner.lock();
        inner.settled = true;
        let result = inner.forget_others();
        inner.hand_over_again();
        self.report(result);
        self.handed_over.notify_one();
    }

    /// A bridge is gone: so are its entries.
    pub fn bridge_absent(&self, bridge: &Arc<str>) {
        let inner = &mut *self.inner.lock();
        inner.hosts.remove(bridge);
        let Some(ifindex) = inner.bridges.remove(bridge) else { return };
        let over = inner.kernel_keys(|key| key.bridge == ifindex);
        let result = over
            .and_then(|over| over.iter().map(|key| inner.remove(key)).fold(Ok(()), Result::and));
        self.report(result.and(inner.macs.set_filtering(ifindex, false)));
    }

    /// A port exists: bindings that name it count for it from now on. Called before the program is
    /// on the port, so that its first frame meets its binding.
    pub fn port_added(&self, bridge: &Arc<str>, interface: &Arc<str>, ifindex: u32) {
        let inner = &mut *self.inner.lock();
        inner.forget_port(ifindex);
        let name = (bridge.clone(), interface.clone());
        inner.ports.insert(ifindex, name.clone());
        inner.ifindexes.insert(name, ifindex);
        let keys = inner.bound_to(ifindex, interface);
        let result = inner.write_all(&keys).and(inner.write_policies([ifindex]));
        // At the start they are not new, but only found.
        if inner.settled {
            inner.hand_over_again_to(&keys);
            let written = keys.into_iter().map(|(segment, address)| (segment, address, None));
            inner.rebound.extend(written);
        }
        self.report(result);
    }

    /// A port has left its bridge. What is bound to it stays bound, as long as the link exists.
    pub fn port_left(&self, ifindex: u32) {
        let inner = &mut *self.inner.lock();
        inner.forget_port(ifindex);
        let result = inner.write_policies([ifindex]);
        inner.policies.forget(ifindex);
        self.report(result);
    }

    /// A link has ended: so do bindings to it, at once, and what they held may be claimed anew. The
    /// next link with its ifindex is another one. Returns whether there were any.
    pub fn link_ended(&self, ifindex: u32) -> bool {
        let inner = &mut *self.inner.lock();
        let name = inner.forget_port(ifindex);
        inner.policies.ended(ifindex);
        let keys: Vec<_> = inner.by_port.get(&ifindex).into_iter().flatten().cloned().collect();
        inner.ended.extend(keys.iter().cloned());
        // Those that waited for its name do so again.
        let waiting = name.and_then(|(_, interface)| inner.by_interface.get(&interface));
        let waiting: Vec<_> = waiting.into_iter().flatten().cloned().collect();
        let result = inner
            .write_all(&keys)
            .and(inner.write_all(&waiting))
            .and(inner.write_policies([ifindex]));
        inner.hand_over_again_to(&keys);
        self.report(result);
        !keys.is_empty()
    }

    /// Whether a link with this ifindex may have ended, and a lease that is bound to it does not say so.
    pub fn has_ended(&self, ifindex: u32) -> bool {
        let inner = self.inner.lock();
        let mut keys = inner.by_port.get(&ifindex).into_iter().flatten();
        !inner.known || keys.any(|key| inner.ended.contains(key))
    }

    /// What the leases say of the links that they are bound to, by ifindex.
    pub fn devices(&self) -> BTreeMap<u32, Option<Device>> {
        let inner = self.inner.lock();
        let bound = inner.holders.values().map(|lease| &lease.binding);
        bound.filter_map(|binding| Some((binding.ifindex?, binding.device))).collect()
    }

    /// The lease that holds an address.
    pub fn holder(&self, segment: &Segment, address: IpAddr) -> Option<Holder> {
        let inner = self.inner.lock();
        let key = (segment.clone(), address);
        let Lease { owner, generation, binding, .. } = &**inner.holders.get(&key)?;
        let (owner, generation, mut binding) = (owner.clone()?, *generation, binding.clone());
        if inner.ended.contains(&key) {
            (binding.interface, binding.ifindex) = (None, None);
        }
        Some(Holder { owner, generation, binding })
    }

    /// Whether it is a gateway's or the host's, which no port may claim.
    pub fn is_reserved(&self, segment: &Segment, address: IpAddr) -> bool {
        let inner = self.inner.lock();
        inner.gateways.contains_key(&(segment.clone(), address)) || inner.is_host(segment, address)
    }

    /// The gateways on a bridge that the host is not itself.
    pub fn gateways(&self, bridge: &str) -> Vec<(Segment, IpAddr)> {
        let inner = self.inner.lock();
        let own = inner.gateways.keys().filter(|(segment, _)| *segment.bridge == *bridge);
        own.filter(|(segment, address)| !inner.is_host(segment, *address)).cloned().collect()
    }

    /// Whether it is the host's.
    pub fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        self.inner.lock().is_host(segment, address)
    }

    /// The sandbox that a station is by a declared binding, of whatever address.
    pub fn sandbox(&self, station: &Station) -> Option<Owner> {
        let inner = self.inner.lock();
        let on_port = inner.by_port.get(&station.ifindex).into_iter().flatten();
        let on_port = on_port.filter(|key| !inner.ended.contains(key));
        let on_port = on_port.filter_map(|key| inner.holders.get(key));
        let anywhere = inner.holders.values().filter(|lease| lease.binding.interface.is_none());
        let mut declared = on_port.chain(anywhere).filter(|lease| lease.binding.declared);
        declared.find(|lease| lease.binding.allows(station))?.owner.clone()
    }

    /// The bindings that were written since, each with what it was before if that was another's.
    pub fn take_rebound(&self) -> Vec<Rebound> {
        std::mem::take(&mut self.inner.lock().rebound)
    }

    /// Who is known to be behind a port: the owner of a lease that is bound to it.
    pub fn behind(&self, ifindex: u32) -> Option<Owner> {
        let inner = self.inner.lock();
        let mut keys = inner.by_port.get(&ifindex)?.iter().filter(|key| !inner.ended.contains(key));
        keys.find_map(|key| inner.holders.get(key)?.owner.clone())
    }

    /// Whether a declared binding names this port.
    pub fn has_declared(&self, ifindex: u32) -> bool {
        let inner = self.inner.lock();
        let keys = inner.by_port.get(&ifindex).into_iter().flatten();
        let keys = keys.filter(|key| !inner.ended.contains(key));
        keys.filter_map(|key| inner.holders.get(key))
            .any(|lease| lease.binding.declares_port(ifindex))
    }

    /// Whether a declared binding names this MAC on this port.
    pub fn is_bound(&self, ifindex: u32, mac: Mac) -> bool {
        let inner = self.inner.lock();
        let keys = inner.by_port.get(&ifindex).into_iter().flatten();
        let keys = keys.filter(|key| !inner.ended.contains(key));
        keys.filter_map(|key| inner.holders.get(key))
            .any(|lease| lease.binding.mac == Some(mac) && lease.binding.declares_port(ifindex))
    }

    /// Whether the kernel had no room for all of the binding that a lease should have.
    pub fn has_no_room(&self, segment: &Segment, address: IpAddr) -> bool {
        self.inner.lock().unwritten.contains(&(segment.clone(), address))
    }

    fn report(&self, result: Result<(), MapError>) {
        match result {
            Ok(()) => self.health.recovered("bindings"),
            Err(error) => self.health.degraded(
                "bindings",
                &format!("the kernel's map of owners cannot be written: {error}"),
            ),
        }
    }

    fn apply<'a>(&self, changes: impl Iterator<Item = (&'a Arc<Lease>, bool)>) {
        let inner = &mut *self.inner.lock();
        let mut result = Ok(());
        let mut changed = false;
        for (lease, ended) in changes {
            let key = (lease.segment.clone(), lease.address);
            let holder = (!ended && binds(lease)).then_some(lease);
            let port = |inner: &Inner| inner.bound(inner.holders.get(&key)?)?.port;
            let before = port(inner);
            if inner.hold(&key, holder) {
                changed = true;
                result = result.and(inner.write(&key));
                // The policy of a port asks for what is in the entries of its bindings.
                let ports = [before, port(inner)].into_iter().flatten();
                result = result.and(inner.write_policies(ports));
            }
        }
        if changed {
            if inner.has_groups() {
                result = result.and(inner.write_all_policies());
            }
            self.report(result);
            // Most leases name nobody when they are made: the observer sleeps on.
            if inner.hands_over() {
                self.handed_over.notify_one();
            }
        }
    }
}

impl Inner {
    /// Replaces the holder of an address. True if that changed anything.
    fn hold(&mut self, key: &(Segment, IpAddr), holder: Option<&Arc<Lease>>) -> bool {
        let interface = |holder: Option<&Arc<Lease>>| {
            let binding = &holder?.binding;
            binding.interface.clone().filter(|_| binding.ifindex.is_none())
        };
        let port = |holder: Option<&Arc<Lease>>| holder?.binding.ifindex;
        let (new, new_port) = (interface(holder), port(holder));
        self.ended.remove(key);
        let old = match holder {
            Some(holder) => self.holders.insert(key.clone(), Arc::clone(holder)),
            None => self.holders.remove(key),
        };
        // Until all ports are known, what there is was there before.
        if self.settled {
            let was = old.as_deref().and_then(|lease| self.bound(lease));
            let is = holder.and_then(|lease| self.bound(lease));
            self.handovers.bound(key, was, is);
            if was != is && is.is_some() {
                let former = old.as_ref().map(|lease| lease.binding.clone());
                self.rebound.push((key.0.clone(), key.1, former));
            }
        }
        self.count_learned(old.as_deref(), holder.map(|holder| &**holder));
        let changed = old.as_deref().map(used_by) != holder.map(|lease| used_by(lease));
        move_key(&mut self.by_interface, key, interface(old.as_ref()), new);
        move_key(&mut self.by_port, key, port(old.as_ref()), new_port);
        changed
    }

    /// The holders that are bound to a port, or wait for one of its name.
    fn bound_to(&self, ifindex: u32, interface: &Arc<str>) -> Vec<(Segment, IpAddr)> {
        let bound = self.by_port.get(&ifindex).into_iter().flatten();
        bound.chain(self.by_interface.get(interface).into_iter().flatten()).cloned().collect()
    }

    fn forget_port(&mut self, ifindex: u32) -> Option<(Arc<str>, Arc<str>)> {
        let name = self.ports.remove(&ifindex)?;
        if self.ifindexes.get(&name) == Some(&ifindex) {
            self.ifindexes.remove(&name);
        }
        Some(name)
    }
}

/// A lease binds until its address is free of its holder: a release alone takes nothing from it. What
/// a loss of the store has left binds nobody; the kernel keeps it for the next loss.
fn binds(lease: &Lease) -> bool {
    let state = matches!(lease.state, State::Held | State::Active | State::Releasing);
    state && lease.owner.is_some() || lease.is_recovered()
}

/// What the kernel has of a lease rests on these.
fn used_by(lease: &Lease) -> (&Option<Owner>, Generation, &Binding, bool) {
    (&lease.owner, lease.generation, &lease.binding, lease.binds_nobody())
}

impl AfterCommit for Arc<Owners> {
    fn restored(&mut self, leases: &[Arc<Lease>]) {
        self.inner.lock().known = true;
        self.apply(leases.iter().map(|lease| (lease, false)));
        let inner = &mut *self.inner.lock();
        let bridges: Vec<_> = inner.bridges.iter().map(|(name, at)| (name.clone(), *at)).collect();
        for (bridge, ifindex) in bridges {
            let result = inner.write_bridge(&bridge, ifindex, None);
            self.report(result);
        }
        let result = inner.forget_others().and(inner.write_all_policies());
        let result = result.and(inner.macs.forget_others()).and(inner.forget_exceptions());
        let result = result.and(inner.policies.known()).and(inner.changed());
        inner.hand_over_again();
        self.report(result);
    }

    fn committed(&mut self, changes: &[Change], _now: Now) {
        self.apply(changes.iter().map(|change| match change {
            Change::Put(lease) => (lease, false),
            Change::Free(lease) => (lease, true),
        }));
    }
}
