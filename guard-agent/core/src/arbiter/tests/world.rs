//! A bridge in memory: the program's maps, ports that come and go, stations that answer or do not,
//! and the incidents.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytemuck::Zeroable as _;
use guard_ebpf::{
    abi::{
        OFF_LINK, OWNED_GATEWAY, OWNED_HOST, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned,
        PORT_ACCESS, PORT_ALLOW_VIRTUAL, PORT_UPLINK, Port, Prefix,
    },
    decide::Tables as _,
    model::Model,
};
use jiff::Timestamp;

use crate::{
    arbiter::*,
    evidence::{Claim, PortName, Station},
    incident::{Flaps, Incident, Incidents, Kind, Phase, Role, Target},
    lease::model::Binding,
    owner::Owner,
    policy::{Conflict, Quota},
    segment::Segment,
    time::Now,
};

pub(super) const BRIDGE: u32 = 9;
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);
/// A day after the boot.
const START: Duration = Duration::from_secs(86_400);

/// A port of the bridge.
#[derive(Clone, Debug)]
pub(super) struct TestPort {
    pub(super) abi: Port,
    pub(super) name: PortName,
    /// The kernel still has it; netlink may not have told its end yet.
    pub(super) exists: bool,
    pub(super) carrier: bool,
    /// Whoever is behind it answers probes.
    pub(super) answers: bool,
    /// Spanning tree lets nothing in.
    pub(super) blocked: bool,
}

pub(super) struct World {
    pub(super) model: Model,
    pub(super) conflict: Conflict,
    pub(super) ports: BTreeMap<u32, TestPort>,
    pub(super) incidents: Incidents,
    pub(super) evidence: BTreeMap<(Segment, IpAddr), BTreeMap<u32, Claim>>,
    /// All effects so far.
    pub(super) log: Vec<Effect>,
    pub(super) closed: Vec<Incident>,
    /// Answers to probes that are on their way.
    frames: VecDeque<(u32, Vec<u8>)>,
    /// Of whom it is not the address itself, the sandbox that has it.
    pub(super) sandboxes: BTreeMap<IpAddr, &'static str>,
    /// What the host has on other devices.
    pub(super) elsewhere: BTreeSet<IpAddr>,
}

/// The world and its arbiter.
pub(super) struct Play {
    pub(super) arbiter: Arbiter,
    pub(super) world: World,
}

pub(super) fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

pub(super) fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 64, host)
}

pub(super) fn segment() -> Segment {
    Segment::new("br0", 0)
}

pub(super) fn arp(op: u8, Mac(sha): Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, op];
    let arp = [&head[..], &sha, &spa.octets(), &[0; 6], &tpa.octets()];
    [&[0xff; 6][..], &sha, &[8, 6], &arp.concat()].concat()
}

/// claims.md A06.
pub(super) fn announce(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp(1, mac, address, address)
}

/// claims.md A04.
pub(super) fn probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp(1, mac, Ipv4Addr::UNSPECIFIED, address)
}

/// claims.md D01.
pub(super) fn packet(Mac(mac): Mac, source: Ipv4Addr) -> Vec<u8> {
    let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    let to = address(99).octets();
    [&[0x02, 0, 0, 0, 0, 0x63][..], &mac, &[8, 0], &header, &source.octets(), &to].concat()
}

impl World {
    fn new() -> Self {
        let mut model = Model::new(u64::try_from(START.as_nanos()).unwrap());
        let key = AddressKey::new(BRIDGE, 0, address(0).into());
        let on_link = Prefix { on_link: 1, ..Prefix::default() };
        model.add_prefix(key, key.prefix_len(24), on_link);
        let (family, all) = key.family();
        model.add_prefix(family, all, Prefix { on_link: OFF_LINK, ..on_link });
        let gateway = Owned { flags: OWNED_GATEWAY, ..Owned::zeroed() };
        model.owned.insert(AddressKey::new(BRIDGE, 0, GATEWAY.into()), gateway);
        let conflict = Conflict::default();
        let flaps = Flaps::new(conflict.flap_window, conflict.flap_count);
        Self {
            model,
            conflict,
            ports: BTreeMap::new(),
            incidents: Incidents::new(conflict.quiet, flaps, 1),
            evidence: BTreeMap::new(),
            log: Vec::new(),
            closed: Vec::new(),
            frames: VecDeque::new(),
            sandboxes: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
        }
    }

