//! Tentative claims: who means to use an address that nobody has (claims.md A05, N02, N03).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use guard_ebpf::abi::AddressKey;

use super::{Effect, Facts, Seen, given::Given};
use crate::{
    evidence::{Claim, Station},
    segment::Segment,
};

/// A probe holds its address back for so long: three of them and the wait before the announcement
/// (RFC 5227 §1.1). Two within that time are a race.
const WINDOW: Duration = Duration::from_secs(6);
/// Probes that follow one another hold it back for so long at most.
const MOST: Duration = Duration::from_secs(30);
/// So many addresses of one port count at a time, of those that can be handed out and of link-local ones.
const MOST_OF_PORT: usize = 4;

/// The probes of late.
#[derive(Debug, Default)]
pub(super) struct Tentative {
    /// By address and port.
    probes: BTreeMap<(AddressKey, u32), Probe>,
    /// For which addresses a port has probed.
    by_port: HashMap<u32, Vec<AddressKey>>,
}

/// A port's probes for one address.
#[derive(Debug)]
struct Probe {
    /// Who sent the last one.
    station: Station,
    segment: Segment,
    /// When the row of probes began, by whichever station.
    first: Duration,
    last: Duration,
    /// Until when they hold the address back; zero where they do not.
    until: Duration,
    /// In this row it was told to be in a race.
    told: bool,
}

impl Probe {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) >= WINDOW
    }
}

impl Tentative {
    /// A station has probed for an address that nobody is known to have.
    pub(super) fn probed<F: Facts>(&mut self, seen: &Seen, given: &mut Given<'_, F>) {
        let Seen { key, segment, address, claim: Claim { station, seen: at, .. } } = seen;
        let (ifindex, now) = (station.ifindex, (*at).min(given.now.monotonic));
        let is_old = given.now.monotonic.saturating_sub(now) >= WINDOW;
        if is_old || !self.enter(*key, ifindex, now) {
            return;
        }
        let own = self.probes.get(&(*key, ifindex)).map(|own| (own.first, own.told));
        let mut recent: Vec<_> = self.probes.range_mut((*key, 0)..=(*key, u32::MAX)).collect();
        recent.retain(|(_, probe)| !probe.is_over(now));
        let first = recent.iter().map(|(_, probe)| probe.first).min().unwrap_or(now);
        let told = own.is_some_and(|(first_of_own, told)| told && first_of_own == first);
        // An own probe that comes back has the same MAC (claims.md N02).
        let mut rivals = recent.iter().filter(|(_, probe)| probe.station.mac != station.mac);
        let rival = rivals.next().map(|(_, probe)| probe.station.clone());
        if let Some(rival) = rival.clone().filter(|_| !told) {
            given.effects.push(Effect::ProbeRace(seen.clone(), rival));
            recent.into_iter().for_each(|(_, probe)| probe.told = true);
        }
        let facts = given.facts;
        let counts = facts.holder(segment, *address).is_none() && !facts.has_declared(ifindex);
        let until = if counts { (now + WINDOW).min(first + MOST) } else { Duration::ZERO };
        if until > given.now.monotonic {
            given.effects.push(Effect::HoldBack(segment.clone(), *address, until));
        }
        let (station, segment) = (station.clone(), segment.clone());
        let told = told || rival.is_some();
        let probe = Probe { station, segment, first, last: now, until, told };
        self.probes.insert((*key, ifindex), probe);
    }

    /// Whether one address more of a port counts.
    fn enter(&mut self, key: AddressKey, ifindex: u32, now: Duration) -> bool {
        let keys = self.by_port.entry(ifindex).or_default();
        keys.retain(|known| {
            let is_over = |probe: &Probe| probe.is_over(now);
            let over = *known != key && self.probes.get(&(*known, ifindex)).is_none_or(is_over);
            if over {
                self.probes.remove(&(*known, ifindex));
            }
            !over
        });
        if keys.contains(&key) {
            return true;
        }
        let local = is_link_local(key.ip());
        let like = keys.iter().filter(|known| is_link_local(known.ip()) == local).count();
        if like < MOST_OF_PORT {
            keys.push(key);
        }
        like < MOST_OF_PORT
    }

    /// A port is gone: what it meant to use is free, if nobody else means to use it.
    pub(super) fn port_gone<F: Facts>(&mut self, ifindex: u32, given: &mut Given<'_, F>) {
        for key in self.by_port.remove(&ifindex).into_iter().flatten() {
            let Some(gone) = self.probes.remove(&(key, ifindex)) else { continue };
            if gone.until > given.now.monotonic {
                let others = self.probes.range((key, 0)..=(key, u32::MAX));
                let until = others.map(|(_, probe)| probe.until).max().unwrap_or_default();
                given.effects.push(Effect::HoldBack(gone.segment, key.ip(), until));
            }
        }
    }

    /// A bridge is gone.
    pub(super) fn bridge_gone(&mut self, ifindex: u32) {
        self.probes.retain(|(key, _), _| key.bridge != ifindex);
    }
}

/// Every station probes for such an address of its own, and no pool has one.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
