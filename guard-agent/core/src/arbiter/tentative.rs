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
/// An address that a DHCP client declines is held back for as long as that is told (claims.md D09).
const DECLINED: Duration = Duration::from_secs(600);

/// The probes of late.
#[derive(Debug, Default)]
pub(super) struct Tentative {
    /// By address and port.
    probes: BTreeMap<(AddressKey, u32), Probe>,
    /// For which addresses a port has probed.
    by_port: HashMap<u32, Vec<AddressKey>>,
    /// What clients behind a port have declined, and until when that counts.
    declined: HashMap<u32, BTreeMap<AddressKey, Duration>>,
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
        let Seen { key, segment, address, claim: Claim { station, seen: at, .. }, .. } = seen;
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

    /// Whether the station has probed for the same of late on another port, which is one of these.
    pub(super) fn has_probed(&self, seen: &Seen, is_here: impl Fn(u32) -> bool) -> bool {
        let Station { mac, ifindex, .. } = seen.claim.station;
        let probes = self.probes.range((seen.key, 0)..=(seen.key, u32::MAX));
        let mut others = probes.filter(|((_, port), _)| *port != ifindex && is_here(*port));
        others.any(|(_, probe)| probe.station.mac == mac && !probe.is_over(seen.claim.seen))
    }

    /// A DHCP client has found an address to be another's. It counts as a probe does.
    pub(super) fn declined<F: Facts>(&mut self, seen: &Seen, given: &mut Given<'_, F>) {
        let Seen { key, segment, address, claim, .. } = seen;
        let (facts, now, ifindex) = (given.facts, given.now.monotonic, claim.station.ifindex);
        let counts = facts.holder(segment, *address).is_none() && !facts.has_declared(ifindex);
        if address.is_unspecified() || !counts {
            return;
        }
        let of_port = self.declined.entry(ifindex).or_default();
        of_port.retain(|_, until| *until > now);
        if of_port.len() < MOST_OF_PORT || of_port.contains_key(key) {
            let until = now + DECLINED;
            of_port.insert(*key, until);
            given.effects.push(Effect::HoldBack(segment.clone(), *address, until));
        }
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
        self.declined.remove(&ifindex);
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
