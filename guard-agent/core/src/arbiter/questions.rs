//! Questions to stations, whether they are still there: how many may be sent out of a port, and to
//! whom they go when an incident has claimants that have fallen silent.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use guard_ebpf::abi::{AddressKey, EVENT_CONTEST, Live};

use super::{Arbiter, Effect, Facts, Seen, event::challenger_key, given::Given};
use crate::{
    evidence::{Claim, Station},
    incident::{Incident, Silent, Target},
    mac::Mac,
    segment::Segment,
};

/// A claimant is asked so often before it is believed to be gone.
const PROBES: u32 = 3;
/// What could not be sent is tried again so soon.
const RETRY: Duration = Duration::from_millis(100);
/// For its answer it has so long.
const ANSWER: Duration = Duration::from_secs(1);
/// Who cannot be asked is believed to be gone after so many times `quiet`.
const UNASKED: u32 = 5;
/// So many questions may leave a port within a second.
const A_SECOND_OF_ACCESS_PORT: usize = 50;
const A_SECOND_OF_UPLINK: usize = 10;
const SECOND: Duration = Duration::from_secs(1);
/// For so long after a probe of its own a station would take a question from 0.0.0.0 for another's
/// probe (RFC 5227 §2.1.1).
const PROBING: Duration = Duration::from_secs(6);
/// So many addresses that are probed for are remembered.
const MOST_PROBED: usize = 4096;

/// Whom to ask is remembered by what is asked and who.
type Asked = (Segment, Target, Option<Mac>, Option<u32>);

/// What was asked of late.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// When the last questions left, by port.
    sent: HashMap<u32, VecDeque<Duration>>,
    /// When somebody last probed for an address.
    probed: HashMap<AddressKey, Duration>,
    /// How often a claimant was asked, and when it may be asked again: of those only that were silent
    /// at the last look.
    asked: HashMap<Asked, (u32, Duration)>,
}

impl Questions {
    /// Somebody probes for an address.
    pub(super) fn probed(&mut self, key: AddressKey, now: Duration) {
        if self.probed.len() >= MOST_PROBED {
            self.probed.retain(|_, at| now.saturating_sub(*at) < PROBING);
        }
        if self.probed.len() < MOST_PROBED {
            self.probed.insert(key, now);
        }
    }

    /// A port has ended.
    pub(super) fn port_gone(&mut self, ifindex: u32) {
        self.sent.remove(&ifindex);
    }

    /// Asks a station for an address. False if it cannot be asked now.
    pub(super) fn ask<F: Facts>(
        &mut self,
        to: &Station,
        (key, segment, address): (AddressKey, &Segment, IpAddr),
        given: &mut Given<'_, F>,
    ) -> bool {
        let now = given.now.monotonic;
        let Some((_, from)) = given.facts.bridge(key.bridge) else { return false };
        let Some(port) = given.facts.port(to.ifindex) else { return false };
        let sender = given.facts.sender(segment, address);
        let is_probing =
            || self.probed.get(&key).is_some_and(|at| now.saturating_sub(*at) < PROBING);
        if sender.is_none() && address.is_ipv4() && is_probing() {
            return false;
        }
        let most = if port.uplink { A_SECOND_OF_UPLINK } else { A_SECOND_OF_ACCESS_PORT };
        let sent = self.sent.entry(to.ifindex).or_default();
        sent.retain(|at| now.saturating_sub(*at) < SECOND);
        if sent.len() >= most {
            return false;
        }
        sent.push_back(now);
        given.effects.push(Effect::Probe { from: (from, sender), to: to.clone(), key });
        true
    }
}

impl Arbiter {
    /// A question could not be sent: nobody can have answered it, and it is asked once more.
    pub(super) fn not_asked<F: Facts>(
        &mut self,
        key: AddressKey,
        station: &Station,
        given: &Given<'_, F>,
    ) {
        let retry = given.now.monotonic + RETRY;
        let Station { mac, ifindex, .. } = station;
        if let Some(pending) = self.pending.get_mut(&key)
            && pending.is_held_by(station)
        {
            pending.not_asked();
            self.pending.set_due(&key, retry);
        }
        self.suspect_not_asked(&key, station, retry);
        if let Some(times) = self.ageing.get_mut(&(key, *ifindex)) {
            *times = times.saturating_sub(1);
        }
        let Some((bridge, _)) = given.facts.bridge(key.bridge) else { return };
        let (segment, address) = (Segment::of(bridge, &key), key.ip());
        self.strangers.not_asked(&segment, address, *ifindex);
        let id = (segment, Target::Address(address), Some(*mac), Some(*ifindex));
        if let Some((times, _)) = self.questions.asked.get_mut(&id) {
            *times = times.saturating_sub(1);
        }
    }

