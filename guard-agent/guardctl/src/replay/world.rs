//! What is known while a capture is replayed, and where the arbiter's effects go: the program's
//! maps, and the incidents.

mod hands;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use bytemuck::Zeroable as _;
use guard_api::convert;
use guard_core::{
    arbiter::{self, Effect, Facts, Hands, Holder, Moment, Question, Rule, Sighted},
    evidence::{self, PortName, Station, Strength},
    homes,
    incident::{Claimant, Flaps, Incident, Incidents, Kind, Role, Silent, Target},
    lease::model::Binding,
    mac::Mac,
    owner::Owner,
    policy::AllowKind,
    rules,
    segment::Segment,
    time::Now,
};
use guard_ebpf::{
    abi::{
        AddressKey, BridgeCounters, ChallengerKey, DropKey, Drops, EVENT_ALLOWED, EVENT_CONTEST,
        EVENT_LIVE, EVENT_OWNER, EVENT_VIOLATION, Event, Live, MacHolder, MacKey, OFF_LINK,
        OWNED_GATEWAY, OWNED_MAC, Owned, PORT_UPLINK, Port, PortMac, STATION_BOUND,
        STRENGTH_ASSERT,
    },
    counters::DropReason,
    decide::Tables as _,
    model::Model,
};
use jiff::Timestamp;

use super::{
    Claim, Disputed, Dropped, Gateway, Ground, Leased, Settings, bridge, capture::Packet, is_of,
};

pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// The program takes a stamp of 0 for never: the clock of its maps is a day ahead of the capture's.
const AHEAD_NS: u64 = 86_400 * SECOND_NS;

/// Who says that an address is theirs.
type Claimed = (AddressKey, Mac, u32);

/// When it was seen, in nanoseconds, and whether ARP or ND said so.
#[derive(Clone, Copy)]
struct Span {
    first_ns: u64,
    last_ns: u64,
    asserted: bool,
}

pub(super) struct World<'a> {
    pub(super) model: Model,
    pub(super) ports: &'a [Port],
    names: Vec<PortName>,
    settings: &'a Settings,
    /// The bridges of [`bridge`], by inner VLAN.
    bridges: BTreeMap<u16, Arc<str>>,
    incidents: Incidents,
    claims: BTreeMap<Claimed, Span>,
    closed: Vec<Incident>,
}

