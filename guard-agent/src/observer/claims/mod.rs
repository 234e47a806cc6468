//! From an event of the program to evidence, or to a conflict.

mod clones;
mod notes;
mod upkeep;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use aya::maps::{HashMap as KernelMap, LpmTrie, MapData};
use guard_ebpf::abi::{
    AddressKey, Challenger, ChallengerKey, EVENT_ALLOWED, EVENT_BRIDGE_MAC, EVENT_CLONE,
    EVENT_CONTEST, EVENT_LIVE, EVENT_OPAQUE, EVENT_OWNER, EVENT_PROBE, EVENT_ROUTER,
    EVENT_VIOLATION, Event, Live, Owned, Prefix, STRENGTH_ASSERT,
};
use ipnet::IpNet;
use tokio::time::Instant;

use clones::Suspect;
use guard_core::{
    evidence::{Claim, EvidenceView as _, Station, Strength},
    incident::{Claimant, Kind, Role, Sighting, Target},
    mac::Mac,
    owner::Owner,
    policy::{Allow, Conflict},
    segment::Segment,
};
use notes::Notes;

use super::{
    Parts,
    doubt::{Doubt, Facts, Verdict},
    rules,
};
use crate::{
    clock,
    datapath::{Snapshot, Table},
    events::Alerts,
    live::LiveSet,
    network::{
        link::{exists, has_carrier},
        probe::{Prober, probe},
        topology::Bridge,
    },
    owners::Bindings,
};

/// A wire claim is asked for so often, a sweep apart, before it is believed to be over.
const AGING_PROBES: u32 = 3;

/// Turns what the program noted into evidence and conflicts.
pub struct Claims {
    live: Arc<LiveSet>,
    alerts: Arc<Alerts>,
    bindings: Arc<Bindings>,
    conflict: Conflict,
    live_map: Table<Live>,
    challengers: KernelMap<MapData, ChallengerKey, Challenger>,
    prefix_map: LpmTrie<MapData, AddressKey, Prefix>,
    prefixes: Vec<(Segment, IpNet)>,
    /// The allow rules, by bridge.
    rules: HashMap<Arc<str>, Vec<Allow>>,
    /// The ports without a carrier.
    down: HashSet<u32>,
    prober: Arc<Prober>,
    /// The watched bridges that exist, by ifindex.
    bridges: HashMap<u32, (Arc<str>, Mac)>,
    doubts: BTreeMap<AddressKey, Pending>,
    /// How often a claim that aged was asked for, by address and port.
    aging: HashMap<(AddressKey, u32), u32>,
    suspects: Vec<Suspect>,
    /// Addresses in conflict, each with the claimant that the lease engine is yet to hear of.
    told: Vec<(Segment, IpAddr, Option<Station>)>,
    notes: Notes,
}

struct Pending {
    doubt: Doubt,
    holder: Station,
    challenger: Claim,
    look_again: Duration,
}

/// A claim with all that is needed to act on it.
struct Seen {
    key: AddressKey,
    segment: Segment,
    address: IpAddr,
    claim: Claim,
}

impl Seen {
    /// What an incident about it is about: a frame without an address is about its MAC.
    fn target(&self) -> Target {
        match self.address {
            IpAddr::V6(none) if none.is_unspecified() => Target::Mac(self.claim.station.mac),
            address => Target::Address(address),
        }
    }
}

impl Claims {
    pub(super) fn new(
        parts: &Parts,
        live_map: Table<Live>,
        challengers: KernelMap<MapData, ChallengerKey, Challenger>,
        prefix_map: LpmTrie<MapData, AddressKey, Prefix>,
        prober: Arc<Prober>,
    ) -> Self {
        Self {
            live: parts.live.clone(),
            alerts: parts.alerts.clone(),
            bindings: parts.bindings.clone(),
            conflict: parts.conflict,
            live_map,
            challengers,
            prefix_map,
            prefixes: parts.prefixes.clone(),
            rules: parts.bridges.iter().map(|b| (b.name.clone(), b.allow.clone())).collect(),
            down: HashSet::new(),
            prober,
            bridges: HashMap::new(),
            doubts: BTreeMap::new(),
            aging: HashMap::new(),
            suspects: Vec::new(),
            told: Vec::new(),
            notes: Notes::default(),
        }
    }

