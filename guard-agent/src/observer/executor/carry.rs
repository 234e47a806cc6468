//! Gives the arbiter its facts, and carries out its effects.

use std::{net::IpAddr, sync::Arc};

use guard_core::{
    arbiter::{
        Effect, Event, Facts, Hands, Holder, Missed, Moment, PortUse, Question, Read, Remark, Rule,
        Seen, Sighted,
    },
    evidence::{Claim, EvidenceView as _, PortName, Station, Strength},
    incident::{Kind, Target},
    mac::Mac,
    owner::Owner,
    policy::AllowKind,
    rules,
    segment::Segment,
};
use guard_ebpf::abi::{
    self, AddressKey, Challenger, ChallengerKey, EVENT_BRIDGE_MAC, EVENT_CLONE, EVENT_FLOOD, Live,
};

use super::Executor;
use crate::{
    clock,
    network::{
        link::exists,
        neighbours::have_asked,
        probe::{probe, tagged},
    },
    observer::ports::Ports,
};

/// The executor, with the ports.
pub(in crate::observer) struct Carrier<'a> {
    pub(in crate::observer) executor: &'a mut Executor,
    pub(in crate::observer) ports: &'a mut Ports,
}

impl Facts for Carrier<'_> {
    fn bridge(&self, ifindex: u32) -> Option<(Arc<str>, Mac)> {
        self.executor.bridges.get(&ifindex).cloned()
    }

    fn bridge_named(&self, name: &str) -> Option<(u32, Mac)> {
        let mut bridges = self.executor.bridges.iter();
        bridges.find(|(_, (known, _))| **known == *name).map(|(ifindex, (_, mac))| (*ifindex, *mac))
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        self.executor.live.port(ifindex)
    }

    fn holder(&self, segment: &Segment, address: IpAddr) -> Option<Holder> {
        self.executor.owners.holder(segment, address)
    }

    fn is_reserved(&self, segment: &Segment, address: IpAddr) -> bool {
        self.executor.owners.is_reserved(segment, address)
    }

    fn is_bound(&self, ifindex: u32, mac: Mac) -> bool {
        self.executor.owners.is_bound(ifindex, mac)
    }

    fn has_declared(&self, ifindex: u32) -> bool {
        self.executor.owners.has_declared(ifindex)
    }

    fn is_gateway(&self, bridge: &str, ifindex: u32, mac: Mac) -> bool {
        let gateways = self.executor.owners.gateways(bridge);
        gateways.iter().any(|(segment, address)| self.lives(segment, *address, mac, ifindex))
    }

    fn behind(&self, ifindex: u32) -> Option<Owner> {
        self.executor.owners.behind(ifindex)
    }

    fn rule(&self, segment: &Segment, address: IpAddr) -> Option<Rule> {
        let rules = Some(self.executor.rules_of(segment)).filter(|_| segment.inner_vlan == 0)?;
        let rule = rules::declared(rules, segment.vlan, address)?;
        Some(Rule { port: rule.only_port().cloned(), is_virtual: rule.kind == AllowKind::Vrrp })
    }

    fn is_off_prefix(&self, segment: &Segment, address: IpAddr) -> bool {
        self.executor.is_off_prefix(segment, address)
    }

    fn lives(&self, segment: &Segment, address: IpAddr, mac: Mac, ifindex: u32) -> bool {
        let evidence = self.executor.live.evidence(segment, address);
        evidence.iter().any(|one| one.mac == Some(mac) && one.ifindex == Some(ifindex))
    }

    fn address_of(&self, mac: Mac, ifindex: u32) -> Option<(Segment, IpAddr)> {
        self.executor.live.address_of(mac, ifindex)
    }

    fn is_host_mac(&self, bridge: u32, mac: Mac) -> bool {
        let own = self.executor.bridges.get(&bridge).is_some_and(|(_, own)| *own == mac);
        own || self.executor.host_macs.contains(&(bridge, mac))
    }

    fn is_beside(&self, mac: Mac) -> bool {
        self.executor.beside.contains(&mac)
    }

    fn claims(&self, segment: &Segment, address: IpAddr) -> Vec<Claim> {
        self.executor.live.claims_on(segment, address)
    }

    fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        // The program knows those of the bridge's devices alone.
        self.executor.owners.is_host(segment, address)
            || address.is_ipv4() && self.executor.live.is_host(segment, address)
    }

    fn above(&self, segment: &Segment, address: IpAddr) -> Option<Mac> {
        self.executor.live.above(segment, address)
    }

    fn sender(&self, segment: &Segment, address: IpAddr) -> Option<IpAddr> {
        self.executor.sender(segment, address)
    }

    fn can_ask(&self) -> bool {
        true
    }

    fn sandbox(&self, station: &Station) -> Option<Owner> {
        self.executor.owners.sandbox(station)
    }

    fn is_allowed(&self, segment: &Segment, address: IpAddr, station: &Station) -> bool {
        rules::allow(self.executor.rules_of(segment), segment.vlan, address, station)
            || self.executor.owners.is_excepted(segment, address, station)
    }

    fn is_virtual_router(&self, segment: &Segment, interface: &str) -> bool {
        let mut rules = self.executor.rules_of(segment).iter();
        rules.any(|rule| rule.kind == AllowKind::Vrrp && rule.is_for(interface))
            || self.executor.owners.is_virtual_router(interface)
    }

    fn incident(&self, segment: &Segment, target: Target) -> Option<Kind> {
        self.executor.reporter.kind(segment, target)
    }
}

