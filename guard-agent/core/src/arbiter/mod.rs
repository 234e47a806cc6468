//! What follows from a claim: a function of an event, the facts and the time.
//!
//! The caller says what has happened ([`Event`]), gives what is known, from memory ([`Facts`]) and
//! says what time it is ([`Moment`]). The arbiter returns what is to be done as a list of
//! [`Effect`]s, and does none of it: it makes no system call and reads no clock. Where a decision
//! rests on what only the kernel can tell, the effect is a [`Question`], and its answer is the next
//! event. The observer and `guardctl replay` carry the same effects out, each with its own
//! [`Hands`].
//!
//! What it remembers is what waits: conflicts that are pending until their holder has been asked
//! (claims.md A31 to A34), MACs on a second port (claims.md L01b), what came from ports that spanning
//! tree has blocked, and how often a claim that ages or a claimant that is silent was asked for. Each is
//! bounded; see [`MOST_OF_ACCESS_PORT`]. Which new holders are announced, and when, is decided by
//! [`Handovers`], which whoever writes bindings keeps.

mod ageing;
mod aside;
mod clones;
mod contest;
mod effect;
mod event;
mod facts;
mod given;
mod grace;
mod handover;
mod hosts;
mod left;
mod masters;
mod neighbours;
mod proxies;
mod questions;
mod quotas;
mod read;
mod reflected;
mod relays;
mod strangers;
mod tentative;
#[cfg(test)]
mod tests;
mod waiting;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use guard_ebpf::abi::{
    self, AddressKey, EVENT_ALLOWED, EVENT_BRIDGE_MAC, EVENT_CLONE, EVENT_CONTEST, EVENT_DECLINED,
    EVENT_FLOOD, EVENT_LIVE, EVENT_OPAQUE, EVENT_OWNER, EVENT_PROBE, EVENT_ROUTER,
    EVENT_ROUTER_FLAG, EVENT_VIOLATION,
};

pub use clones::CloneSuspect;
pub use effect::{Effect, Question, Remark, Sighted};
pub use event::{Event, Missed, Moment, Read, Seen};
pub use facts::{Facts, Hands, Holder, Rule};
pub use handover::{Bound, Handover, Handovers};
pub use hosts::Rebound;
pub use neighbours::Neighbour;
pub use quotas::PortUse;
pub use waiting::{MOST_OF_ACCESS_PORT, MOST_OF_UPLINK};

use aside::AsideKey;
use clones::CloneKey;
use contest::PendingConflict;
use given::Given;
use masters::Masters;
use neighbours::Most;
use proxies::Proxies;
use questions::Questions;
use relays::Relays;
use strangers::Strangers;
use tentative::Tentative;
use waiting::Waiting;

use crate::{
    incident::Kind,
    mac::Mac,
    policy::{Conflict, Quota},
};

/// Decides what follows from claims.
#[derive(Debug)]
pub struct Arbiter {
    conflict: Conflict,
    /// At most one for an address.
    pending: Waiting<AddressKey, PendingConflict>,
    suspects: Waiting<CloneKey, CloneSuspect>,
    /// What came from ports that let nothing in.
    aside: Waiting<AsideKey, abi::Event>,
    relays: Relays,
    masters: Masters,
    proxies: Proxies,
    strangers: Strangers,
    neighbours: Most,
    /// How often a claim that ages was asked for, by address and port: of those claims only that
    /// were there when they were last looked at.
    ageing: HashMap<(AddressKey, u32), u32>,
    /// Of those the ones that may not be asked for yet.
    unasked: Vec<Seen>,
    questions: Questions,
    tentative: Tentative,
    /// Which of their stations sandboxes are known to have their addresses at besides.
    noted: HashSet<(AddressKey, u32, Mac)>,
    /// Kept between events for their memory; always empty then.
    effects: Vec<Effect>,
    answers: VecDeque<Event>,
}

impl Arbiter {
    /// With nothing in doubt.
    pub fn new(conflict: Conflict, quota: &Quota) -> Self {
        Self {
            conflict,
            pending: Waiting::default(),
            suspects: Waiting::default(),
            aside: Waiting::default(),
            relays: Relays::default(),
            masters: Masters::default(),
            proxies: Proxies::default(),
            strangers: Strangers::new(quota.addresses_per_port),
            neighbours: Most::new(quota),
            ageing: HashMap::new(),
            unasked: Vec::new(),
            questions: Questions::default(),
            tentative: Tentative::default(),
            noted: HashSet::new(),
            effects: Vec::new(),
            answers: VecDeque::new(),
        }
    }

