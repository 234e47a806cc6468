//! Brings the kernel's entries to what the leases say.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use aya::maps::MapError;
use bytemuck::Zeroable as _;
use guard_core::{
    lease::{Generation, Lease, model::Binding},
    mac::Mac,
    segment::Segment,
};
use guard_ebpf::abi::{
    AddressKey, OWNED_GATEWAY, OWNED_HOST, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned,
};

use super::{Inner, Owners};
use crate::datapath::entries;

/// An address on its segment.
type Place = (Segment, IpAddr);

impl Owners {
    /// The lease that a declared binding of names a port: its sandbox, and its generation.
    pub fn bound_to(&self, ifindex: u32) -> Option<(String, Generation)> {
        let inner = self.inner.lock();
        let keys = inner.by_port.get(&ifindex)?.iter().filter(|key| !inner.ended.contains(key));
        let mut leases = keys.filter_map(|key| inner.holders.get(key));
        let lease = leases.find(|lease| lease.binding.declares_port(ifindex))?;
        Some((lease.owner.as_ref()?.sandbox.to_string(), lease.generation))
    }

    /// The addresses that declared bindings give to a port.
    pub fn addresses_of(&self, ifindex: u32) -> Vec<IpAddr> {
        let inner = self.inner.lock();
        let keys = inner.by_port.get(&ifindex).into_iter().flatten();
        let declares = |key: &&Place| {
            let lease = inner.holders.get(*key).filter(|_| !inner.ended.contains(*key));
            lease.is_some_and(|lease| lease.binding.declares_port(ifindex))
        };
        keys.filter(declares).map(|(_, address)| *address).collect()
    }

    /// Where an address has a holder.
    pub fn segments_of(&self, address: IpAddr) -> Vec<Place> {
        let inner = self.inner.lock();
        inner.holders.keys().filter(|(_, held)| *held == address).cloned().collect()
    }

    /// The addresses of which the declared binding is such a one.
    pub fn declared_of(&self, is: impl Fn(&Binding) -> bool) -> Vec<Place> {
        let inner = self.inner.lock();
        let declared = inner.holders.iter().filter(|(_, lease)| lease.binding.declared);
        let named = declared.filter(|(_, lease)| is(&lease.binding));
        named.map(|(place, _)| place.clone()).collect()
    }

    /// The MACs that declared bindings name, each with an address that is bound to it.
    pub fn bound_macs(&self) -> HashMap<Mac, Place> {
        let inner = self.inner.lock();
        let declared = inner.holders.iter().filter(|(_, lease)| lease.binding.declared);
        declared.filter_map(|(place, lease)| Some((lease.binding.mac?, place.clone()))).collect()
    }

    /// Has the kernel tell when the owner of an address is heard next.
    pub fn listen(&self, segment: &Segment, address: IpAddr) {
        let inner = &mut *self.inner.lock();
        let Some(key) = inner.kernel_key(&(segment.clone(), address)) else { return };
        let Some(map) = inner.map.as_mut() else { return };
        if let Ok(owned) = map.get(&key, 0)
            && let Err(error) = map.insert(key, Owned { seen_ns: 0, ..owned })
        {
            tracing::debug!(%address, %error, "cannot ask the kernel for the owner's next claim");
        }
    }

    /// How many leases have no declared binding, by bridge and pool: nobody is dropped for theirs.
    pub fn learned(&self) -> BTreeMap<(Arc<str>, Arc<str>), usize> {
        self.inner.lock().learned.clone()
    }

    /// Whether the kernel has the binding that a lease should have.
    pub fn in_kernel(&self, segment: &Segment, address: IpAddr) -> bool {
        let inner = self.inner.lock();
        let key = (segment.clone(), address);
        let (Some(map), Some(kernel)) = (&inner.map, inner.kernel_key(&key)) else { return false };
        let have = map.get(&kernel, 0).ok().map(|owned| Owned { seen_ns: 0, ..owned });
        have.is_some() && have == inner.owned(&key) && !inner.unwritten.contains(&key)
    }

    /// When the owner of an address was last heard, on `CLOCK_MONOTONIC`, as far as the kernel noted it.
    pub fn last_heard(&self, segment: &Segment, address: IpAddr) -> Option<Duration> {
        let inner = self.inner.lock();
        let key = inner.kernel_key(&(segment.clone(), address))?;
        let Owned { seen_ns, .. } = inner.map.as_ref()?.get(&key, 0).ok()?;
        (seen_ns != 0).then(|| Duration::from_nanos(seen_ns))
    }

    /// The addresses of the host on a bridge that are leased all the same.
    pub fn leased_hosts(&self, bridge: &str) -> Vec<IpAddr> {
        let inner = self.inner.lock();
        let own = inner.holders.keys().filter(|(segment, _)| *segment.bridge == *bridge);
        let hosts = own.filter(|(segment, address)| inner.is_host(segment, *address));
        hosts.map(|(_, address)| *address).collect()
    }
}

