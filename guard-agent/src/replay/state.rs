//! What is known while a capture is replayed: the program's maps, and the incidents.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use bytemuck::Zeroable as _;
use guard_api::proto;
use guard_core::{
    incident::{Claimant, Flaps, Incident, Incidents, Kind, Role, Sighting, Target},
    mac::Mac,
    policy::Conflict,
    segment::Segment,
    time::Now,
};
use guard_ebpf::{
    abi::{
        AddressKey, BridgeCounters, ChallengerKey, EVENT_CLONE, EVENT_CONTEST, EVENT_LIVE,
        EVENT_OWNER, EVENT_VIOLATION, Event, Live, OWNED_GATEWAY, OWNED_MAC, Owned, PORT_ACCESS,
        PORT_ALLOW_TAGGED, PORT_UPLINK, Port, Prefix, STRENGTH_ASSERT,
    },
    model::Model,
};
use jiff::Timestamp;

use super::{BRIDGE, Claim, Ground, Settings, capture::Packet};
use crate::server::convert;

const SECOND_NS: u64 = 1_000_000_000;
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

pub(super) struct Replay<'a> {
    model: Model,
    incidents: Incidents,
    conflict: Conflict,
    gateways: Vec<IpAddr>,
    interfaces: &'a [String],
    ports: &'a [Port],
    claims: BTreeMap<Claimed, Span>,
    closed: Vec<Incident>,
    looked_ns: u64,
}

/// A port of the replay.
pub(super) fn port(ifindex: u32, uplink: bool) -> Port {
    let kind = if uplink { PORT_UPLINK } else { PORT_ACCESS };
    Port { ifindex, bridge: BRIDGE, kind, flags: PORT_ALLOW_TAGGED, ..Port::zeroed() }
}

impl<'a> Replay<'a> {
    pub(super) fn new(settings: &Settings, ground: &'a Ground) -> Self {
        let mut model = Model::new(AHEAD_NS);
        for (key, len) in &ground.prefixes {
            let on_link = Prefix { on_link: 1, ..Prefix::default() };
            model.add_prefix(*key, *len, on_link);
        }
        for (address, mac) in &settings.gateways {
            let mut owned = Owned { flags: OWNED_GATEWAY, ..Owned::zeroed() };
            if let Some(Mac(mac)) = mac {
                owned.flags |= OWNED_MAC;
                owned.mac = *mac;
            }
            for (vlan, inner_vlan) in &ground.segments {
                let key = AddressKey::new(BRIDGE, *vlan, *address);
                model.owned.insert(AddressKey { inner_vlan: *inner_vlan, ..key }, owned);
            }
        }
        let conflict = Conflict::default();
        Self {
            model,
            incidents: Incidents::new(
                conflict.quiet,
                Flaps::new(conflict.flap_window, conflict.flap_count),
                1,
            ),
            conflict,
            gateways: settings.gateways.iter().map(|(address, _)| *address).collect(),
            interfaces: &ground.interfaces,
            ports: &ground.ports,
            claims: BTreeMap::new(),
            closed: Vec::new(),
            looked_ns: 0,
        }
    }

    pub(super) fn frame(&mut self, packet: &Packet<'_>) {
        let Some(port) = self.ports.get(packet.interface) else { return };
        // Several interfaces may have been read one after the other.
        self.model.now_ns = self.model.now_ns.max(packet.time_ns.saturating_add(AHEAD_NS));
        if self.model.now_ns - self.looked_ns >= SECOND_NS {
            self.look();
        }
        self.model.watch(packet.bytes, port);
        for event in std::mem::take(&mut self.model.events) {
            self.event(&event);
        }
    }

    /// Closes what has been quiet. A holder that goes on speaking is not told of each time.
    fn look(&mut self) {
        self.looked_ns = self.model.now_ns;
        if self.incidents.count().is_empty() {
            return;
        }
        for (key, live) in &self.model.live {
            let segment = segment(key);
            if self.incidents.kind(&segment, Target::Address(key.ip())).is_some() {
                let holder = self.claimant(Role::Claimant, live.mac, live.ifindex, live.seen_ns, 0);
                self.incidents.spoke(&segment, key.ip(), &holder);
            }
        }
        self.closed.extend(self.incidents.close(now(self.model.now_ns)));
    }

    fn event(&mut self, event: &Event) {
        match event.kind {
            EVENT_LIVE | EVENT_OWNER => self.claimed(event),
            EVENT_CONTEST => self.contest(event),
            EVENT_VIOLATION => {
                self.claimed(event);
                // Nobody but gateways is declared here.
                self.sighted(event, Kind::Gateway, None, Role::Impostor);
            }
            EVENT_CLONE => {
                let (mac, ifindex) = (event.holder_mac, event.holder_ifindex);
                let holder = self.claimant(Role::Claimant, mac, ifindex, event.time_ns, 0);
                self.sighted(event, Kind::Clone, Some(holder), Role::Claimant);
            }
            // Counted.
            _ => {}
        }
    }

    fn claimed(&mut self, event: &Event) {
        let at = (event.key, Mac(event.mac), event.ifindex);
        let new = Span { first_ns: event.time_ns, last_ns: event.time_ns, asserted: false };
        let span = self.claims.entry(at).or_insert(new);
        span.last_ns = event.time_ns;
        span.asserted |= event.strength == STRENGTH_ASSERT;
    }

