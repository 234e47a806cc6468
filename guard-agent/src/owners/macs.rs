//! The MACs that bindings name, in the kernel's map of MACs (claims.md L01): one is known on its
//! port before it has spoken, and a frame from it on any other port is a clone.

use std::collections::{BTreeMap, HashMap, HashSet};

use aya::maps::{HashMap as KernelMap, MapData, MapError};
use guard_core::enforcement::Effects;
use guard_ebpf::abi::{
    AddressKey, MAC_BOUND, MacHolder, MacKey, OWNED_MAC, OWNED_PORT, Owned, PortMac, STATION_BOUND,
    STATION_EXCEPTED,
};

use crate::datapath::entries;

/// Which port each bound MAC is on.
#[derive(Default)]
pub(super) struct BoundMacs {
    map: Option<KernelMap<MapData, MacKey, MacHolder>>,
    /// The same by port and MAC, where one may be bound to several ports.
    bound: Option<KernelMap<MapData, PortMac, u32>>,
    /// The addresses by the port and the MAC that their bindings name.
    stations: HashMap<PortMac, HashSet<AddressKey>>,
    /// What exceptions name, each with its `STATION_*`.
    named: HashMap<PortMac, u32>,
    /// The addresses whose binding names a MAC, each with its port.
    addresses: HashMap<MacKey, BTreeMap<AddressKey, u32>>,
    of_address: HashMap<AddressKey, MacKey>,
    /// The bridges that filter VLANs.
    filtering: HashSet<u32>,
}

impl BoundMacs {
    pub(super) fn set_maps(
        &mut self,
        map: KernelMap<MapData, MacKey, MacHolder>,
        bound: KernelMap<MapData, PortMac, u32>,
    ) {
        self.map = Some(map);
        self.bound = Some(bound);
    }

    /// A bridge filters VLANs, or does not.
    pub(super) fn set_filtering(&mut self, bridge: u32, filters: bool) -> Result<(), MapError> {
        let before =
            if filters { !self.filtering.insert(bridge) } else { self.filtering.remove(&bridge) };
        if before == filters {
            return Ok(());
        }
        let of_bridge = self.of_address.iter().filter(|(address, _)| address.bridge == bridge);
        let known: Vec<_> = of_bridge
            .filter_map(|(address, key)| {
                Some((*address, *key, *self.addresses.get(key)?.get(address)?))
            })
            .collect();
        let mut result = Ok(());
        for (address, key, ifindex) in known {
            let new = Some((self.key(&address, key.mac), ifindex));
            result = result.and(self.change(&address, new));
        }
        result
    }

    fn key(&self, address: &AddressKey, mac: [u8; 6]) -> MacKey {
        let vlan = if self.filtering.contains(&address.bridge) { address.vlan } else { 0 };
        MacKey::new(address.bridge, vlan, mac)
    }

    /// The owner of an address is this now.
    pub(super) fn set(
        &mut self,
        address: &AddressKey,
        owned: Option<&Owned>,
    ) -> Result<(), MapError> {
        let both = OWNED_MAC | OWNED_PORT;
        let new = owned
            // 0 is no port's: one that is named and does not exist yet.
            .filter(|owned| owned.flags & both == both && owned.ifindex != 0)
            .map(|owned| (self.key(address, owned.mac), owned.ifindex));
        self.change(address, new)
    }

    /// What a station may do more is written first, and last what one may no longer.
    fn change(&mut self, address: &AddressKey, new: Option<(MacKey, u32)>) -> Result<(), MapError> {
        let was = self.of_address.get(address).and_then(|mac| {
            let port = self.addresses.get(mac)?.get(address)?;
            Some(PortMac::new(*port, mac.mac))
        });
        let is = new.map(|(mac, ifindex)| PortMac::new(ifindex, mac.mac));
        if was == is {
            // There may have been no room for it.
            let written = is.map_or(Ok(()), |station| self.write_station(&station));
            return written.and(self.change_holder(address, new));
        }
        let mut result = Ok(());
        if let Some(station) = is {
            self.stations.entry(station).or_default().insert(*address);
            result = self.write_station(&station);
        }
        result = result.and(self.change_holder(address, new));
        if let Some(station) = was {
            if let Some(addresses) = self.stations.get_mut(&station) {
                addresses.remove(address);
                if addresses.is_empty() {
                    self.stations.remove(&station);
                }
            }
            result = result.and(self.write_station(&station));
        }
        result
    }

    fn write_station(&mut self, station: &PortMac) -> Result<(), MapError> {
        let Some(map) = &mut self.bound else { return Ok(()) };
        let is_bound = self.stations.contains_key(station);
        let named = || self.named.get(station).copied();
        let wanted = if is_bound { Some(STATION_BOUND) } else { named() };
        match (wanted, map.get(station, 0).ok()) {
            (wanted, has) if wanted == has => Ok(()),
            (Some(wanted), _) => map.insert(station, wanted, 0),
            (None, _) => map.remove(station),
        }
    }