    /// Takes one record of the ring. What follows from a conflict, beside the alert and the claim
    /// itself, waits for [`Claims::follow_up`].
    pub fn event(&mut self, event: Event) {
        let Event {
            time_ns, key, ifindex, holder_ifindex, mac, holder_mac, kind, strength, ..
        } = event;
        let time = Duration::from_nanos(time_ns);
        let Some(seen) = self.seen(key, ifindex, Mac(mac), strength, time, time) else { return };
        match kind {
            EVENT_LIVE | EVENT_OWNER => self.heard(&seen),
            EVENT_VIOLATION => self.violation(seen),
            EVENT_CONTEST => self.contest(seen, holder_ifindex, Mac(holder_mac)),
            EVENT_PROBE => {
                let Seen { segment, address, claim, .. } = &seen;
                self.note("probe for an address that is in use", segment, *address, &claim.station);
            }
            EVENT_CLONE => self.cloned(seen, holder_ifindex),
            EVENT_BRIDGE_MAC => self.bridge_mac(&seen),
            EVENT_ALLOWED => self.allowed(seen),
            EVENT_ROUTER => self.complain("a port acts as a router", &seen),
            EVENT_OPAQUE => self.complain("a frame cannot be read to its end", &seen),
            _ => tracing::debug!(kind, "the program told of something unknown"),
        }
    }

    fn note(&mut self, what: &str, segment: &Segment, address: IpAddr, station: &Station) {
        let Station { mac, interface, ifindex: _ } = station;
        if let Some(left_out) = self.notes.may_write(clock::monotonic()) {
            tracing::info!(%segment, %address, %mac, port = %interface, left_out, "{what}");
        }
    }

    /// What people should know of a port, though it is about no address.
    fn complain(&mut self, what: &str, seen: &Seen) {
        let Seen { segment, claim: Claim { station: Station { mac, interface, .. }, .. }, .. } =
            seen;
        if let Some(left_out) = self.notes.may_write(clock::monotonic()) {
            tracing::warn!(%segment, %mac, port = %interface, left_out, "{what}");
        }
    }

    /// None if the port or the bridge is gone: what was behind it is over.
    fn seen(
        &self,
        key: AddressKey,
        ifindex: u32,
        mac: Mac,
        strength: u8,
        first: Duration,
        seen: Duration,
    ) -> Option<Seen> {
        let (bridge, _) = self.bridges.get(&key.bridge)?;
        let interface = self.live.port(ifindex)?.interface;
        let strength = if strength == STRENGTH_ASSERT { Strength::Assert } else { Strength::Use };
        let station = Station { mac, interface, ifindex };
        let claim = Claim { station, strength, first, seen };
        let segment = Segment::new(bridge.clone(), key.vlan);
        Some(Seen { key, segment, address: key.ip(), claim })
    }

    /// A holder was heard: the first claimant, the declared owner, or one whose word is in doubt.
    fn heard(&mut self, seen: &Seen) {
        let Seen { key, segment, address, claim } = seen;
        if self.doubts.get(key).is_some_and(|pending| pending.holder == claim.station) {
            self.judge(*key, true);
        }
        if self.alerts.is_disputed(segment, *address) {
            let owner = self.bindings.holder(segment, *address);
            let owner = owner.filter(|owner| owner.allows(&claim.station));
            let spoke = match owner {
                Some(owner) => owner.claimant(clock::now()),
                None => claimant(Role::Claimant, claim, 0, None),
            };
            self.alerts.holder_spoke(segment, *address, &spoke);
        }
        self.claimed(segment, *address, claim.clone());
    }

