//! Compares the kernel's entries with what they should be: whoever may write maps can take an owner out,
//! and from then on the address would be anybody's.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    ops::Bound::{Excluded, Unbounded},
};

use aya::maps::MapError;
use guard_core::segment::Segment;
use guard_ebpf::abi::{AddressKey, MAC_BOUND, Owned};

use super::{Inner, Owners};
use crate::datapath::BoundThere;

/// Commits wait for no more than so many comparisons.
const AT_ONCE: usize = 256;

impl Owners {
    /// Puts right the entries that are not as they should be, by what was `there` a moment ago. Returns
    /// the addresses of those that were not.
    pub fn repair(&self, mut there: HashMap<AddressKey, Owned>) -> Vec<(Segment, IpAddr)> {
        let mut wrong = Vec::new();
        let mut result = Ok(());
        let mut last = None;
        loop {
            let inner = &mut *self.inner.lock();
            if !inner.known || !inner.settled {
                return Vec::new();
            }
            let places = inner.places_after(last.as_ref());
            let Some(end) = places.last() else { break };
            last = Some(end.clone());
            result = result.and(inner.repair(places, &mut there, &mut wrong));
        }
        let inner = &mut *self.inner.lock();
        let others = inner.gateways.keys().cloned();
        let bridges = inner.bridges.keys().flat_map(|bridge| inner.hosts_of(bridge));
        let others: Vec<_> = others.chain(bridges).collect();
        result = result.and(inner.repair(others, &mut there, &mut wrong));
        result = result.and(inner.remove_strangers(&there, &mut wrong)).and(inner.retry());
        if !wrong.is_empty() {
            // Whoever spoke meanwhile was taken for the holder.
            inner.hand_over_again_to(&wrong);
            let held = wrong.iter().filter(|place| inner.holders.contains_key(*place));
            inner.rebound.extend(held.map(|(segment, at)| (segment.clone(), *at, None)));
            self.handed_over.notify_one();
        }
        self.report(result);
        wrong
    }

    /// Puts right what the kernel has of the MACs that bindings name, by what was `there` a moment ago.
    /// Returns how many entries were not as they should be: of MACs, and of MACs on ports.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub(crate) fn repair_macs(&self, there: &BoundThere) -> Result<[usize; 2], MapError> {
        let (mut macs, mut stations) = {
            let inner = self.inner.lock();
            if !inner.known || !inner.settled {
                return Ok([0; 2]);
            }
            inner.macs.keys()
        };
        let known: HashSet<_> = macs.iter().copied().collect();
        let bound = there.macs.iter().filter(|(_, holder)| holder.flags & MAC_BOUND != 0);
        macs.extend(bound.map(|(mac, _)| *mac).filter(|mac| !known.contains(mac)));
        let known: HashSet<_> = stations.iter().copied().collect();
        stations.extend(there.stations.difference(&known));
        let mut wrong = [0; 2];
        for some in macs.chunks(AT_ONCE) {
            let inner = &mut *self.inner.lock();
            for mac in some {
                let was = there.macs.get(mac).copied();
                wrong[0] += usize::from(inner.macs.repair(mac, was)?);
            }
        }
        for some in stations.chunks(AT_ONCE) {
            let inner = &mut *self.inner.lock();
            for station in some {
                let was = there.stations.contains(station);
                wrong[1] += usize::from(inner.macs.repair_station(station, was)?);
            }
        }
        if wrong != [0; 2] {
            self.inner.lock().changed()?;
        }
        Ok(wrong)
    }
}

impl Inner {
    fn places_after(&self, last: Option<&(Segment, IpAddr)>) -> Vec<(Segment, IpAddr)> {
        let from = last.map_or(Unbounded, Excluded);
        self.holders
            .range((from, Unbounded))
            .take(AT_ONCE)
            .map(|(place, _)| place.clone())
            .collect()
    }

    /// Those of these that were not as they should be, and still are not.
    fn repair(
        &mut self,
        places: Vec<(Segment, IpAddr)>,
        there: &mut HashMap<AddressKey, Owned>,
        wrong: &mut Vec<(Segment, IpAddr)>,
    ) -> Result<(), MapError> {
        let mut result = Ok(());
        for place in places {
            let Some(key) = self.kernel_key(&place) else { continue };
            let was = there.remove(&key).map(unheard);
            if was != self.owned(&place) && self.is_wrong(&place, &key) {
                result = result.and(self.write(&place));
                wrong.push(place);
            }
        }
        result
    }

    fn is_wrong(&self, place: &(Segment, IpAddr), key: &AddressKey) -> bool {
        let Some(map) = &self.map else { return false };
        map.get(key, 0).ok().map(unheard) != self.owned(place)
    }

    /// Takes out entries of addresses that nobody has.
    fn remove_strangers(
        &mut self,
        there: &HashMap<AddressKey, Owned>,
        wrong: &mut Vec<(Segment, IpAddr)>,
    ) -> Result<(), MapError> {
        let mut result = Ok(());
        for key in there.keys() {
            let bridge = self.bridges.iter().find(|(_, ifindex)| **ifindex == key.bridge);
            let name = bridge.map(|(name, _)| name.clone());
            let name = name.unwrap_or_else(|| format!("ifindex {}", key.bridge).into());
            let place = (Segment::new(name, key.vlan), key.ip());
            let is_ours = self.kernel_key(&place) == Some(*key) && self.owned(&place).is_some();
            let is_there = self.map.as_ref().is_some_and(|map| map.get(key, 0).is_ok());
            if !is_ours && is_there {
                result = result.and(self.remove(key));
                wrong.push(place);
            }
        }
        result
    }
}

/// When its owner was heard is the program's to note.
fn unheard(owned: Owned) -> Owned {
    Owned { seen_ns: 0, ..owned }
}