    pub(super) fn add_port(&mut self, ifindex: u32, uplink: bool) {
        let kind = if uplink { PORT_UPLINK } else { PORT_ACCESS };
        let abi = Port { ifindex, bridge: BRIDGE, kind, ..Port::zeroed() };
        let (interface, bridge) = (format!("veth{ifindex}").into(), "br0".into());
        let name = PortName { interface, bridge, uplink };
        let port =
            TestPort { abi, name, exists: true, carrier: true, answers: true, blocked: false };
        self.ports.insert(ifindex, port);
    }

    fn owned(&self, segment: &Segment, address: IpAddr) -> Option<&Owned> {
        let is = |key: &&AddressKey| (key.vlan, key.ip()) == (segment.vlan, address);
        self.model.owned.keys().find(is).and_then(|key| self.model.owned.get(key))
    }

    fn binding(&self, Owned { flags, mac, ifindex, .. }: &Owned) -> Binding {
        let port = (flags & OWNED_PORT != 0).then_some(*ifindex);
        let name = port.and_then(|port| self.ports.get(&port));
        Binding {
            declared: flags & (OWNED_MAC | OWNED_PORT) != 0,
            mac: (flags & OWNED_MAC != 0).then_some(Mac(*mac)),
            interface: name.map(|port| port.name.interface.clone()),
            ifindex: port,
            ..Binding::default()
        }
    }

    fn opened(&mut self, told: Option<(Phase, Incident)>) {
        // One alert for each incident, whatever joins it.
        if let Some((Phase::Opened, incident)) = told {
            let open = self.incidents.list(false);
            let about = |one: &Incident| (one.segment.clone(), one.target.clone());
            let same = open.iter().filter(|other| about(other) == about(&incident));
            assert_eq!(same.count(), 1, "{incident:?}");
        }
    }

    fn owner(&self, address: IpAddr) -> Owner {
        let named = self.sandboxes.get(&address).map(|name| (*name).into());
        let sandbox = named.unwrap_or_else(|| address.to_string().into());
        Owner { sandbox, lifecycle: "".into() }
    }

    fn close(&mut self) {
        self.closed.extend(self.incidents.close(self.now().now));
    }
}

impl Facts for World {
    fn bridge(&self, ifindex: u32) -> Option<(Arc<str>, Mac)> {
        (ifindex == BRIDGE).then(|| ("br0".into(), mac(0xfe)))
    }

    fn bridge_named(&self, name: &str) -> Option<(u32, Mac)> {
        (name == "br0").then(|| (BRIDGE, mac(0xfe)))
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        self.ports.get(&ifindex).map(|port| port.name.clone())
    }

    fn holder(&self, segment: &Segment, address: IpAddr) -> Option<Holder> {
        let owned = self.owned(segment, address)?;
        let owner = self.owner(address);
        let (generation, binding) = (owned.generation, self.binding(owned));
        (owned.flags & OWNED_LEASED != 0).then_some(Holder { owner, generation, binding })
    }

    fn is_reserved(&self, segment: &Segment, address: IpAddr) -> bool {
        let owned = self.owned(segment, address);
        owned.is_some_and(|owned| owned.flags & (OWNED_GATEWAY | OWNED_HOST) != 0)
    }

    fn is_bound(&self, ifindex: u32, mac: Mac) -> bool {
        let bound = |owned: &Owned| {
            let binding = self.binding(owned);
            (binding.mac, binding.ifindex) == (Some(mac), Some(ifindex))
        };
        self.model.owned.values().any(bound)
    }

    fn has_declared(&self, ifindex: u32) -> bool {
        let mut bindings = self.model.owned.values().map(|owned| self.binding(owned));
        bindings.any(|binding| binding.declared && binding.ifindex == Some(ifindex))
    }

    fn is_gateway(&self, _: &str, ifindex: u32, Mac(mac): Mac) -> bool {
        let bits = |owned: &Owned| owned.flags & (OWNED_GATEWAY | OWNED_HOST);
        let mut owned = self.model.owned.iter().filter(|(_, o)| bits(o) == OWNED_GATEWAY);
        owned.any(|(key, _)| {
            let live = self.model.live.get(key);
            live.is_some_and(|live| (live.mac, live.ifindex) == (mac, ifindex))
        })
    }

    fn behind(&self, _: u32) -> Option<Owner> {
        None
    }

