//! Replays a capture frame by frame through the program's model and the arbiter.

use std::time::Duration;

use bytemuck::Zeroable as _;
use guard_core::{
    arbiter::{self, Arbiter, PortUse, Read},
    enforcement, homes,
    policy::Quota,
    rules,
};
use guard_ebpf::{
    abi::{
        BridgeCounters, EVENT_CLONE, EVENT_FLOOD, Event, PORT_ACCESS, PORT_ALLOW_TAGGED,
        PORT_UPLINK, Policy, Port, PortState,
    },
    frame::parse,
};

use super::{
    Claim, Disputed, Dropped, Ground, Settings, bridge,
    capture::Packet,
    leases,
    world::{SECOND_NS, World, time_ns},
};

pub(super) struct Replay<'a> {
    arbiter: Arbiter,
    world: World<'a>,
    looked_ns: u64,
    /// What each interface has used of its quota, but for the one whose frame is judged.
    used: Vec<PortState>,
    /// What is dropped of each interface.
    policies: Vec<Policy>,
}

/// A port of the replay. One that stands for all ports may do what a rule lets any of them do with the
/// rule's addresses, but not pass for a virtual router with those of others.
pub(super) fn port(ifindex: u32, name: &str, settings: &Settings) -> Port {
    let uplink = !settings.ingress || settings.uplinks.iter().any(|uplink| uplink == name);
    let (allow, flags) = match settings.ingress {
        true => rules::of_port(&settings.rules, name),
        false => (u32::MAX, 0),
    };
    Port {
        ifindex,
        bridge: bridge(0),
        kind: if uplink { PORT_UPLINK } else { PORT_ACCESS },
        flags: flags | PORT_ALLOW_TAGGED,
        allow,
        homes: if settings.ingress { homes::of_port(settings.homes(), name) } else { u16::MAX },
        ..Port::zeroed()
    }
}

impl<'a> Replay<'a> {
    pub(super) fn new(settings: &'a Settings, ground: &'a Ground) -> Self {
        let policy = |(port, name): (&Port, &String)| {
            let bound = leases::bound(&settings.leases, name);
            let access = port.kind == PORT_ACCESS;
            let policy = {
                // What the rules except is not replayed.
                let none = enforcement::Effects::default();
                enforcement::policy(access, &settings.enforcement, bound, &none)
            };
            Policy { ifindex: port.ifindex, ..policy }
        };
        Self {
            arbiter: Arbiter::new(settings.conflict, &Quota::default()),
            world: World::new(settings, ground),
            looked_ns: 0,
            used: vec![PortState::default(); ground.ports.len()],
            policies: ground.ports.iter().zip(&ground.interfaces).map(policy).collect(),
        }
    }

    pub(super) fn frame(&mut self, packet: &Packet<'_>) {
        let Some(port) = self.world.ports.get(packet.interface) else { return };
        // Several interfaces may have been read one after the other.
        let at = self.world.model.now_ns.max(time_ns(packet));
        self.look_until(at);
        self.decide_until(at);
        self.world.model.now_ns = at;
        let inner_vlan = parse(packet.bytes, port).segment.inner_vlan;
        let port = Port { bridge: bridge(inner_vlan), ..*port };
        std::mem::swap(&mut self.world.model.state, &mut self.used[packet.interface]);
        self.world.model.policy = self.policies[packet.interface];
        self.world.model.watch(packet.bytes, &port);
        for event in std::mem::take(&mut self.world.model.events) {
            self.event(event, &port);
        }
        std::mem::swap(&mut self.world.model.state, &mut self.used[packet.interface]);
    }

    fn event(&mut self, event: Event, port: &Port) {
        let Event { key, kind, holder_ifindex, ifindex, .. } = event;
        self.world.note(&event);
        let model = &self.world.model;
        let read = Read {
            live: Read::needs_live(kind).then(|| model.live.get(&key).copied()).flatten(),
            may_move: kind == EVENT_CLONE && self.world.may_move(holder_ifindex, ifindex),
            used: match kind {
                EVENT_FLOOD => PortUse::new(port, &model.state),
                _ => PortUse::default(),
            },
            blocked: false,
        };
        self.arbiter.handle(arbiter::Event::Frame { event, read }, &mut self.world);
    }

    /// Looks every second for who has fallen silent, as long as there is anything to look for.
    fn look_until(&mut self, end_ns: u64) {
        while self.looked_ns.saturating_add(SECOND_NS) <= end_ns {
            if !self.world.has_incidents() && self.arbiter.next_due().is_none() {
                self.looked_ns = end_ns;
                return;
            }
            self.looked_ns = self.world.model.now_ns.max(self.looked_ns + SECOND_NS);
            self.decide_until(self.looked_ns);
            self.world.model.now_ns = self.world.model.now_ns.max(self.looked_ns);
            let silent = self.world.silent();
            self.arbiter.handle(arbiter::Event::Silent(silent), &mut self.world);
            self.world.close();
        }
    }

    /// Decides what was in doubt and is due by then.
    fn decide_until(&mut self, end_ns: u64) {
        let end = Duration::from_nanos(end_ns);
        while let Some(due) = self.arbiter.next_due().filter(|due| *due <= end) {
            let due_ns = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
            self.world.model.now_ns = self.world.model.now_ns.max(due_ns);
            self.arbiter.handle(arbiter::Event::Tick, &mut self.world);
        }
    }

    /// What broke the rules.
    pub(super) fn drops(&self) -> Vec<Dropped> {
        self.world.drops()
    }

    /// What came of it all.
    pub(super) fn end(mut self) -> (Vec<Claim>, Vec<Disputed>, BridgeCounters) {
        self.decide_until(u64::MAX);
        self.world.end()
    }
}