    /// A claim on an address that is live by another.
    fn contest(&mut self, event: &Event) {
        self.claimed(event);
        let Some(live) = self.model.live.get(&event.key).copied() else { return };
        let uplink = |ifindex| {
            self.ports.iter().any(|port| port.ifindex == ifindex && port.kind == PORT_UPLINK)
        };
        let silent = Duration::from_nanos(event.time_ns.saturating_sub(live.seen_ns));
        let moved = match live.ifindex == event.ifindex {
            // claims.md A33: a port has one sandbox, and that another MAC.
            true => !uplink(live.ifindex),
            // The same host, seen on its way.
            false => live.mac == event.mac && uplink(live.ifindex) && uplink(event.ifindex),
        };
        // claims.md A34.
        if moved || silent >= self.conflict.live_window {
            return self.take_over(event, live);
        }
        let gateway = self.gateways.contains(&event.key.ip());
        let kind = if gateway { Kind::Gateway } else { Kind::Duplicate };
        let holder = self.claimant(Role::Claimant, live.mac, live.ifindex, live.seen_ns, 0);
        self.sighted(event, kind, Some(holder), Role::Claimant);
    }

    fn take_over(&mut self, event: &Event, old: Live) {
        self.stay(&event.key, &old);
        let Event { time_ns, key, ifindex, mac, strength, .. } = *event;
        let new = Live { first_ns: time_ns, seen_ns: time_ns, ifindex, mac, strength, ..old };
        self.model.live.insert(key, new);
        self.model.challengers.remove(&ChallengerKey::new(&key, ifindex, mac, EVENT_CONTEST));
    }

    /// Notes how long a claimant was seen.
    fn stay(&mut self, key: &AddressKey, live: &Live) {
        if let Some(span) = self.claims.get_mut(&(*key, Mac(live.mac), live.ifindex)) {
            span.last_ns = span.last_ns.max(live.seen_ns);
            span.asserted |= live.strength == STRENGTH_ASSERT;
        }
    }

    fn sighted(&mut self, event: &Event, kind: Kind, holder: Option<Claimant>, role: Role) {
        let Event { time_ns, key, ifindex, mac, .. } = *event;
        let counted = ChallengerKey::new(&key, ifindex, mac, event.kind);
        let frames = self.model.challengers.get(&counted).map_or(1, |known| known.frames.max(1));
        let challenger = self.claimant(role, mac, ifindex, time_ns, frames);
        let target = match key.ip() {
            IpAddr::V6(none) if none.is_unspecified() => Target::Mac(Mac(mac)),
            address => Target::Address(address),
        };
        let sighting = Sighting { segment: segment(&key), target, kind, holder, challenger };
        self.incidents.sighted(sighting, now(time_ns));
    }

    fn claimant(&self, role: Role, mac: [u8; 6], port: u32, seen_ns: u64, frames: u64) -> Claimant {
        let Now { boot, wall } = now(seen_ns);
        Claimant {
            role,
            mac: Some(Mac(mac)),
            interface: Some(Arc::from(self.interface(port))),
            ifindex: Some(port),
            owner: None,
            first_seen: wall,
            last_seen: wall,
            last: boot,
            frames,
            gone: false,
        }
    }

    fn interface(&self, ifindex: u32) -> &'a str {
        let at = self.ports.iter().position(|port| port.ifindex == ifindex);
        at.and_then(|at| self.interfaces.get(at)).map_or("", String::as_str)
    }

    /// What came of it all.
    pub(super) fn end(mut self) -> (Vec<Claim>, Vec<proto::Conflict>, BridgeCounters) {
        for (key, live) in self.model.live.clone() {
            self.stay(&key, &live);
        }
        // Frames since the last time that a challenger was told.
        for (of, known) in self.model.challengers.clone() {
            let ChallengerKey { key, ifindex, mac, kind, .. } = of;
            if let Some(span) = self.claims.get_mut(&(key, Mac(mac), ifindex)) {
                span.last_ns = span.last_ns.max(known.seen_ns);
            }
            // Zero is the entry for all MACs of a port.
            if mac != [0; 6] && (kind == EVENT_CONTEST || kind == EVENT_VIOLATION) {
                let again =
                    self.claimant(Role::Claimant, mac, ifindex, known.seen_ns, known.frames);
                self.incidents.spoke(&segment(&key), key.ip(), &again);
            }
        }
        let claims = self.claims.iter().map(|((key, mac, ifindex), span)| Claim {
            address: key.ip(),
            vlan: key.vlan,
            mac: *mac,
            interface: self.interface(*ifindex).to_owned(),
            asserted: span.asserted,
            first_seen: now(span.first_ns).wall,
            last_seen: now(span.last_ns).wall,
        });
        let open = self.incidents.list(false);
        let conflicts = self.closed.iter().chain(&open).map(|incident| {
            let mut conflict = convert::conflict(incident);
            // The numbers of ports are our own.
            conflict.claimants.iter_mut().for_each(|claimant| claimant.ifindex = 0);
            conflict
        });
        (claims.collect(), conflicts.collect(), self.model.counters)
    }
}

fn segment(key: &AddressKey) -> Segment {
    Segment::new("", key.vlan)
}

/// The capture's clock is both clocks.
fn now(time_ns: u64) -> Now {
    let wall = Timestamp::from_nanosecond(time_ns.saturating_sub(AHEAD_NS).into());
    Now { boot: Duration::from_nanos(time_ns), wall: wall.unwrap_or(Timestamp::UNIX_EPOCH) }
}