    /// Asks the claimants of incidents that have fallen silent. These are all that have.
    pub(super) fn silent<F: Facts>(&mut self, silent: Vec<Silent>, given: &mut Given<'_, F>) {
        let mut asked = HashMap::new();
        for one in silent {
            let Silent { segment, target, mac, ifindex, silence, .. } = &one;
            let id = (segment.clone(), target.clone(), *mac, *ifindex);
            let Some(bridge) = given.facts.bridge_named(&segment.bridge).map(|(at, _)| at) else {
                continue;
            };
            let address = target.address();
            if *ifindex == Some(bridge) {
                // The host says by netlink what it has. A macvlan over the bridge cannot be asked.
                let facts = given.facts;
                let is_there = |address| {
                    let above = facts.above(segment, address);
                    facts.is_host(segment, address) || above.is_some() && above == *mac
                };
                if !address.is_some_and(is_there) {
                    given.gone(id);
                }
                continue;
            }
            if ifindex.is_some_and(|port| given.facts.port(port).is_none()) {
                given.gone(id); // With its port, while nobody watched.
                continue;
            }
            let station = one.station().filter(|_| given.facts.can_ask());
            let (Some(address), Some(station)) = (address, station) else {
                if *silence >= self.conflict.quiet * UNASKED {
                    given.gone(id);
                }
                continue;
            };
            let now = given.now.monotonic;
            // Who was heard since it was asked has answered.
            let known = self.questions.asked.get(&id).copied();
            let known = known.filter(|(_, again)| now.saturating_sub(*silence) + ANSWER <= *again);
            let (count, again) = known.unwrap_or_default();
            if now < again {
                asked.insert(id, (count, again));
            } else if count >= PROBES {
                given.gone(id);
                // Whoever comes next is judged against one that is there.
                given.left_to_others(segment.key(bridge, address), segment, address, &station);
            } else {
                let key = segment.key(bridge, address);
                // From here on the program tells when it is heard again.
                given.effects.push(Effect::Listen(key, station.clone()));
                let sent = self.questions.ask(&station, (key, segment, address), given);
                asked.insert(id, if sent { (count + 1, now + ANSWER) } else { (count, again) });
            }
        }
        self.questions.asked = asked;
        self.ask_ageing(given);
    }

    /// An incident is over: the address is that of the one who is left.
    pub(super) fn cleared<F: Facts>(
        incident: &Incident,
        live: Option<Live>,
        given: &mut Given<'_, F>,
    ) {
        let (Some(left), Some(address)) = (incident.left(), incident.target.address()) else {
            return;
        };
        let segment = &incident.segment;
        // Who did not answer has it no more; who is off the bridge may come back.
        let gone = incident.claimants.iter().filter(|known| known.gone);
        for port in gone.filter_map(|known| known.ifindex).filter(|port| *port != left.ifindex) {
            if given.facts.port(port).is_some_and(|port| port.bridge == segment.bridge) {
                given.effects.push(Effect::Withdraw(segment.clone(), address, port));
            }
        }
        let Some(live) = live else { return };
        let claims = given.facts.claims(segment, address);
        let claim = claims.into_iter().find(|claim| claim.station == left);
        let bridge = given.facts.bridge_named(&segment.bridge);
        if let (Some(claim), Some((bridge, _))) = (claim, bridge)
            && (live.ifindex, Mac(live.mac)) != (left.ifindex, left.mac)
        {
            let key = segment.key(bridge, address);
            let seen = Seen { key, segment: segment.clone(), address, claim, flags: 0 };
            given.succeed(&seen, live);
        }
    }
}

impl Silent {
    fn station(&self) -> Option<Station> {
        let Self { mac, interface, ifindex, .. } = self;
        let station = Station { mac: (*mac)?, interface: interface.clone()?, ifindex: (*ifindex)? };
        station.mac.is_host().then_some(station)
    }
}

impl<F: Facts> Given<'_, F> {
    pub(super) fn gone(&mut self, (segment, target, mac, ifindex): Asked) {
        self.effects.push(Effect::Gone { segment, target, mac, ifindex });
    }

    /// Who was live with an address is gone: another of its claimants has it.
    fn succeed(&mut self, seen: &Seen, live: Live) {
        let Seen { segment, address, claim: Claim { station, .. }, .. } = seen;
        if live.ifindex != station.ifindex {
            self.effects.push(Effect::Withdraw(segment.clone(), *address, live.ifindex));
        }
        // Should it claim the address from elsewhere once more, it is reported at once.
        let challenger = challenger_key(&seen.key, station, EVENT_CONTEST);
        self.effects.push(Effect::ForgetChallenger(challenger));
        self.hold(seen);
    }
}