impl Hands for Carrier<'_> {
    fn now(&self) -> Moment {
        Moment { now: clock::now(), monotonic: clock::monotonic() }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Claimed(Seen { segment, address, claim, .. }) => {
                self.executor.claimed(&segment, address, claim);
            }
            Effect::Contested(Seen { segment, address, claim, .. }) => {
                self.executor.contested(segment, address, claim);
            }
            Effect::Withdraw(segment, address, ifindex) => {
                self.executor.live.withdraw(&segment, address, ifindex);
            }
            Effect::Sighted(sighted) => self.executor.sighted(*sighted),
            Effect::Moved { mild, segment, address, sides } => {
                let (from, to) = *sides;
                let sides = (from.as_ref(), &to);
                self.executor.reporter.moved(&segment, address, sides, mild, clock::now());
            }
            Effect::Folded(segment, address, ifindex) => {
                self.executor.reporter.folded(&segment, address, ifindex, clock::now());
            }
            Effect::Spoke(segment, address, holder) => {
                self.executor.reporter.holder_spoke(&segment, address, &holder, clock::now());
            }
            Effect::HoldInKernel(key, live) => self.executor.hold(key, live),
            Effect::HoldInstead(key, ifindex, live) => {
                self.executor.hold_instead(key, ifindex, live);
            }
            Effect::Listen(key, station) => self.executor.listen(key, &station),
            Effect::ListenToOwner(segment, address) => {
                self.executor.owners.listen(&segment, address);
            }
            Effect::Gone { segment, target, mac, ifindex } => {
                return self.executor.gone(segment, target, (mac, ifindex));
            }
            Effect::ForgetInKernel(key, ifindex) => self.executor.forget(&key, ifindex),
            // Idempotent: it may be gone already.
            Effect::ForgetChallenger(challenger) => {
                let _ = self.executor.maps.challengers.remove(&challenger);
            }
            Effect::HoldMac(key, mac, ifindex) => self.ports.hold_mac(&key, mac, ifindex),
            Effect::ForgetMac(key, mac, ifindex) => self.ports.forget_mac(&key, mac, ifindex),
            Effect::Probe { from, to, key } => {
                let is_sent = self.executor.probe(from, &to, &key);
                return (!is_sent).then_some(Event::NotAsked { key, station: to });
            }
            Effect::HoldBack(segment, address, until) => {
                self.executor.live.hold_back(segment, address, until);
            }
            Effect::HostAsks { device, address, mac } => {
                if let Err(error) = have_asked(device, address, mac) {
                    tracing::debug!(%address, %mac, %error, "the host cannot ask a neighbour");
                }
            }
            Effect::ProbeRace(seen, first) => self.executor.probe_race(&seen, &first),
            Effect::Recheck(question) => return Some(self.answer(question)),
            Effect::Remark(remark, seen) => self.executor.remark(remark, &seen),
        }
        None
    }
}

impl Carrier<'_> {
    /// What the kernel says beside an event of the program.
    pub(in crate::observer) fn read(&self, event: &abi::Event) -> Read {
        let abi::Event { key, mac, ifindex, holder_ifindex, kind, .. } = *event;
        let used = match kind {
            EVENT_FLOOD => self.ports.used(ifindex),
            _ => PortUse::default(),
        };
        let may_move =
            kind == EVENT_CLONE && self.ports.may_move(&key, mac, holder_ifindex, ifindex);
        let live = Read::needs_live(kind).then(|| self.executor.live(&key)).flatten();
        Read { live, may_move, used, blocked: self.executor.is_blocked(ifindex) }
    }

    fn answer(&self, question: Question) -> Event {
        match question {
            Question::Holder { key, holder, challenger: _ } => Event::HolderRead {
                key,
                live: self.executor.live(&key),
                port_works: self.executor.port_works(holder.ifindex),
            },
            Question::Ports { suspect, both } => {
                let second = suspect.seen.claim.station.ifindex;
                let works = self.executor.port_works(suspect.holder);
                Event::PortsRead { suspect, exist: works && (!both || exists(second)) }
            }
            Question::Forwards(event) => Event::PortRead { read: self.read(&event), event },
        }
    }
}

impl Executor {
    fn claimed(&self, segment: &Segment, address: IpAddr, claim: Claim) {
        let (station, is_frame) = (claim.station.clone(), claim.strength != Strength::Neighbour);
        if !self.live.claimed(segment, address, claim) {
            return;
        }
        if is_frame {
            self.news(segment, address, &station);
        } else {
            self.live.changes().wake();
        }
    }