    /// A port is over its quota: one incident for the port, whatever its frames were about.
    pub fn flooded(&self, event: &Event, refused: u64) {
        let Event { time_ns, key, ifindex, mac, strength, .. } = *event;
        let time = Duration::from_nanos(time_ns);
        let seen = self.seen(key, ifindex, Mac(mac), strength, time, time);
        let Some(Seen { segment, claim, .. }) = seen else { return };
        let behind = self.bindings.behind(ifindex);
        let flooder = claimant(Role::Claimant, &claim, refused, behind);
        // Its MACs are as many as it likes.
        let challenger = Claimant { mac: None, ..flooder };
        let sighting = Sighting {
            segment: Segment::new(segment.bridge.clone(), 0),
            target: Target::Port(ifindex),
            kind: Kind::Flood,
            holder: None,
            challenger,
        };
        let latency = clock::monotonic().saturating_sub(claim.seen);
        self.alerts.sighted(sighting, clock::now(), latency);
    }

    fn claimed(&mut self, segment: &Segment, address: IpAddr, claim: Claim) {
        let station = claim.station.clone();
        if self.live.claimed(segment, address, claim) {
            self.news(segment, address, &station);
        }
    }

    fn news(&self, segment: &Segment, address: IpAddr, station: &Station) {
        self.bindings.heard(segment, address, station);
        self.live.changes().wake();
    }

    /// A claim on an address whose declared owner, gateway or host it is not.
    fn violation(&mut self, seen: Seen) {
        if self.bindings.is_reserved(&seen.segment, seen.address) {
            return self.sighted(&seen, Kind::Gateway, None, Role::Impostor, EVENT_VIOLATION);
        }
        // Where it was bound to another since the frame came, what it claims is its own now.
        let holder = self.bindings.holder(&seen.segment, seen.address);
        if let Some(holder) = holder.filter(|holder| !holder.allows(&seen.claim.station)) {
            let owner = Some(holder.claimant(clock::now()));
            self.sighted(&seen, Kind::Duplicate, owner, Role::Impostor, EVENT_VIOLATION);
        } else if let Some(owner) = self.by_rule(&seen) {
            self.sighted(&seen, Kind::Duplicate, Some(owner), Role::Impostor, EVENT_VIOLATION);
        }
        self.in_conflict(seen);
    }

    /// Whoever allocates sees the claim from now on; the rest waits for [`Claims::follow_up`].
    fn in_conflict(&mut self, Seen { segment, address, claim, .. }: Seen) {
        let station = claim.station.clone();
        let new = self.live.claimed(&segment, address, claim).then_some(station);
        self.told.push((segment, address, new));
    }

    /// Whether something waits for [`Claims::follow_up`].
    pub fn must_follow_up(&self) -> bool {
        !self.told.is_empty()
    }

    /// What a conflict leads to, once those who wait for news of it have been told.
    pub fn follow_up(&mut self) {
        for (segment, address, new) in std::mem::take(&mut self.told) {
            // From here on the program tells when the owner is heard again.
            self.bindings.listen(&segment, address);
            if let Some(station) = new {
                self.news(&segment, address, &station);
            }
        }
    }

    /// A claim by an allow rule: the address is in use, and its last claimant has the short way.
    fn allowed(&mut self, Seen { key, segment, address, claim }: Seen) {
        let held = self.live_map.get(&key, 0);
        if rules::declared(self.rules_of(&segment), segment.vlan, address).is_some()
            && held.is_ok_and(|live| live.ifindex != claim.station.ifindex)
        {
            self.note("an address has moved by an allow rule", &segment, address, &claim.station);
            self.hold(&key, &segment, address, &claim);
        }
        self.claimed(&segment, address, claim);
    }

    /// Whom a rule leaves an address to: any MAC of its port, or any of its ports.
    fn by_rule(&self, Seen { segment, address, claim, .. }: &Seen) -> Option<Claimant> {
        let rule = rules::declared(self.rules_of(segment), segment.vlan, *address)?;
        let interface = match &rule.ports[..] {
            [port] => Some(port.clone()),
            _ => None,
        };
        let owner = claimant(Role::Owner, claim, 0, None);
        Some(Claimant { mac: None, interface, ifindex: None, ..owner })
    }

    fn rules_of(&self, segment: &Segment) -> &[Allow] {
        self.rules.get(&segment.bridge).map_or(&[], |rules| rules)
    }