    fn rule(&self, segment: &Segment, address: IpAddr) -> Option<Rule> {
        let prefix = self.model.prefix(&segment.key(BRIDGE, address))?;
        let is_virtual = prefix.allow_virtual != 0;
        (prefix.declared != 0).then_some(Rule { port: None, is_virtual })
    }

    fn is_off_prefix(&self, segment: &Segment, address: IpAddr) -> bool {
        let prefix = self.model.prefix(&segment.key(BRIDGE, address));
        prefix.is_some_and(|prefix| prefix.on_link == OFF_LINK)
    }

    fn lives(&self, segment: &Segment, address: IpAddr, mac: Mac, ifindex: u32) -> bool {
        let claims = self.evidence.get(&(segment.clone(), address));
        let claim = claims.and_then(|claims| claims.get(&ifindex));
        claim.is_some_and(|claim| claim.station.mac == mac)
    }

    fn address_of(&self, mac: Mac, ifindex: u32) -> Option<(Segment, IpAddr)> {
        let is = |claims: &BTreeMap<u32, Claim>| {
            claims.get(&ifindex).is_some_and(|claim| claim.station.mac == mac)
        };
        self.evidence.iter().find(|(_, claims)| is(claims)).map(|(place, _)| place.clone())
    }

    fn is_host_mac(&self, _: u32, of: Mac) -> bool {
        of == mac(0xfe)
    }

    fn claims(&self, segment: &Segment, address: IpAddr) -> Vec<Claim> {
        let claims = self.evidence.get(&(segment.clone(), address));
        claims.into_iter().flatten().map(|(_, claim)| claim.clone()).collect()
    }

    fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        self.owned(segment, address).is_some_and(|owned| owned.flags & OWNED_HOST != 0)
            || self.elsewhere.contains(&address)
    }

    fn sender(&self, _: &Segment, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn can_ask(&self) -> bool {
        true
    }

    fn sandbox(&self, station: &Station) -> Option<Owner> {
        let leased = |owned: &Owned| owned.flags & OWNED_LEASED != 0;
        let owned = self.model.owned.iter().filter(|(_, owned)| leased(owned));
        let allowed = owned.filter(|(_, owned)| self.binding(owned).allows(station));
        // Of several the same one always, whatever the map's order is.
        let key = allowed.map(|(key, _)| key).min()?;
        Some(self.owner(key.ip()))
    }

    fn is_allowed(&self, _: &Segment, _: IpAddr, _: &Station) -> bool {
        false
    }

    fn is_virtual_router(&self, _: &Segment, interface: &str) -> bool {
        let mut ports = self.ports.values().filter(|port| *port.name.interface == *interface);
        ports.any(|port| port.abi.flags & PORT_ALLOW_VIRTUAL != 0)
    }

    fn incident(&self, segment: &Segment, target: Target) -> Option<Kind> {
        self.incidents.kind(segment, target)
    }
}