impl<'a> World<'a> {
    pub(super) fn new(settings: &'a Settings, ground: &'a Ground) -> Self {
        let mut model = Model::new(AHEAD_NS);
        let mut bridges = BTreeMap::new();
        let homes = homes::of_gateways(settings.homes());
        for (vlan, inner_vlan) in ground.segments.iter().copied().chain([(0, 0)]) {
            // The name of an interface has no space: none of these is one that somebody has given.
            let name = || match inner_vlan {
                0 => Arc::from(settings.bridge.as_str()),
                inner_vlan => Arc::from(format!("{} {inner_vlan}", settings.bridge)),
            };
            bridges.entry(inner_vlan).or_insert_with(name);
            let own = |gateway: &Gateway| is_of(gateway.vlan, (vlan, inner_vlan));
            let gateways = settings.gateways.iter().zip(&homes);
            for (Gateway { address, mac, .. }, home) in gateways.filter(|(one, _)| own(one)) {
                let homes = u32::from(*home);
                let mut owned = Owned { flags: OWNED_GATEWAY, homes, ..Owned::zeroed() };
                if let Some(Mac(mac)) = mac {
                    owned.flags |= OWNED_MAC;
                    owned.mac = *mac;
                }
                model.owned.insert(key(vlan, inner_vlan, *address), owned);
            }
        }
        model.mode.enforce = u32::from(settings.enforcement.mode.enforces());
        for (port, name) in ground.ports.iter().zip(&ground.interfaces) {
            for lease in settings.leases.iter().filter(|lease| lease.is_on(name)) {
                let key = key(lease.vlan, 0, lease.address);
                model.owned.insert(key, lease.owned(port.ifindex));
                if let Some((mac, holder, bound)) = lease.bound_mac(&key, port.ifindex) {
                    model.macs.insert(mac, holder);
                    model.bound_macs.insert(bound, STATION_BOUND);
                }
            }
        }
        for of in bridges.keys().copied() {
            let here = ground.on_link.iter().filter(|(_, inner_vlan, _)| *inner_vlan == of);
            let on_link: Vec<_> = here.map(|(vlan, _, net)| (*vlan, *net)).collect();
            let rules = if of == 0 { &settings.rules[..] } else { &[] };
            for (vlan, net, prefix) in rules::prefixes(rules, &on_link, &[]) {
                let key = key(vlan, of, net.network());
                model.add_prefix(key, key.prefix_len(net.prefix_len()), prefix);
            }
        }
        let bridge: Arc<str> = Arc::from(settings.bridge.as_str());
        let name = |(name, port): (&String, &Port)| PortName {
            interface: Arc::from(name.as_str()),
            bridge: bridge.clone(),
            uplink: port.kind == PORT_UPLINK,
        };
        let conflict = &settings.conflict;
        Self {
            model,
            ports: &ground.ports,
            names: ground.interfaces.iter().zip(&ground.ports).map(name).collect(),
            settings,
            bridges,
            incidents: Incidents::new(
                conflict.quiet,
                Flaps::new(conflict.flap_window, conflict.flap_count),
                1,
            ),
            claims: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    pub(super) fn has_incidents(&self) -> bool {
        !self.incidents.count().is_empty()
    }

    /// Who has been silent. A holder that goes on speaking is not reported each time.
    pub(super) fn silent(&mut self) -> Vec<Silent> {
        if self.incidents.count().is_empty() {
            return Vec::new();
        }
        for (key, live) in self.model.live.iter().filter(|(_, live)| live.seen_ns != 0) {
            let segment = self.segment(key);
            if self.incidents.kind(&segment, Target::Address(key.ip())).is_some() {
                let holder = self.claimant(live.mac, live.ifindex, live.seen_ns, 0);
                self.incidents.spoke(&segment, key.ip(), &holder);
            }
        }
        self.incidents.silent(now(self.model.now_ns))
    }

    pub(super) fn close(&mut self) {
        self.closed.extend(self.incidents.close(now(self.model.now_ns)));
    }

    /// Whether a MAC may go from one port to the other by a rule.
    pub(super) fn may_move(&self, from: u32, to: u32) -> bool {
        let name = |ifindex| self.port(ifindex).map(|port| port.interface);
        name(from)
            .zip(name(to))
            .is_some_and(|(from, to)| rules::are_one_group(&self.settings.rules, &from, &to))
    }

    /// Notes who was seen with an address, for the report.
    pub(super) fn note(&mut self, event: &Event) {
        match event.kind {
            EVENT_LIVE | EVENT_OWNER | EVENT_CONTEST | EVENT_VIOLATION | EVENT_ALLOWED => {}
            _ => return,
        }
        let at = (event.key, Mac(event.mac), event.ifindex);
        let new = Span { first_ns: event.time_ns, last_ns: event.time_ns, asserted: false };
        let span = self.claims.entry(at).or_insert(new);
        span.last_ns = event.time_ns;
        span.asserted |= event.strength == STRENGTH_ASSERT;
    }

    /// Notes how long the live claimant of an address was seen.
    fn stay(&mut self, key: &AddressKey) {
        let Some(live) = self.model.live.get(key) else { return };
        if let Some(span) = self.claims.get_mut(&(*key, Mac(live.mac), live.ifindex)) {
            span.last_ns = span.last_ns.max(live.seen_ns);
            span.asserted |= live.strength == STRENGTH_ASSERT;
        }
    }

    fn segment(&self, key: &AddressKey) -> Segment {
        let bridge = self.bridges.get(&key.inner_vlan).cloned();
        Segment::of(bridge.unwrap_or_default(), key)
    }

    fn key(&self, segment: &Segment, address: IpAddr) -> AddressKey {
        key(segment.vlan, self.inner_vlan(&segment.bridge), address)
    }

    fn inner_vlan(&self, bridge: &str) -> u16 {
        let mut all = self.bridges.iter();
        all.find(|(_, name)| ***name == *bridge).map_or(0, |(inner_vlan, _)| *inner_vlan)
    }

    fn claimant(&self, mac: [u8; 6], port: u32, seen_ns: u64, frames: u64) -> Claimant {
        let Now { boot, wall } = now(seen_ns);
        Claimant {
            role: Role::Claimant,
            mac: Some(Mac(mac)),
            interface: self.port(port).map(|port| port.interface),
            ifindex: Some(port),
            owner: None,
            first_seen: wall,
            last_seen: wall,
            last: boot,
            frames,
            dropped: 0,
            is_dropped: false,
            counter: 0,
            gone: false,
        }
    }

    fn is_uplink(&self, ifindex: u32) -> bool {
        self.port(ifindex).is_some_and(|port| port.uplink)
    }

    /// Whether a MAC on two interfaces is one host, whose frames were captured on their way from one
    /// to the other.
    fn is_on_its_way(&self, one: (Option<Mac>, u32), other: (Option<Mac>, u32)) -> bool {
        one.0 == other.0 && self.is_uplink(one.1) && self.is_uplink(other.1)
    }

    /// What broke the rules, in the order of interfaces and reasons.
    pub(super) fn drops(&self) -> Vec<Dropped> {
        let mut keys: Vec<_> = self.model.drops.iter().collect();
        keys.sort_by_key(|(key, _)| (key.ifindex, key.reason));
        let row = |(key, drops): (&DropKey, &Drops)| {
            let reason = DropReason::ALL.get(usize::try_from(key.reason).ok()?)?.name();
            let interface = self.port(key.ifindex)?.interface.to_string();
            let Drops { dropped, would_drop, .. } = *drops;
            Some(Dropped { interface, reason, dropped, would_drop })
        };
        keys.into_iter().filter_map(row).collect()
    }

    /// What came of it all.
    pub(super) fn end(mut self) -> (Vec<Claim>, Vec<Disputed>, BridgeCounters) {
        for key in self.model.live.keys().copied().collect::<Vec<_>>() {
            self.stay(&key);
        }
        // Frames since the last time that a challenger was reported.
        for (of, known) in self.model.challengers.clone() {
            let ChallengerKey { key, ifindex, mac, kind, .. } = of;
            if let Some(span) = self.claims.get_mut(&(key, Mac(mac), ifindex)) {
                span.last_ns = span.last_ns.max(known.seen_ns);
            }
            // Zero is the entry for all MACs of a port.
            if mac != [0; 6] && (kind == EVENT_CONTEST || kind == EVENT_VIOLATION) {
                let again = self.claimant(mac, ifindex, known.seen_ns, known.frames);
                self.incidents.spoke(&self.segment(&key), key.ip(), &again);
            }
        }
        let claims = self.claims.iter().map(|((key, mac, ifindex), span)| Claim {
            address: key.ip(),
            vlan: key.vlan,
            inner_vlan: key.inner_vlan,
            mac: *mac,
            interface: self.port(*ifindex).map_or_else(String::new, |p| p.interface.to_string()),
            asserted: span.asserted,
            first_seen: now(span.first_ns).wall,
            last_seen: now(span.last_ns).wall,
        });
        let open = self.incidents.list(false);
        let conflicts = self.closed.iter().chain(&open).map(|incident| {
            let mut conflict = convert::conflict(incident);
            // The numbers of ports are our own.
            conflict.claimants.iter_mut().for_each(|claimant| claimant.ifindex = 0);
            conflict.bridge.clone_from(&self.settings.bridge);
            let inner_vlan = self.inner_vlan(&incident.segment.bridge);
            Disputed { inner_vlan, conflict }
        });
        (claims.collect(), conflicts.collect(), self.model.counters)
    }
}

/// A capture knows those leases that it is told of, and no port ends in it.
impl Facts for World<'_> {
    fn bridge(&self, ifindex: u32) -> Option<(Arc<str>, Mac)> {
        let mut all = self.bridges.iter();
        let (_, name) = all.find(|(inner_vlan, _)| bridge(**inner_vlan) == ifindex)?;
        Some((name.clone(), Mac::default()))
    }

    fn bridge_named(&self, name: &str) -> Option<(u32, Mac)> {
        Some((bridge(self.inner_vlan(name)), Mac::default()))
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        let at = self.ports.iter().position(|port| port.ifindex == ifindex)?;
        self.names.get(at).cloned()
    }

    fn holder(&self, segment: &Segment, address: IpAddr) -> Option<Holder> {
        let of = |lease: &&Leased| lease.address == address && lease.vlan == segment.vlan;
        let lease = self.settings.leases.iter().find(of)?;
        let owned = self.model.owned.get(&self.key(segment, address))?;
        let binding = Binding {
            declared: true,
            mac: lease.mac,
            interface: lease.interface.as_deref().map(Arc::from),
            ifindex: Some(owned.ifindex),
            ..Binding::default()
        };
        let owner = Owner { sandbox: lease.sandbox.as_deref()?.into(), lifecycle: "".into() };
        Some(Holder { owner, generation: owned.generation, binding })
    }

    fn is_reserved(&self, segment: &Segment, address: IpAddr) -> bool {
        let owned = self.model.owned.get(&self.key(segment, address));
        owned.is_some_and(|owned| owned.flags & OWNED_GATEWAY != 0)
    }

    fn is_bound(&self, ifindex: u32, Mac(mac): Mac) -> bool {
        self.model.bound_macs.contains_key(&PortMac::new(ifindex, mac))
    }

    fn has_declared(&self, ifindex: u32) -> bool {
        let name = self.port(ifindex).map(|port| port.interface);
        name.is_some_and(|name| self.settings.leases.iter().any(|lease| lease.is_on(&name)))
    }

    fn is_gateway(&self, _: &str, ifindex: u32, Mac(mac): Mac) -> bool {
        let mut gateways = self.model.owned.iter().filter(|(_, o)| o.flags & OWNED_GATEWAY != 0);
        gateways.any(|(key, owned)| {
            let live = self.model.live.get(key);
            live.is_some_and(|live| (live.mac, live.ifindex) == (mac, ifindex))
                || (owned.flags & OWNED_MAC != 0 && owned.mac == mac)
        })
    }

    fn behind(&self, _: u32) -> Option<Owner> {
        None
    }

    fn rule(&self, segment: &Segment, address: IpAddr) -> Option<Rule> {
        if self.inner_vlan(&segment.bridge) != 0 {
            return None;
        }
        let rule = rules::declared(&self.settings.rules, segment.vlan, address)?;
        Some(Rule { port: rule.only_port().cloned(), is_virtual: rule.kind == AllowKind::Vrrp })
    }

    fn is_off_prefix(&self, segment: &Segment, address: IpAddr) -> bool {
        let prefix = self.model.prefix(&self.key(segment, address));
        prefix.is_some_and(|prefix| prefix.on_link == OFF_LINK)
    }

    fn lives(&self, segment: &Segment, address: IpAddr, mac: Mac, ifindex: u32) -> bool {
        let live = self.model.live.get(&self.key(segment, address));
        live.is_some_and(|live| (Mac(live.mac), live.ifindex) == (mac, ifindex))
    }

    fn address_of(&self, mac: Mac, ifindex: u32) -> Option<(Segment, IpAddr)> {
        let mut live = self.model.live.iter();
        let is = |live: &Live| (Mac(live.mac), live.ifindex) == (mac, ifindex);
        let (key, _) = live.find(|(_, live)| is(live))?;
        Some((self.segment(key), key.ip()))
    }

    fn is_host_mac(&self, _: u32, _: Mac) -> bool {
        false
    }

    fn is_beside(&self, _: Mac) -> bool {
        false
    }

    fn claims(&self, segment: &Segment, address: IpAddr) -> Vec<evidence::Claim> {
        let key = self.key(segment, address);
        let all = self.claims.iter().filter(|((of, ..), _)| *of == key);
        let claim = |((_, mac, ifindex), span): (&Claimed, &Span)| {
            let interface = self.port(*ifindex)?.interface;
            Some(evidence::Claim {
                station: Station { mac: *mac, interface, ifindex: *ifindex },
                strength: if span.asserted { Strength::Assert } else { Strength::Use },
                first: Duration::from_nanos(span.first_ns),
                seen: Duration::from_nanos(span.last_ns),
            })
        };
        all.filter_map(claim).collect()
    }

    fn is_host(&self, _: &Segment, _: IpAddr) -> bool {
        false
    }

    fn sender(&self, _: &Segment, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn can_ask(&self) -> bool {
        false
    }

    fn sandbox(&self, _: &Station) -> Option<Owner> {
        None
    }

    fn is_allowed(&self, segment: &Segment, address: IpAddr, station: &Station) -> bool {
        rules::allow(&self.settings.rules, segment.vlan, address, station)
    }

    fn is_virtual_router(&self, _: &Segment, interface: &str) -> bool {
        let mut rules = self.settings.rules.iter();
        rules.any(|rule| rule.kind == AllowKind::Vrrp && rule.is_for(interface))
    }

    fn incident(&self, segment: &Segment, target: Target) -> Option<Kind> {
        self.incidents.kind(segment, target)
    }
}

fn key(vlan: u16, inner_vlan: u16, address: IpAddr) -> AddressKey {
    AddressKey { inner_vlan, ..AddressKey::new(bridge(inner_vlan), vlan, address) }
}

/// When a packet came, on the clock of the program's maps.
pub(super) fn time_ns(packet: &Packet<'_>) -> u64 {
    packet.time_ns.saturating_add(AHEAD_NS)
}

/// The capture's clock is both clocks.
fn now(time_ns: u64) -> Now {
    let wall = Timestamp::from_nanosecond(time_ns.saturating_sub(AHEAD_NS).into());
    Now { boot: Duration::from_nanos(time_ns), wall: wall.unwrap_or(Timestamp::UNIX_EPOCH) }
}
