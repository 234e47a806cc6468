//! A bridge in memory: the program's maps, ports that come and go, stations that answer or do not,
//! and the incidents.

mod facts;
mod play;

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
    /// It takes questions.
    pub(super) takes: bool,
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
    /// What a macvlan over the bridge has.
    pub(super) above: Option<(IpAddr, Mac)>,
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
            above: None,
        }
    }

    pub(super) fn add_port(&mut self, ifindex: u32, uplink: bool) {
        let kind = if uplink { PORT_UPLINK } else { PORT_ACCESS };
        let abi = Port { ifindex, bridge: BRIDGE, kind, ..Port::zeroed() };
        let (interface, bridge) = (format!("veth{ifindex}").into(), "br0".into());
        let name = PortName { interface, bridge, uplink };
        let port = TestPort {
            abi,
            name,
            exists: true,
            carrier: true,
            answers: true,
            takes: true,
            blocked: false,
        };
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
                if port.is_some_and(|port| !port.takes) {
                    return Some(Event::NotAsked { key, station: to });
                }
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
            Effect::HoldBack(..)
            | Effect::HostAsks { .. }
            | Effect::ProbeRace(..)
            | Effect::Remark(..) => {}
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
            used: ports
                .get(&event.ifindex)
                .map_or_else(PortUse::default, |port| PortUse::new(&port.abi, &model.state)),
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