    /// A claim on an address that is live by another, and that nobody has declared.
    fn contest(&mut self, seen: Seen, holder_ifindex: u32, holder_mac: Mac) {
        let Seen { key, segment, address, claim } = seen;
        let Ok(live) = self.live_map.get(&key, 0) else {
            return self.claimed(&segment, address, claim); // The holder left in the meantime.
        };
        if (live.ifindex, Mac(live.mac)) != (holder_ifindex, holder_mac) {
            return; // Another has taken its place: the next frame is judged against that one.
        }
        let holder = self.seen(
            key,
            live.ifindex,
            holder_mac,
            live.strength,
            Duration::ZERO,
            Duration::from_nanos(live.seen_ns),
        );
        let Some(Seen { claim: holder, .. }) = holder else {
            return self.take_over(&key, &segment, address, claim);
        };
        // claims.md A33: on an uplink another MAC is another host.
        let uplink = self.live.port(live.ifindex).is_some_and(|port| port.uplink);
        if holder.station.ifindex == claim.station.ifindex && !uplink {
            self.note("a port has changed its MAC", &segment, address, &claim.station);
            return self.take_over(&key, &segment, address, claim);
        }
        // From here on the program tells when the holder is heard again.
        let _ = self.live_map.insert(key, Live { seen_ns: 0, ..live });
        if self.alerts.is_disputed(&segment, address) {
            return self.dispute(Seen { key, segment, address, claim }, &holder.station);
        }
        if !self.doubts.contains_key(&key) {
            let now = clock::monotonic();
            let Conflict { grace, live_window, .. } = self.conflict;
            let doubt = Doubt::new(now, grace, now.saturating_sub(holder.seen), live_window);
            let holder = holder.station;
            let pending = Pending { doubt, holder, challenger: claim, look_again: now };
            self.doubts.insert(key, pending);
            self.judge(key, false);
        }
    }

    /// Decides what can be decided now about a doubt.
    fn judge(&mut self, key: AddressKey, answered: bool) {
        let Some(mut pending) = self.doubts.remove(&key) else { return };
        let Some((bridge, bridge_mac)) = self.bridges.get(&key.bridge).cloned() else { return };
        let (segment, address) = (Segment::new(bridge, key.vlan), key.ip());
        let holder = &pending.holder;
        let live = self.live_map.get(&key, 0).ok();
        let heard = live.is_some_and(|live| live.ifindex == holder.ifindex && live.seen_ns != 0);
        let facts = Facts {
            port_exists: self.live.port(holder.ifindex).is_some()
                && exists(holder.ifindex)
                && !self.is_down(holder.ifindex),
            answered: answered || heard,
            now: clock::monotonic(),
        };
        match pending.doubt.judge(facts) {
            Verdict::Moved => self.take_over(&key, &segment, address, pending.challenger),
            Verdict::Conflict => {
                let claim = pending.challenger;
                self.dispute(Seen { key, segment, address, claim }, &pending.holder);
            }
            Verdict::Ask(look_again) => {
                self.ask(bridge_mac, holder, address);
                pending.look_again = look_again;
                self.doubts.insert(key, pending);
            }
            Verdict::Wait(look_again) => {
                pending.look_again = look_again;
                self.doubts.insert(key, pending);
            }
        }
    }

    fn ask(&self, from: Mac, station: &Station, address: IpAddr) {
        let question = probe(from, station.mac, address);
        if let Err(error) = self.prober.send(station.ifindex, &question) {
            tracing::debug!(%address, port = %station.interface, %error, "cannot send a probe");
        }
    }

