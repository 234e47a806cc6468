//! The input and output of one decision, and the effects that every claim has.

use std::{net::Ipv6Addr, sync::Arc, time::Duration};

use guard_ebpf::abi::{
    AddressKey, ChallengerKey, EVENT_CONTEST, EVENT_DECLINED, EVENT_VIOLATION, Live,
    STRENGTH_ASSERT,
};

use super::{
    Effect, Facts, Moment, Question, Read, Remark, Seen, Sighted,
    event::challenger_key,
    left,
    proxies::{Many, Proxies},
};
use crate::{
    evidence::{Claim, Station, Strength},
    incident::{Claimant, Kind, Role, Sighting, Target},
    mac::Mac,
    segment::Segment,
};

/// The facts and the time, and where the effects go.
pub(super) struct Given<'a, F> {
    pub(super) facts: &'a F,
    pub(super) now: Moment,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl<F: Facts> Given<'_, F> {
    /// None if the port or the bridge is gone: what was behind it is over.
    pub(super) fn seen(
        &self,
        key: AddressKey,
        ifindex: u32,
        mac: Mac,
        strength: u8,
        first: Duration,
        seen: Duration,
    ) -> Option<Seen> {
        let (bridge, _) = self.facts.bridge(key.bridge)?;
        let interface = self.facts.port(ifindex)?.interface;
        let strength = if strength == STRENGTH_ASSERT { Strength::Assert } else { Strength::Use };
        let station = Station { mac, interface, ifindex };
        let claim = Claim { station, strength, first, seen };
        let segment = Segment::of(bridge, &key);
        Some(Seen { key, segment, address: key.ip(), claim, flags: 0 })
    }

    pub(super) fn claimed(&mut self, seen: Seen) {
        self.effects.push(Effect::Claimed(seen));
    }

    pub(super) fn remark(&mut self, remark: Remark, seen: &Seen) {
        self.effects.push(Effect::Remark(remark, seen.clone()));
    }

    pub(super) fn ask(&mut self, question: Question) {
        self.effects.push(Effect::Recheck(question));
    }

    /// Whether two are known to claim the address.
    pub(super) fn is_disputed(&self, seen: &Seen) -> bool {
        let kind = self.facts.incident(&seen.segment, Target::Address(seen.address));
        kind.is_some_and(|kind| kind >= Kind::Duplicate)
    }

    /// Whether nobody is known to have the address.
    pub(super) fn is_nobodys(&self, Seen { segment, address, .. }: &Seen) -> bool {
        let facts = self.facts;
        !facts.is_reserved(segment, *address)
            && facts.holder(segment, *address).is_none()
            && facts.claims(segment, *address).is_empty()
    }

    /// A claim on an address whose declared owner, gateway or host it is not.
    pub(super) fn violation(&mut self, seen: Seen, proxies: &mut Proxies) {
        let facts = self.facts;
        if facts.is_reserved(&seen.segment, seen.address) {
            if facts.is_host(&seen.segment, seen.address)
                && let Some(holder) = facts.holder(&seen.segment, seen.address)
            {
                return self.against_host(seen, &holder);
            }
            return self.sighted(&seen, Kind::Gateway, None, Role::Impostor, EVENT_VIOLATION);
        }
        // Where it was bound to another since the frame came, what it claims is its own now.
        let holder = facts.holder(&seen.segment, seen.address);
        let owner = match holder.filter(|holder| !holder.allows(&seen.claim.station)) {
            Some(holder) => Some(holder.claimant(self.now.now)),
            None => self.by_rule(&seen),
        };
        if owner.is_some() {
            match proxies.claim(&seen, facts) {
                None => {
                    self.sighted(&seen, Kind::Duplicate, owner, Role::Impostor, EVENT_VIOLATION);
                }
                Some(many) => self.proxy(&seen, many),
            }
        }
        self.effects.push(Effect::Contested(seen));
    }

    /// A port claims the addresses of many (claims.md A19b).
    fn proxy(&mut self, seen: &Seen, Many { detail, folded }: Many) {
        self.about_port(seen, Kind::Proxy, 1, None, Some(detail));
        for (segment, address) in folded {
            self.effects.push(Effect::Folded(segment, address, seen.claim.station.ifindex));
        }
    }

    /// Whom a rule leaves an address to: any MAC of its port, or any of its ports.
    fn by_rule(&self, Seen { segment, address, claim, .. }: &Seen) -> Option<Claimant> {
        let rule = self.facts.rule(segment, *address)?;
        let owner = self.now.claimant(Role::Owner, claim, 0, None);
        Some(Claimant { mac: None, interface: rule.port, ifindex: None, ..owner })
    }

    /// A claim by an allow rule: the address is in use, and its last claimant is the one that the
    /// program knows.
    pub(super) fn allowed(&mut self, seen: Seen, live: Option<Live>) {
        if live.is_some_and(|live| self.reflects_live(&seen, &live)) {
            return self.looped(&seen);
        }
        let elsewhere = live.is_some_and(|live| live.ifindex != seen.claim.station.ifindex);
        if elsewhere && let Some(rule) = self.facts.rule(&seen.segment, seen.address) {
            self.remark(Remark::MovedByRule, &seen);
            // claims.md A16b: of two masters each takes it back from the other.
            if let Some(live) = live.filter(|_| rule.is_virtual) {
                let at = Duration::from_nanos(live.seen_ns.max(live.first_ns));
                let had = self.seen(seen.key, live.ifindex, Mac(live.mac), live.strength, at, at);
                self.moved(&seen, had);
            }
            self.hold(&seen);
        }
        self.claimed(seen);
    }

    /// A port sends as if it were the bridge (claims.md L02).
    pub(super) fn bridge_mac(&mut self, seen: &Seen) {
        if self.may_reflect(seen) {
            return self.looped(seen);
        }
        let kind = guard_ebpf::abi::EVENT_BRIDGE_MAC;
        self.sighted(seen, Kind::Gateway, None, Role::Impostor, kind);
    }

    /// A port is over its quota, or its budget.
    pub(super) fn flooded(&mut self, seen: &Seen, Read { used, .. }: Read) {
        let detail = used.describe(seen.address);
        self.about_port(seen, Kind::Flood, used.refused, None, Some(detail));
    }

    /// A DHCP client has found an address to be another's (claims.md D09).
    pub(super) fn declined(&mut self, seen: &Seen) {
        let any = Station { mac: Mac([0; 6]), ..seen.claim.station.clone() };
        let counted = challenger_key(&seen.key, &any, EVENT_DECLINED);
        if seen.address.is_unspecified() {
            return self.about_port(seen, Kind::Declined, 1, Some(counted), None);
        }
        let behind = self.facts.behind(any.ifindex);
        let sighting = Sighting {
            segment: seen.segment.clone(),
            target: Target::Address(seen.address),
            kind: Kind::Declined,
            mild: false,
            critical: false,
            holder: None,
            challenger: self.now.claimant(Role::Claimant, &seen.claim, 1, behind),
            detail: None,
            unanswered: false,
        };
        let sighted = Sighted { sighting, counted: Some(counted), seen: seen.claim.seen };
        self.effects.push(Effect::Sighted(Box::new(sighted)));
    }

    /// A port sends what it should not; the program counts that by the port and this kind of event.
    pub(super) fn port_does(&mut self, seen: &Seen, kind: Kind, event: u8) {
        let any = Station { mac: Mac([0; 6]), ..seen.claim.station.clone() };
        self.about_port(seen, kind, 1, Some(challenger_key(&seen.key, &any, event)), None);
    }

    /// One incident for the port, whatever its frames were about.
    pub(super) fn about_port(
        &mut self,
        seen: &Seen,
        kind: Kind,
        frames: u64,
        counted: Option<ChallengerKey>,
        detail: Option<Arc<str>>,
    ) {
        let Seen { segment, claim, .. } = seen;
        let ifindex = claim.station.ifindex;
        let sender = self.now.claimant(Role::Claimant, claim, frames, self.facts.behind(ifindex));
        let sighting = Sighting {
            segment: Segment::new(segment.bridge.clone(), 0),
            target: Target::Port(ifindex),
            kind,
            mild: false,
            critical: false,
            holder: None,
            // Its MACs are as many as it likes.
            challenger: Claimant { mac: None, ..sender },
            detail,
            unanswered: false,
        };
        let sighted = Sighted { sighting, counted, seen: claim.seen };
        self.effects.push(Effect::Sighted(Box::new(sighted)));
    }

    /// An address without a declared owner has moved from its live claimant, if it has one.
    pub(super) fn take_over(&mut self, seen: Seen, live: Option<Live>) {
        self.remark(Remark::Moved, &seen);
        let from = live.and_then(|live| {
            let at = Duration::from_nanos(live.seen_ns.max(live.first_ns));
            self.seen(seen.key, live.ifindex, Mac(live.mac), live.strength, at, at)
        });
        self.moved(&seen, from);
        self.succeed_to(seen, live);
    }

    /// The same without a word to those who count how often an address goes to and fro.
    pub(super) fn succeed_to(&mut self, seen: Seen, live: Option<Live>) {
        let Seen { key, segment, address, claim, .. } = &seen;
        if let Some(live) = live {
            self.effects.push(Effect::Withdraw(segment.clone(), *address, live.ifindex));
            // Should it claim the address once more from here, it is reported at once. A port that goes
            // from MAC to MAC has to wait, lest it floods the events.
            if live.ifindex != claim.station.ifindex {
                let challenger = challenger_key(key, &claim.station, EVENT_CONTEST);
                self.effects.push(Effect::ForgetChallenger(challenger));
            }
        }
        self.hold(&seen);
        self.claimed(seen);
    }

    fn moved(&mut self, Seen { segment, address, claim, .. }: &Seen, from: Option<Seen>) {
        let from = from.map(|had| self.now.claimant(Role::Claimant, &had.claim, 0, None));
        let behind = self.facts.behind(claim.station.ifindex);
        let to = self.now.claimant(Role::Claimant, claim, 1, behind);
        let (segment, address) = (segment.clone(), *address);
        let mild = self.facts.is_off_prefix(&segment, address);
        self.effects.push(Effect::Moved { mild, segment, address, sides: Box::new((from, to)) });
    }

    /// The gateway was heard where it is at home: its MAC is held there as a bound one is (claims.md L01).
    /// A virtual router's goes from port to port by right.
    pub(super) fn hold_gateway(&mut self, Seen { key, segment, address, claim, .. }: &Seen) {
        let Station { mac, ifindex, .. } = claim.station;
        let is_gateways = self.facts.is_reserved(segment, *address)
            && !self.facts.is_host(segment, *address)
            && !self.facts.rule(segment, *address).is_some_and(|rule| rule.is_virtual);
        if is_gateways {
            self.effects.push(Effect::HoldMac(*key, mac, ifindex));
        }
    }

    /// The program knows from now on who has an address.
    pub(super) fn hold(&mut self, seen: &Seen) {
        self.hold_gateway(seen);
        self.effects.push(Effect::HoldInKernel(seen.key, left::live(&seen.claim)));
    }

    /// Two claimants of an address that nobody has declared.
    /// `unanswered`: the first was asked and did not answer.
    pub(super) fn dispute(&mut self, seen: Seen, holder: &Claim, unanswered: bool) {
        let behind = self.facts.behind(holder.station.ifindex);
        let holder = self.now.claimant(Role::Claimant, holder, 0, behind);
        self.sighting(&seen, Kind::Duplicate, Role::Claimant, EVENT_CONTEST, |sighting| {
            (sighting.holder, sighting.unanswered) = (Some(holder), unanswered);
        });
        self.effects.push(Effect::Contested(seen));
    }

    /// Whether two stations are one sandbox's.
    pub(super) fn are_one_sandbox(&self, one: &Station, other: &Station) -> bool {
        let one = self.facts.sandbox(one);
        one.is_some() && one == self.facts.sandbox(other)
    }

    /// The holder of a disputed address was heard.
    pub(super) fn spoke(&mut self, Seen { segment, address, claim, .. }: &Seen) {
        let owner = self.facts.holder(segment, *address);
        let spoke = match owner.filter(|owner| owner.allows(&claim.station)) {
            Some(owner) => owner.claimant(self.now.now),
            None => self.now.claimant(Role::Claimant, claim, 0, None),
        };
        self.effects.push(Effect::Spoke(segment.clone(), *address, Box::new(spoke)));
    }

    /// A frame claims what another has. `event` is the kind by which the program counts its frames.
    pub(super) fn sighted(
        &mut self,
        seen: &Seen,
        kind: Kind,
        holder: Option<Claimant>,
        role: Role,
        event: u8,
    ) {
        self.sighting(seen, kind, role, event, |sighting| sighting.holder = holder);
    }

    pub(super) fn sighting(
        &mut self,
        seen: &Seen,
        kind: Kind,
        role: Role,
        event: u8,
        complete: impl FnOnce(&mut Sighting),
    ) {
        let Seen { key, segment, claim, .. } = seen;
        let behind = self.facts.behind(claim.station.ifindex);
        let challenger = self.now.claimant(role, claim, 1, behind);
        let nobodys = kind == Kind::Duplicate && role == Role::Claimant;
        let mild = nobodys && self.facts.is_off_prefix(segment, seen.address);
        let (segment, target) = (segment.clone(), seen.target());
        let mut sighting = Sighting {
            segment,
            target,
            kind,
            mild,
            critical: false,
            holder: None,
            challenger,
            detail: None,
            unanswered: false,
        };
        complete(&mut sighting);
        let sighted = Sighted {
            sighting,
            counted: Some(challenger_key(key, &claim.station, event)),
            seen: claim.seen,
        };
        self.effects.push(Effect::Sighted(Box::new(sighted)));
    }

    /// A frame that claims nothing is about its MAC, in all VLANs.
    pub(super) fn about_mac(&self, seen: Seen) -> Seen {
        let segment = Segment::new(seen.segment.bridge.clone(), 0);
        Seen { segment, address: Ipv6Addr::UNSPECIFIED.into(), ..seen }
    }
}