impl Hands for World {
    fn now(&self) -> Moment {
        let monotonic = Duration::from_nanos(self.model.now_ns);
        let wall = Timestamp::from_second(1_700_000_000).unwrap().checked_add(monotonic).unwrap();
        Moment { now: Now { boot: monotonic, wall }, monotonic }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        self.log.push(effect.clone());
        match effect {
            Effect::Claimed(Seen { segment, address, claim, .. })
            | Effect::Contested(Seen { segment, address, claim, .. }) => {
                let ifindex = claim.station.ifindex;
                if self.ports.contains_key(&ifindex) {
                    self.evidence.entry((segment, address)).or_default().insert(ifindex, claim);
                }
            }
            Effect::Withdraw(segment, address, ifindex) => {
                let claims = self.evidence.entry((segment, address)).or_default();
                claims.remove(&ifindex);
            }
            Effect::Sighted(sighted) => {
                let Sighted { mut sighting, counted, .. } = *sighted;
                let known = counted.and_then(|counted| self.model.challengers.get(&counted));
                sighting.challenger.frames = known.map_or(1, |known| known.frames);
                self.is_no_owner(&sighting);
                let told = self.incidents.sighted(sighting, self.now().now);
                self.opened(told);
            }
            Effect::Moved { mild, segment, address, sides } => {
                let (from, to) = *sides;
                let at = self.now().now;
                let told = self.incidents.moved(&segment, address, (from.as_ref(), &to), mild, at);
                self.opened(told);
            }
            Effect::Folded(segment, address, ifindex) => {
                let at = self.now().now;
                drop(self.incidents.folded(&segment, address, ifindex, at));
            }
            Effect::Spoke(segment, address, holder) => {
                let at = self.now().now;
                let told = self.incidents.holder_spoke(&segment, address, &holder, at);
                self.opened(told);
            }
            Effect::HoldInKernel(key, live) => drop(self.model.live.insert(key, live)),
            Effect::HoldInstead(key, ifindex, live) => {
                let before = self.model.live.get_mut(&key);
                let before = before.filter(|before| before.ifindex == ifindex);
                before.into_iter().for_each(|before| *before = live);
            }
            Effect::Listen(key, Station { mac: Mac(mac), ifindex, .. }) => {
                let live = self.model.live.get_mut(&key);
                let live = live.filter(|live| (live.ifindex, live.mac) == (ifindex, mac));
                live.into_iter().for_each(|live| live.seen_ns = 0);
            }
            Effect::ListenToOwner(segment, address) => {
                let key = segment.key(BRIDGE, address);
                self.model.owned.get_mut(&key).into_iter().for_each(|owned| owned.seen_ns = 0);
            }
            Effect::Gone { segment, target, mac, ifindex } => {
                let at = self.now().now;
                let key = target.address().map(|at| segment.key(BRIDGE, at));
                let over = self.incidents.gone(&(segment, target), (mac, ifindex), at)?;
                self.closed.push(over.clone());
                let live = key.and_then(|key| self.model.live.get(&key).copied());
                return Some(Event::Cleared { incident: Box::new(over), live });
            }
            Effect::ForgetInKernel(key, ifindex) => {
                if self.model.live.get(&key).is_some_and(|live| live.ifindex == ifindex) {
                    self.model.live.remove(&key);
                }
            }
            Effect::ForgetChallenger(challenger) => {
                self.model.challengers.remove(&challenger);
            }
            Effect::HoldMac(key, Mac(mac), ifindex) => {
                let key = abi::MacKey::new(key.bridge, 0, mac);
                self.model.macs.insert(key, abi::MacHolder { ifindex, flags: 0 });
            }
            Effect::ForgetMac(key, Mac(mac), ifindex) => {
                let key = abi::MacKey::new(key.bridge, 0, mac);
                if self.model.macs.get(&key).is_some_and(|holder| holder.ifindex == ifindex) {
                    self.model.macs.remove(&key);
                }
            }
            Effect::Probe { from: _, to, key } => {
                let port = self.ports.get(&to.ifindex);
                let there = port.is_some_and(|port| port.exists && port.carrier && port.answers);
                if there && let IpAddr::V4(address) = key.ip() {
                    self.frames.push_back((to.ifindex, arp(2, to.mac, address, address)));
                }
            }
            Effect::Recheck(Question::Holder { key, holder, challenger: _ }) => {
                let port = self.ports.get(&holder.ifindex);
                return Some(Event::HolderRead {
                    key,
                    live: self.model.live.get(&key).copied(),
                    port_works: port.is_some_and(TestPort::works),
                });
            }
            Effect::Recheck(Question::Ports { suspect, both }) => {
                let exists = |ifindex| self.ports.get(&ifindex).is_some_and(|port| port.exists);
                let second = suspect.seen.claim.station.ifindex;
                let works = self.ports.get(&suspect.holder).is_some_and(TestPort::works);
                let exist = works && (!both || exists(second));
                return Some(Event::PortsRead { suspect, exist });
            }
            Effect::Recheck(Question::Forwards(event)) => {
                let read = self.read(&event);
                return Some(Event::PortRead { event, read });
            }
            Effect::HoldBack(..) | Effect::ProbeRace(..) | Effect::Remark(..) => {}
        }
        None
    }
}

impl TestPort {
    fn works(&self) -> bool {
        self.exists && self.carrier && !self.blocked
    }
}

impl World {
    fn read(&self, event: &abi::Event) -> Read {
        let Self { model, ports, .. } = self;
        let down = ports.get(&event.holder_ifindex).is_some_and(|port| !port.carrier);
        let bound = self.is_bound(event.holder_ifindex, Mac(event.mac));
        Read {
            live: model.live.get(&event.key).copied().filter(|_| Read::needs_live(event.kind)),
            may_move: event.kind == EVENT_CLONE && down && !bound,
            refused: model.state.refused,
            macs: model.state.macs,
            blocked: ports.get(&event.ifindex).is_some_and(|port| port.blocked),
        }
    }