    /// An address without a declared owner has moved.
    fn take_over(&mut self, key: &AddressKey, segment: &Segment, address: IpAddr, claim: Claim) {
        self.note("an address has moved", segment, address, &claim.station);
        let mut from = None;
        if let Ok(live) = self.live_map.get(key, 0) {
            self.live.withdraw(segment, address, live.ifindex);
            let seen = Duration::from_nanos(live.seen_ns.max(live.first_ns));
            let holder = self.seen(*key, live.ifindex, Mac(live.mac), live.strength, seen, seen);
            from = holder.map(|holder| claimant(Role::Claimant, &holder.claim, 0, None));
            // Should it claim the address once more from here, it is told at once. A port that goes
            // from MAC to MAC has to wait, lest it floods the events.
            if live.ifindex != claim.station.ifindex {
                let challenger = challenger_key(key, &claim.station, EVENT_CONTEST);
                let _ = self.challengers.remove(&challenger);
            }
        }
        let behind = self.bindings.behind(claim.station.ifindex);
        let to = claimant(Role::Claimant, &claim, 1, behind);
        self.alerts.moved(segment, address, from.as_ref(), &to, clock::now());
        self.hold(key, segment, address, &claim);
        self.claimed(segment, address, claim);
    }

    /// Notes in the kernel who has an address.
    fn hold(&mut self, key: &AddressKey, segment: &Segment, address: IpAddr, claim: &Claim) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let live = Live {
            first_ns: nanos(claim.first),
            seen_ns: nanos(claim.seen),
            ifindex: claim.station.ifindex,
            mac: claim.station.mac.0,
            strength: guard_ebpf::abi::STRENGTH_USE,
            reserved: [0; 5],
        };
        if let Err(error) = self.live_map.insert(*key, live) {
            tracing::warn!(%segment, %address, %error, "cannot note a move in the kernel");
        }
    }

    /// Two claimants of an address that nobody has declared.
    fn dispute(&mut self, seen: Seen, holder: &Station) {
        let heard = Claim { station: holder.clone(), ..seen.claim.clone() };
        let holder = claimant(Role::Claimant, &heard, 0, self.bindings.behind(holder.ifindex));
        self.sighted(&seen, Kind::Duplicate, Some(holder), Role::Claimant, EVENT_CONTEST);
        self.in_conflict(seen);
    }

    fn sighted(&self, seen: &Seen, kind: Kind, holder: Option<Claimant>, role: Role, event: u8) {
        let Seen { key, segment, claim, .. } = seen;
        let counted = self.challengers.get(&challenger_key(key, &claim.station, event), 0);
        let frames = counted.map_or(1, |challenger| challenger.frames.max(1));
        let behind = self.bindings.behind(claim.station.ifindex);
        let challenger = claimant(role, claim, frames, behind);
        let (segment, target) = (segment.clone(), seen.target());
        let sighting = Sighting { segment, target, kind, holder, challenger };
        let latency = clock::monotonic().saturating_sub(claim.seen);
        self.alerts.sighted(sighting, clock::now(), latency);
    }

    /// When the next doubt wants to be looked at.
    pub fn next_doubt(&self) -> Option<Instant> {
        let doubts = self.doubts.values().map(|pending| pending.look_again);
        let next = doubts.chain(self.next_suspect()).min()?;
        Some(Instant::now() + next.saturating_sub(clock::monotonic()))
    }

    /// Looks at the doubts that are due.
    pub fn judge_doubts(&mut self) {
        let now = clock::monotonic();
        let due = self.doubts.iter().filter(|(_, pending)| pending.look_again <= now);
        for key in due.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.judge(key, false);
        }
        self.judge_suspects(now);
    }
}

fn challenger_key(key: &AddressKey, station: &Station, kind: u8) -> ChallengerKey {
    let Station { mac, ifindex, interface: _ } = station;
    ChallengerKey { key: *key, ifindex: *ifindex, mac: mac.0, kind, reserved: [0; 5] }
}

fn claimant(role: Role, claim: &Claim, frames: u64, owner: Option<Owner>) -> Claimant {
    let Claim { station: Station { mac, interface, ifindex }, first, seen, .. } = claim;
    let (now, monotonic) = (clock::now(), clock::monotonic());
    let at = |time: Duration| {
        let ago = monotonic.saturating_sub(time);
        now.wall.checked_sub(ago).unwrap_or(now.wall)
    };
    Claimant {
        role,
        mac: Some(*mac),
        interface: Some(interface.clone()),
        ifindex: Some(*ifindex),
        owner,
        first_seen: at(*first),
        last_seen: at(*seen),
        last: now.boot.saturating_sub(monotonic.saturating_sub(*seen)),
        frames,
        gone: false,
    }
}