    /// Whoever allocates sees the claim from now on; the rest waits for [`Executor::follow_up`].
    fn contested(&mut self, segment: Segment, address: IpAddr, claim: Claim) {
        let station = claim.station.clone();
        let new = self.live.claimed(&segment, address, claim).then_some(station);
        self.later.push((segment, address, new));
    }

    fn sighted(&self, Sighted { mut sighting, counted, seen }: Sighted) {
        if let Some(frames) = counted.and_then(|challenger| self.frames(&challenger)) {
            sighting.challenger.frames = frames;
        }
        // What was said while no agent ran was told as soon as one did.
        let latency = (seen >= self.since).then(|| clock::monotonic().saturating_sub(seen));
        self.reporter.sighted(sighting, clock::now(), latency);
    }

    fn frames(&self, challenger: &ChallengerKey) -> Option<u64> {
        // Of a clone: where the bridge does not filter VLANs, its MAC is counted for all of them.
        let in_all = ChallengerKey { key: AddressKey { vlan: 0, ..challenger.key }, ..*challenger };
        let of_mac = matches!(challenger.kind, EVENT_CLONE | EVENT_BRIDGE_MAC);
        let mut keys = [*challenger, in_all].into_iter().take(if of_mac { 2 } else { 1 });
        let known = keys.find_map(|key| self.maps.challengers.get(&key, 0).ok())?;
        Some(known.frames.max(1))
    }

    /// Whether a challenger spoke while no agent ran: no incident has counted its last frame.
    pub(in crate::observer) fn missed(
        &self,
        ChallengerKey { key, ifindex, mac, .. }: &ChallengerKey,
        challenger: &Challenger,
    ) -> Missed {
        let Some((bridge, _)) = self.bridges.get(&key.bridge) else { return Missed::No };
        let target = (Segment::of(bridge.clone(), key), Target::Address(key.ip()));
        if self.reporter.has_counted(&target, (Mac(*mac), *ifindex), challenger.frames) {
            Missed::No
        } else if self.ended.contains(ifindex) {
            Missed::Gone
        } else {
            Missed::Yes
        }
    }

    fn hold(&mut self, key: AddressKey, live: Live) {
        if let Err(error) = self.maps.live.insert(key, live) {
            let address = key.ip();
            tracing::warn!(%address, %error, "cannot note in the kernel who has an address");
        }
    }

    fn hold_instead(&mut self, key: AddressKey, ifindex: u32, live: Live) {
        if self.live(&key).is_some_and(|before| before.ifindex == ifindex) {
            self.hold(key, live);
        }
    }

    /// A claimant of an incident is gone.
    fn gone(
        &self,
        segment: Segment,
        target: Target,
        who: (Option<Mac>, Option<u32>),
    ) -> Option<Event> {
        let bridge = self.bridges.iter().find(|(_, (name, _))| *name == segment.bridge);
        let key = bridge.zip(target.address());
        let key = key.map(|((at, _), address)| segment.key(*at, address));
        let over = self.reporter.claimant_gone(&(segment, target), who, clock::now())?;
        let live = key.and_then(|key| self.live(&key));
        Some(Event::Cleared { incident: Box::new(over), live })
    }

    /// Has the program tell when a live claimant is heard next.
    fn listen(&mut self, key: AddressKey, Station { mac: Mac(mac), ifindex, .. }: &Station) {
        let live = self.live(&key);
        if let Some(live) = live.filter(|live| (live.ifindex, live.mac) == (*ifindex, *mac)) {
            self.hold(key, Live { seen_ns: 0, ..live });
        }
    }

    /// Asks a station for an address. False if that could not be sent.
    fn probe(&self, (from, sender): (Mac, Option<IpAddr>), to: &Station, key: &AddressKey) -> bool {
        let address = key.ip();
        let question = probe((from, sender), to.mac, address);
        let vlans = self.vlans.get(&to.ifindex);
        let mut is_sent = false;
        for question in tagged(&question, vlans, (key.vlan, key.inner_vlan)) {
            match self.prober.send(to.ifindex, &question) {
                Ok(()) => is_sent = true,
                Err(error) => {
                    tracing::debug!(%address, port = %to.interface, %error, "cannot send a probe");
                }
            }
        }
        is_sent
    }

    fn probe_race(&mut self, seen: &Seen, first: &Station) {
        let Seen { segment, address, claim, .. } = seen;
        let second = &claim.station;
        if let Some(left_out) = self.log.may_write(clock::monotonic()) {
            tracing::info!(
                %segment, %address, mac = %second.mac, port = %second.interface,
                other_mac = %first.mac, other_port = %first.interface, left_out,
                "two stations probe for one address"
            );
        }
        self.reporter.probe_race(segment, *address, [first, second], clock::now());
    }

    fn remark(&mut self, remark: Remark, Seen { segment, address, claim, .. }: &Seen) {
        let Station { mac, interface, ifindex: _ } = &claim.station;
        if let Some(left_out) = self.log.may_write(clock::monotonic()) {
            let text = remark.text();
            tracing::info!(%segment, %address, %mac, port = %interface, left_out, "{text}");
        }
    }
}