    /// Nobody is an impostor with what its own binding names.
    fn is_no_owner(&self, sighting: &crate::incident::Sighting) {
        let crate::incident::Sighting { segment, target, kind, challenger, .. } = sighting;
        let (Kind::Duplicate, Some(address)) = (kind, target.address()) else { return };
        let (Some(mac), Some(ifindex)) = (challenger.mac, challenger.ifindex) else { return };
        let interface = challenger.interface.clone().unwrap_or_default();
        let station = Station { mac, interface, ifindex };
        let holder = self.holder(segment, address);
        let own = holder.is_some_and(|holder| holder.allows(&station));
        assert!(!(own && challenger.role == Role::Impostor), "{sighting:?}");
    }
}

impl Play {
    /// Whoever is behind a port answers probes from now on, or does not.
    pub(super) fn answers(&mut self, port: u32, answers: bool) {
        self.world.ports.get_mut(&port).unwrap().answers = answers;
    }

    /// Two access ports and more, by their ifindexes.
    pub(super) fn new(access: &[u32], uplinks: &[u32]) -> Self {
        let mut world = World::new();
        access.iter().for_each(|ifindex| world.add_port(*ifindex, false));
        uplinks.iter().for_each(|ifindex| world.add_port(*ifindex, true));
        Self { arbiter: Arbiter::new(world.conflict, &Quota::default()), world }
    }

    /// Nothing has happened yet.
    pub(super) fn set_quiet(&mut self, quiet: Duration) {
        let conflict = Conflict { quiet, ..self.world.conflict };
        let flaps = Flaps::new(conflict.flap_window, conflict.flap_count);
        self.world.incidents = Incidents::new(quiet, flaps, 1);
        self.world.conflict = conflict;
        self.arbiter = Arbiter::new(conflict, &Quota::default());
    }

    pub(super) fn handle(&mut self, event: Event) {
        self.arbiter.handle(event, &mut self.world);
        while let Some((ifindex, frame)) = self.world.frames.pop_front() {
            self.send(ifindex, &frame);
        }
    }

    pub(super) fn send(&mut self, ifindex: u32, frame: &[u8]) {
        let Some(port) = self.world.ports.get(&ifindex).filter(|port| port.exists) else { return };
        let port = port.abi;
        self.world.model.watch(frame, &port);
        self.drain(ifindex);
    }

    /// Takes in what the program has told.
    pub(super) fn drain(&mut self, from: u32) {
        for event in std::mem::take(&mut self.world.model.events) {
            assert_eq!(event.ifindex, from);
            let read = self.world.read(&event);
            self.handle(Event::Frame { event, read });
        }
    }

    /// Lets time pass, with all that is due in it.
    pub(super) fn wait(&mut self, span: Duration) {
        let second = Duration::from_secs(1);
        let end = self.world.now().monotonic + span;
        loop {
            let now = self.world.now().monotonic;
            let due = self.arbiter.next_due().unwrap_or(end);
            let next = due.min(now + second).min(end).max(now);
            self.world.model.now_ns = u64::try_from(next.as_nanos()).unwrap();
            if self.arbiter.next_due().is_some_and(|due| due <= next) {
                self.handle(Event::Tick);
                assert!(self.arbiter.next_due().is_none_or(|due| due > next), "it stays due");
            }
            let silent = self.world.incidents.silent(self.world.now().now);
            self.handle(Event::Silent(silent));
            self.world.close();
            if next >= end {
                return;
            }
        }
    }

    /// The kernel has removed a port; `told` by netlink, or not yet.
    pub(super) fn end_port(&mut self, ifindex: u32, told: bool) {
        if let Some(port) = self.world.ports.get_mut(&ifindex) {
            port.exists = false;
        }
        if !told || self.world.ports.remove(&ifindex).is_none() {
            return;
        }
        let mut addresses = Vec::new();
        for (place, claims) in &mut self.world.evidence {
            if claims.remove(&ifindex).is_some() {
                addresses.push(place.clone());
            }
        }
        self.world.model.macs.retain(|_, holder| holder.ifindex != ifindex);
        self.handle(Event::PortGone { ifindex, addresses });
        let now = self.world.now().now;
        let closed = self.world.incidents.port_gone(ifindex, now);
        self.world.closed.extend(closed);
    }

