//! What ports may do besides their bindings, in the kernel's maps: further MACs and addresses. Which
//! frames of a class pass is in their policies.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use guard_core::{
    enforcement::{Effects, Exception, ExceptionKind, Grant, Macs},
    evidence::Station,
    lease::Lease,
    mac::Mac,
    segment::Segment,
};
use guard_ebpf::abi::{AddressKey, STATION_BOUND};
use ipnet::IpNet;

use super::{Inner, Owners};

/// The exceptions of ports, and what of them is in the kernel.
#[derive(Default)]
pub(super) struct Exceptions {
    map: Option<LpmTrie<MapData, AddressKey, u32>>,
    given: Vec<Grant>,
    /// What was written, by port. The addresses are those of one bridge.
    written: BTreeMap<u32, Effects>,
}

impl Exceptions {
    pub(super) fn set_map(&mut self, map: LpmTrie<MapData, AddressKey, u32>) {
        self.map = Some(map);
    }

    /// Brings the addresses of a port to what they should be: what it may do more first.
    fn write(&mut self, ifindex: u32, was: &Effects, is: &Effects) -> Result<(), MapError> {
        let Some(map) = &mut self.map else { return Ok(()) };
        let mut result = Ok(());
        for (place, bits) in &is.addresses {
            if was.addresses.get(place) != Some(bits) {
                result = result.and(map.insert(&key(ifindex, place), bits, 0));
            }
        }
        for place in was.addresses.keys().filter(|place| !is.addresses.contains_key(place)) {
            result = result.and(map.remove(&key(ifindex, place)));
        }
        result
    }

    /// Takes out what an earlier agent left and nobody has given.
    fn forget_others(&mut self) -> Result<(), MapError> {
        let Some(map) = &mut self.map else { return Ok(()) };
        let wanted = self.written.iter().flat_map(|(ifindex, effects)| {
            effects.addresses.keys().map(|place| entry(ifindex, place))
        });
        let wanted: HashSet<_> = wanted.collect();
        let there = map.keys().collect::<Result<Vec<_>, _>>()?;
        let over =
            there.into_iter().filter(|key| !wanted.contains(&(key.data(), key.prefix_len())));
        over.map(|key| map.remove(&key)).fold(Ok(()), Result::and)
    }
}

/// The key of a prefix on a port, with its length.
fn entry(ifindex: &u32, (vlan, net): &(u16, IpNet)) -> (AddressKey, u32) {
    let key = AddressKey::new(*ifindex, *vlan, net.network());
    (key, key.prefix_len(net.prefix_len()))
}

fn key(ifindex: u32, place: &(u16, IpNet)) -> Key<AddressKey> {
    let (key, len) = entry(&ifindex, place);
    Key::new(len, key)
}

impl Inner {
    /// Brings what a port may do besides its bindings to what it should be. Returns whether anything has
    /// changed.
    pub(super) fn write_exceptions(&mut self, ifindex: u32) -> Result<bool, MapError> {
        let is = self.effects_on(ifindex);
        let was = match is == Effects::default() {
            true => self.exceptions.written.remove(&ifindex),
            false => self.exceptions.written.insert(ifindex, is.clone()),
        };
        let was = was.unwrap_or_default();
        if was == is {
            return Ok(false);
        }
        let addresses = self.exceptions.write(ifindex, &was, &is);
        let macs = self.macs.name(ifindex, &was, &is);
        let policy = self.policies.set_effects(ifindex, is);
        addresses.and(macs).and(policy).map(|()| true)
    }

    /// Whether what a port may do depends on the bindings of others.
    pub(super) fn has_groups(&self) -> bool {
        self.exceptions.given.iter().any(|grant| grant.exception.kind == ExceptionKind::Group)
    }

    /// Takes out what an earlier agent left.
    pub(super) fn forget_exceptions(&mut self) -> Result<(), MapError> {
        self.exceptions.forget_others()
    }