impl Inner {
    /// A holder has taken another's place, or nobody's, or nobody has his.
    pub(super) fn count_learned(&mut self, old: Option<&Lease>, new: Option<&Lease>) {
        let is = |lease: &&Lease| lease.owner.is_some() && !lease.binding.declared;
        let mut count = |lease: Option<&Lease>, by: fn(usize) -> usize| {
            let Some(lease) = lease.filter(is) else { return };
            let key = (lease.segment.bridge.clone(), lease.pool.clone());
            let count = self.learned.entry(key).or_default();
            *count = by(*count);
        };
        count(old, |count| count.saturating_sub(1));
        count(new, |count| count + 1);
    }

    /// Makes the kernel's entries of a bridge what they should be.
    pub(super) fn write_bridge(
        &mut self,
        bridge: &Arc<str>,
        ifindex: u32,
        old: Option<u32>,
    ) -> Result<(), MapError> {
        let Some(map) = self.map.as_ref().filter(|_| self.known) else { return Ok(()) };
        let mut there: HashMap<AddressKey, Owned> = entries(&**map)?
            .into_iter()
            .filter(|(key, _)| key.bridge == ifindex || Some(key.bridge) == old)
            .collect();
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for (place, holder) in self.wanted(bridge) {
            let (Some(key), Some(owned)) = (self.kernel_key(&place), self.entry(&place, holder))
            else {
                continue;
            };
            // What the program noted in an entry that is as it should be stays.
            match there.remove(&key) {
                Some(has) if (Owned { seen_ns: 0, ..has }) == owned => {
                    right.push((place.into_owned(), key, owned));
                }
                _ => wrong.push(place.into_owned()),
            }
        }
        let mut result = Ok(());
        for (place, key, owned) in right {
            let macs = self.macs.set(&key, Some(&owned));
            result = result.and(self.note(&place, macs));
        }
        // First what makes room: there can be as many as the map takes.
        for key in there.keys() {
            result = result.and(self.remove(key));
        }
        let result = wrong.iter().map(|place| self.write(place)).fold(result, Result::and);
        result.and(self.write_unwritten_policies()).and(self.changed())
    }

    /// Notes whether the kernel has all of an address.
    fn note(&mut self, place: &Place, written: Result<(), MapError>) -> Result<(), MapError> {
        if written.is_err() {
            self.unwritten.insert(place.clone());
        } else if !self.unwritten.is_empty() {
            self.unwritten.remove(place);
        }
        written
    }

    /// The ports of which the kernel does not have all that is bound to them are spared.
    fn write_unwritten_policies(&mut self) -> Result<(), MapError> {
        let places: Vec<_> = self.unwritten.iter().cloned().collect();
        let ports = places.iter().filter_map(|place| self.holders.get(place)?.binding.ifindex);
        let ports: Vec<_> = ports.collect();
        self.write_policies(ports)
    }

    /// Tries again what the kernel had no room for.
    pub(super) fn retry(&mut self) -> Result<(), MapError> {
        let places: Vec<_> = self.unwritten.iter().cloned().collect();
        let mut result = Ok(());
        for place in places {
            result = result.and(self.write(&place));
            let port = self.holders.get(&place).and_then(|lease| lease.binding.ifindex);
            result = result.and(self.write_policies(port));
        }
        result
    }

    /// Takes out the entries of bridges that nobody watches.
    pub(super) fn forget_others(&mut self) -> Result<(), MapError> {
        if !self.settled {
            return Ok(());
        }
        let watched: HashSet<_> = self.bridges.values().copied().collect();
        let strangers = self.kernel_keys(|key| !watched.contains(&key.bridge))?;
        strangers.iter().map(|key| self.remove(key)).fold(Ok(()), Result::and)
    }

    /// Who uses an address, as an entry says it.
    pub(super) fn binding_in_kernel(&self, owned: &Owned) -> Binding {
        let port = self.ports.get_key_value(&owned.ifindex);
        Binding {
            mac: (owned.mac != [0; 6]).then_some(Mac(owned.mac)),
            interface: port.map(|(_, (_, name))| Arc::clone(name)),
            ifindex: port.map(|(ifindex, _)| *ifindex),
            ..Binding::default()
        }
    }

    pub(super) fn write_all(&mut self, keys: &[(Segment, IpAddr)]) -> Result<(), MapError> {
        keys.iter().map(|key| self.write(key)).fold(Ok(()), Result::and)
    }

    /// The port and the MAC that a declared binding allows now.
    pub(super) fn declared(
        &self,
        key: &(Segment, IpAddr),
        binding: &Binding,
    ) -> (Option<u32>, Option<Mac>) {
        // Nobody has named the port, or it has ended: the MAC alone is right, wherever it claims.
        let Some(interface) = binding.interface.as_ref().filter(|_| !self.ended.contains(key))
        else {
            return (None, binding.mac);
        };
        // It was named before it existed. Until then no port matches: 0 is no ifindex.
        let named = || self.ifindexes.get(&(key.0.bridge.clone(), interface.clone())).copied();
        (Some(binding.ifindex.or_else(named).unwrap_or(0)), binding.mac)
    }