    /// Takes in an event, has its effects carried out in their order, and takes in the answers to
    /// what it has asked.
    pub fn handle(&mut self, event: Event, hands: &mut impl Hands) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut events = std::mem::take(&mut self.answers);
        events.push_back(event);
        while let Some(event) = events.pop_front() {
            let now = hands.now();
            self.decide(event, &*hands, now, &mut effects);
            for effect in effects.drain(..) {
                events.extend(hands.carry_out(effect));
            }
        }
        (self.effects, self.answers) = (effects, events);
    }

    /// Decides what follows from one event, and adds that to `effects`.
    pub fn decide<F: Facts>(
        &mut self,
        event: Event,
        facts: &F,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let new = effects.len();
        self.follow(event, &mut Given { facts, now, effects });
        self.strangers.leave_out(effects, new, facts, now.monotonic);
    }

    fn follow<F: Facts>(&mut self, event: Event, given: &mut Given<'_, F>) {
        match event {
            Event::Frame { event, read } => {
                if !self.set_aside(&event, read, given) {
                    self.frame(&event, read, given);
                }
            }
            Event::PortRead { event, read } => self.port_read(&event, read, given),
            Event::Live(key, live) => given.live_read(key, live),
            Event::Owner(key, owned) => given.owner_read(key, owned),
            Event::Challenger { key, challenger, live, blocked, missed } => {
                self.challenger_read(key, challenger, live, (blocked, missed), given);
            }
            Event::Evidence(claims) => {
                self.look_at_strangers(given);
                self.masters.look(&claims, given);
                self.age(claims, given);
            }
            Event::Neighbours(neighbours) => self.neighbours_read(neighbours, given),
            Event::HolderRead { key, live, port_works } => {
                self.holder_read(key, live, port_works, given);
            }
            Event::NotAsked { key, station } => self.not_asked(key, &station, given),
            Event::PortsRead { suspect, exist } => self.ports_read(*suspect, exist, given),
            Event::PortGone { ifindex, addresses } => self.port_gone(ifindex, addresses, given),
            Event::CarrierLost { ifindex } => self.ask_about(ifindex, given),
            Event::Silent(silent) => self.silent(silent, given),
            Event::Cleared { incident, live } => Self::cleared(&incident, live, given),
            Event::Bound(bound) => bound.into_iter().for_each(|one| self.bound(one, given)),
            Event::HostAddresses { bridge, new, old } => given.host_addresses(&bridge, &new, &old),
            Event::Above { bridge, new, old } => given.above(&bridge, &new, &old),
            Event::BridgeGone { ifindex } => {
                self.pending.retain(|key, _| key.bridge != ifindex);
                self.aside.retain(|(key, ..), _| key.bridge != ifindex);
                self.tentative.bridge_gone(ifindex);
            }
            Event::Tick => {
                self.ask_due(given);
                self.suspects_due(given);
                self.aside_due(given);
            }
        }
    }

    /// When [`Event::Tick`] is due next, on `CLOCK_MONOTONIC`.
    pub fn next_due(&self) -> Option<Duration> {
        let due = [self.pending.next_due(), self.suspects.next_due(), self.aside.next_due()];
        due.into_iter().flatten().min()
    }

    fn frame<F: Facts>(&mut self, event: &abi::Event, read: Read, given: &mut Given<'_, F>) {
        let abi::Event {
            time_ns,
            key,
            ifindex,
            holder_ifindex,
            mac,
            holder_mac,
            eth_src,
            kind,
            strength,
            flags,
            ..
        } = *event;
        let time = Duration::from_nanos(time_ns);
        let Some(seen) = given.seen(key, ifindex, Mac(mac), strength, time, time) else { return };
        let seen = Seen { flags, ..seen };
        match kind {
            EVENT_LIVE | EVENT_OWNER => {
                self.relays.heard(&seen, Mac(eth_src), given);
                self.heard(seen, given);
            }
            EVENT_VIOLATION => self.violation(seen, given),
            EVENT_CONTEST => {
                self.contest(seen, (holder_ifindex, Mac(holder_mac)), read.live, given);
            }
            EVENT_PROBE if given.reflects(&seen) || self.reflects_probe(&seen, given) => {
                given.looped(&seen);
            }
            EVENT_PROBE => {
                self.questions.probed(key, given.now.monotonic);
                let holder = (holder_ifindex, holder_mac) != (0, [0; 6]);
                if holder || given.facts.is_reserved(&seen.segment, seen.address) {
                    given.remark(Remark::Probed, &seen);
                } else {
                    self.tentative.probed(&seen, given);
                }
            }
            EVENT_CLONE => self.cloned(seen, holder_ifindex, read.may_move, given),
            EVENT_BRIDGE_MAC => given.bridge_mac(&seen),
            EVENT_ALLOWED => given.allowed(seen, read.live),
            EVENT_ROUTER => given.port_does(&seen, Kind::Router, EVENT_ROUTER),
            EVENT_OPAQUE => given.port_does(&seen, Kind::Opaque, EVENT_OPAQUE),
            EVENT_ROUTER_FLAG => given.remark(Remark::Forwards, &seen),
            EVENT_FLOOD => given.flooded(&seen, read),
            EVENT_DECLINED => {
                given.declined(&seen);
                self.tentative.declined(&seen, given);
            }
            // Of a newer program; its layout would have another version.
            _ => {}
        }
    }
}