    /// The exceptions of a port name these MACs now, and named others before.
    pub(super) fn name(
        &mut self,
        ifindex: u32,
        was: &Effects,
        is: &Effects,
    ) -> Result<(), MapError> {
        let stations = |effects: &Effects| -> HashMap<PortMac, u32> {
            let macs = effects.macs.iter();
            let macs = macs.map(|(mac, station)| (PortMac::new(ifindex, mac.0), *station));
            let vendors = effects.vendors.iter().map(|[a, b, c]| {
                (PortMac::vendor(ifindex, [*a, *b, *c, 0, 0, 0]), STATION_EXCEPTED)
            });
            macs.chain(vendors).collect()
        };
        let (was, is) = (stations(was), stations(is));
        let mut result = Ok(());
        for (station, how) in &is {
            self.named.insert(*station, *how);
            result = result.and(self.write_station(station));
        }
        for station in was.keys().filter(|station| !is.contains_key(station)) {
            self.named.remove(station);
            result = result.and(self.write_station(station));
        }
        result
    }

    /// The MACs that bindings name on a bridge, each with the addresses and their ports.
    pub(super) fn on_bridge(
        &self,
        bridge: u32,
    ) -> impl Iterator<Item = ([u8; 6], Vec<(AddressKey, u32)>)> + '_ {
        let own = self.addresses.iter().filter(move |(mac, _)| mac.bridge == bridge);
        own.map(|(mac, addresses)| {
            (mac.mac, addresses.iter().map(|(address, port)| (*address, *port)).collect())
        })
    }

    fn change_holder(
        &mut self,
        address: &AddressKey,
        new: Option<(MacKey, u32)>,
    ) -> Result<(), MapError> {
        let old = match &new {
            Some((mac, _)) => self.of_address.insert(*address, *mac),
            None => self.of_address.remove(address),
        };
        let mut result = Ok(());
        if let Some(old) = old.filter(|old| new.is_none_or(|(mac, _)| mac != *old)) {
            if let Some(addresses) = self.addresses.get_mut(&old) {
                addresses.remove(address);
                if addresses.is_empty() {
                    self.addresses.remove(&old);
                }
            }
            result = self.write(&old);
        }
        if let Some((mac, ifindex)) = new {
            self.addresses.entry(mac).or_default().insert(*address, ifindex);
            result = result.and(self.write(&mac));
        }
        result
    }

    /// Takes out what an earlier agent left and no lease tells of.
    pub(super) fn forget_others(&mut self) -> Result<(), MapError> {
        let Some(map) = &self.map else { return Ok(()) };
        let mut over = entries(map)?;
        over.retain(|(mac, holder)| {
            holder.flags & MAC_BOUND != 0 && !self.addresses.contains_key(mac)
        });
        let result = over.iter().map(|(mac, _)| self.write(mac)).fold(Ok(()), Result::and);
        let Some(bound) = &self.bound else { return result };
        let over = entries(bound)?;
        over.iter().map(|(station, _)| self.write_station(station)).fold(result, Result::and)
    }

    /// All that have an entry, of both kinds.
    pub(super) fn keys(&self) -> (Vec<MacKey>, Vec<PortMac>) {
        let stations = self.stations.keys().chain(self.named.keys());
        (self.addresses.keys().copied().collect(), stations.copied().collect())
    }

    /// Puts a MAC's entry right if it is not, and was not a moment ago. Returns whether it did.
    pub(super) fn repair(
        &mut self,
        mac: &MacKey,
        was: Option<MacHolder>,
    ) -> Result<bool, MapError> {
        let is = |map: &KernelMap<_, MacKey, _>| map.get(mac, 0).ok();
        if self.is_right(mac, was) || self.is_right(mac, self.map.as_ref().and_then(is)) {
            return Ok(false);
        }
        self.write(mac).map(|()| true)
    }

    /// The same of a station's.
    pub(super) fn repair_station(
        &mut self,
        station: &PortMac,
        was: bool,
    ) -> Result<bool, MapError> {
        let should = self.stations.contains_key(station) || self.named.contains_key(station);
        let is = |map: &KernelMap<_, PortMac, u32>| map.get(station, 0).is_ok();
        if was == should || self.bound.as_ref().is_none_or(|map| is(map) == should) {
            return Ok(false);
        }
        self.write_station(station).map(|()| true)
    }

    fn holder(&self, mac: &MacKey) -> Option<MacHolder> {
        let port = self.addresses.get(mac)?.values().next()?;
        Some(MacHolder { ifindex: *port, flags: MAC_BOUND })
    }

    /// Where no binding names it, what the program has noted of a MAC is right.
    fn is_right(&self, mac: &MacKey, known: Option<MacHolder>) -> bool {
        match self.holder(mac) {
            Some(holder) => known == Some(holder),
            None => known.is_none_or(|known| known.flags & MAC_BOUND == 0),
        }
    }

    /// Where two bindings name one MAC on two ports, it is on the first address's.
    fn write(&mut self, mac: &MacKey) -> Result<(), MapError> {
        let holder = self.holder(mac);
        let known = self.map.as_ref().and_then(|map| map.get(mac, 0).ok());
        if self.is_right(mac, known) {
            return Ok(());
        }
        match (&mut self.map, holder) {
            (Some(map), Some(holder)) => map.insert(mac, holder, 0),
            (Some(map), None) => map.remove(mac),
            (None, _) => Ok(()),
        }
    }
}