    /// A port leaves the bridge. Its link is there still, and so is what was claimed behind it.
    pub(super) fn leave_bridge(&mut self, ifindex: u32) {
        if self.world.ports.remove(&ifindex).is_none() {
            return;
        }
        let claimed = self.world.evidence.iter().filter(|(_, of)| of.contains_key(&ifindex));
        let addresses = claimed.map(|(place, _)| place.clone()).collect();
        self.world.model.macs.retain(|_, holder| holder.ifindex != ifindex);
        self.handle(Event::PortGone { ifindex, addresses });
        let now = self.world.now().now;
        let closed = self.world.incidents.port_left(ifindex, now);
        self.world.closed.extend(closed);
    }

    pub(super) fn lose_carrier(&mut self, ifindex: u32) {
        if let Some(port) = self.world.ports.get_mut(&ifindex) {
            port.carrier = false;
            self.handle(Event::CarrierLost { ifindex });
        }
    }

    /// A binding is written, and what was disputed about the address is settled.
    pub(super) fn bind(&mut self, address: Ipv4Addr, to: Option<(u32, Mac)>) {
        let owned = to.map(|(ifindex, Mac(mac))| Owned {
            generation: 1,
            ifindex,
            mac,
            flags: OWNED_LEASED | OWNED_MAC | OWNED_PORT,
            ..Owned::zeroed()
        });
        self.bind_as(address, owned);
    }

    pub(super) fn bind_as(&mut self, address: Ipv4Addr, owned: Option<Owned>) {
        let (key, address) = (AddressKey::new(BRIDGE, 0, address.into()), address.into());
        let former = self.world.holder(&segment(), address).map(|holder| holder.binding);
        let now = self.world.now().now;
        let Some(owned) = owned else {
            self.world.model.owned.remove(&key);
            self.world.closed.extend(self.world.incidents.settled(
                &segment(),
                Target::Address(address),
                now,
            ));
            return;
        };
        self.world.model.owned.insert(key, owned);
        if let Some(holder) = self.world.holder(&segment(), address) {
            let owner = holder.claimant(now);
            let closed =
                self.world.incidents.bound(&segment(), address, (&holder.binding, &owner), now);
            self.world.closed.extend(closed);
        }
        self.handle(Event::Bound(vec![(segment(), address, former)]));
    }

    /// The maps are read anew, and the claims looked at.
    pub(super) fn read_maps(&mut self) {
        let mut live: Vec<_> = self.world.model.live.clone().into_iter().collect();
        live.sort_by_key(|(key, _)| *key);
        for (key, live) in live {
            self.handle(Event::Live(key, live));
        }
        let mut owned: Vec<_> = self.world.model.owned.clone().into_iter().collect();
        owned.retain(|(_, owned)| owned.seen_ns != 0);
        owned.sort_by_key(|(key, _)| *key);
        for (key, owned) in owned {
            self.handle(Event::Owner(key, owned));
        }
        let mut challengers: Vec<_> = self.world.model.challengers.clone().into_iter().collect();
        challengers.sort_by_key(|(key, _)| (key.key, key.ifindex, key.mac, key.kind));
        for (key, challenger) in challengers {
            let live = self.world.model.live.get(&key.key).copied();
            let live = live.filter(|_| Read::needs_live(key.kind));
            let blocked = self.world.ports.get(&key.ifindex).is_some_and(|port| port.blocked);
            self.handle(Event::Challenger { key, challenger, live, blocked });
        }
        let evidence = self.world.evidence.iter();
        let claims = evidence.map(|((segment, address), claims)| {
            (segment.clone(), *address, claims.values().cloned().collect())
        });
        self.handle(Event::Evidence(claims.collect()));
    }

    /// What is open, as kind and MACs of its claimants.
    pub(super) fn open(&self) -> Vec<(Kind, BTreeSet<Mac>)> {
        let told = |incident: &Incident| {
            let macs = incident.claimants.iter().filter_map(|claimant| claimant.mac);
            (incident.kind, macs.collect())
        };
        self.world.incidents.list(false).iter().map(told).collect()
    }

    pub(super) fn probes(&self) -> usize {
        let probes = self.world.log.iter().filter(|effect| matches!(effect, Effect::Probe { .. }));
        probes.count()
    }
}