    /// The sandboxes that are bound to a port, and what their leases bring.
    fn leases_on(&self, ifindex: u32) -> Vec<&Arc<Lease>> {
        let Some((_, interface)) = self.ports.get(&ifindex) else { return Vec::new() };
        let keys = self.bound_to(ifindex, interface);
        let leases = keys.iter().filter_map(|key| Some((key, self.holders.get(key)?)));
        let bound = leases.filter(|(key, lease)| {
            let Lease { binding, .. } = &***lease;
            binding.declared && self.declared(key, binding).0 == Some(ifindex)
        });
        bound.map(|(_, lease)| lease).collect()
    }

    fn has_grant(&self, grant: &Grant, ifindex: u32) -> bool {
        let Some((bridge, interface)) = self.ports.get(&ifindex) else { return false };
        let leases = if grant.sandboxes.is_empty() { Vec::new() } else { self.leases_on(ifindex) };
        let sandboxes = leases.iter().filter_map(|lease| Some(&*lease.owner.as_ref()?.sandbox));
        grant.is_for(bridge, interface, sandboxes)
    }

    fn effects_on(&self, ifindex: u32) -> Effects {
        let mut effects = Effects::default();
        if !self.ports.contains_key(&ifindex) {
            return effects;
        }
        for grant in self.exceptions.given.iter().filter(|grant| self.has_grant(grant, ifindex)) {
            effects.add(&grant.exception);
            if grant.exception.kind == ExceptionKind::Group {
                self.share(grant, ifindex, &mut effects);
            }
        }
        effects.complete();
        effects
    }

    /// The MACs of a group that a port is in, and the addresses that are bound to them on its other ports.
    /// A MAC that is bound elsewhere stays there.
    fn share(&self, grant: &Grant, ifindex: u32, effects: &mut Effects) {
        let Some((bridge, _)) = self.ports.get(&ifindex) else { return };
        let Some(bridge) = self.bridges.get(bridge) else { return };
        let macs: HashMap<_, _> = self.macs.on_bridge(*bridge).collect();
        let Exception { macs: named, .. } = &grant.exception;
        let named = named.iter().filter_map(|macs| match macs {
            Macs::One(mac) => Some(*mac),
            Macs::Vendor(_) => None,
        });
        let named: Vec<_> = named.collect();
        let holders = |mac: &Mac| macs.get(&mac.0).into_iter().flatten();
        if named.iter().flat_map(holders).any(|(_, port)| !self.has_grant(grant, *port)) {
            return;
        }
        let addresses = named.iter().flat_map(holders);
        let addresses: Vec<_> = addresses.map(|(key, _)| (key.vlan, key.ip())).collect();
        for mac in named {
            effects.share(mac, addresses.iter().copied());
        }
    }
}

impl Owners {
    /// These are all exceptions.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub(crate) fn set_exceptions(&self, grants: Vec<Grant>) -> Result<(), MapError> {
        let inner = &mut *self.inner.lock();
        inner.exceptions.given = grants;
        inner.write_all_policies()
    }

    /// Whether an exception lets a station claim what another has.
    pub(crate) fn is_excepted(
        &self,
        segment: &Segment,
        address: IpAddr,
        station: &Station,
    ) -> bool {
        let inner = self.inner.lock();
        let effects = inner.exceptions.written.get(&station.ifindex);
        effects.is_some_and(|effects| effects.allow(segment.vlan, address, station.mac))
    }

    /// Whether two ports may both have a MAC.
    pub(crate) fn are_one_group(&self, one: u32, other: u32, mac: Mac) -> bool {
        let inner = self.inner.lock();
        [one, other].iter().all(|port| {
            let effects = inner.exceptions.written.get(port);
            effects.and_then(|effects| effects.macs.get(&mac)).is_some_and(|station| {
                *station == STATION_BOUND || guard_ebpf::mac::is_virtual(mac.0)
            })
        })
    }

    /// Whether an exception makes a port a virtual router's.
    pub(crate) fn is_virtual_router(&self, interface: &str) -> bool {
        let inner = self.inner.lock();
        let named =
            |port: &u32| inner.ports.get(port).is_some_and(|(_, name)| **name == *interface);
        let mut own = inner.exceptions.written.iter().filter(|(port, _)| named(port));
        own.any(|(_, effects)| effects.macs.keys().any(|mac| guard_ebpf::mac::is_virtual(mac.0)))
    }
}