    /// All addresses of a bridge that should have an entry, each with its holder.
    pub(super) fn wanted<'a>(
        &'a self,
        bridge: &'a Arc<str>,
    ) -> impl Iterator<Item = (Cow<'a, Place>, Option<&'a Arc<Lease>>)> + 'a {
        let hosts = self.hosts_of(bridge).map(Cow::Owned);
        let reserved = self.gateways.keys().map(Cow::Borrowed).chain(hosts);
        let reserved = reserved.filter(|place| !self.holders.contains_key(place.as_ref()));
        let held = self.holders.iter().map(|(place, lease)| (Cow::Borrowed(place), Some(lease)));
        held.chain(reserved.map(|place| (place, None)))
            .filter(move |(place, _)| place.0.bridge == *bridge)
    }

    /// The host's addresses on a bridge.
    pub(super) fn hosts_of<'a>(&'a self, bridge: &'a Arc<str>) -> impl Iterator<Item = Place> + 'a {
        let hosts = self.hosts.get(bridge).into_iter().flatten();
        hosts.map(|(vlan, host)| (Segment::new(bridge.clone(), *vlan), *host))
    }

    pub(super) fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        let hosts = self.hosts.get(&segment.bridge).filter(|_| segment.inner_vlan == 0);
        hosts.is_some_and(|hosts| hosts.contains(&(segment.vlan, address)))
    }

    pub(super) fn kernel_key(&self, (segment, address): &(Segment, IpAddr)) -> Option<AddressKey> {
        let bridge = self.bridges.get(&segment.bridge)?;
        Some(segment.key(*bridge, *address))
    }

    pub(super) fn kernel_keys(
        &self,
        of: impl Fn(&AddressKey) -> bool,
    ) -> Result<Vec<AddressKey>, MapError> {
        let entries = self.map.as_ref().map_or_else(|| Ok(Vec::new()), |map| entries(&**map))?;
        Ok(entries.into_iter().map(|(key, _)| key).filter(of).collect())
    }

    /// What the kernel should know of an address.
    pub(super) fn owned(&self, key: &Place) -> Option<Owned> {
        self.entry(key, self.holders.get(key))
    }

    /// The same, given who holds it.
    fn entry(&self, key: &Place, holder: Option<&Arc<Lease>>) -> Option<Owned> {
        let mut owned = Owned::zeroed();
        if self.is_host(&key.0, key.1) {
            owned.flags |= OWNED_HOST;
        }
        if let Some(home) = self.gateways.get(key) {
            owned.flags |= OWNED_GATEWAY;
            owned.homes = u32::from(*home);
        }
        if let Some(lease) = holder {
            let binding = &lease.binding;
            let known = binding.ifindex.filter(|_| !self.ended.contains(key));
            // 0 is no port's: every claim is another's.
            let (port, mac) =
                if lease.binds_nobody() { (Some(0), None) } else { self.declared(key, binding) };
            let bit = |set: bool, bit: u16| if set { bit } else { 0 };
            owned.flags |= bit(!lease.is_recovered(), OWNED_LEASED)
                | bit(binding.declared && mac.is_some(), OWNED_MAC)
                | bit(binding.declared && port.is_some(), OWNED_PORT);
            owned.generation = lease.generation;
            owned.mac = mac.map_or([0; 6], |Mac(mac)| mac);
            owned.ifindex = port.or(known).unwrap_or(0);
        }
        (owned.flags != 0 || holder.is_some()).then_some(owned)
    }

    pub(super) fn write(&mut self, key: &(Segment, IpAddr)) -> Result<(), MapError> {
        let written = self.try_write(key);
        self.note(key, written)
    }

    fn try_write(&mut self, key: &(Segment, IpAddr)) -> Result<(), MapError> {
        let Some(kernel) = self.kernel_key(key) else { return Ok(()) };
        let Some(owned) = self.owned(key) else { return self.remove(&kernel) };
        let Some(map) = self.map.as_mut().filter(|_| self.known) else { return Ok(()) };
        let macs = self.macs.set(&kernel, Some(&owned));
        if let Ok(old) = map.get(&kernel, 0)
            && (Owned { seen_ns: 0, ..old }) == owned
        {
            // As it should be; what the program noted in it stays.
            return macs.and(map.changed());
        }
        map.insert(kernel, owned).and(macs)
    }

    pub(super) fn remove(&mut self, key: &AddressKey) -> Result<(), MapError> {
        if !self.known {
            return Ok(());
        }
        let macs = self.macs.set(key, None);
        match self.map.as_mut().map_or(Ok(()), |map| map.remove(key)) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                macs
            }
            result => result.and(macs),
        }
    }
}
