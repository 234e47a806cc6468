//! Replays a capture frame by frame through the program's model and the arbiter.

use std::time::Duration;

use bytemuck::Zeroable as _;
use guard_api::proto;
use guard_core::{
    arbiter::{self, Arbiter, Read},
    policy::Conflict,
};
use guard_ebpf::abi::{
    BridgeCounters, EVENT_FLOOD, Event, PORT_ACCESS, PORT_ALLOW_TAGGED, PORT_UPLINK, Port,
};

use super::{
    BRIDGE, Claim, Ground, Settings,
    capture::Packet,
    world::{SECOND_NS, World, time_ns},
};

pub(super) struct Replay<'a> {
    arbiter: Arbiter,
    world: World<'a>,
    looked_ns: u64,
}

/// A port of the replay.
pub(super) fn port(ifindex: u32, uplink: bool) -> Port {
    let kind = if uplink { PORT_UPLINK } else { PORT_ACCESS };
    Port { ifindex, bridge: BRIDGE, kind, flags: PORT_ALLOW_TAGGED, ..Port::zeroed() }
}

impl<'a> Replay<'a> {
    pub(super) fn new(settings: &Settings, ground: &'a Ground) -> Self {
        let conflict = Conflict::default();
        Self {
            arbiter: Arbiter::new(conflict),
            world: World::new(settings, ground, &conflict),
            looked_ns: 0,
        }
    }

    pub(super) fn frame(&mut self, packet: &Packet<'_>) {
        let Some(port) = self.world.ports.get(packet.interface) else { return };
        // Several interfaces may have been read one after the other.
        let at = self.world.model.now_ns.max(time_ns(packet));
        self.decide_until(at);
        self.world.model.now_ns = at;
        if at - self.looked_ns >= SECOND_NS {
            self.looked_ns = at;
            let silent = self.world.silent();
            self.arbiter.handle(arbiter::Event::Silent(silent), &mut self.world);
            self.world.close();
        }
        self.world.model.watch(packet.bytes, port);
        for event in std::mem::take(&mut self.world.model.events) {
            self.event(event);
        }
    }

    fn event(&mut self, event: Event) {
        let Event { key, kind, .. } = event;
        self.world.note(&event);
        let model = &self.world.model;
        let read = Read {
            live: Read::needs_live(kind).then(|| model.live.get(&key).copied()).flatten(),
            // Nobody says which ports are one's.
            may_move: false,
            refused: if kind == EVENT_FLOOD { model.state.refused } else { 0 },
        };
        self.arbiter.handle(arbiter::Event::Frame { event, read }, &mut self.world);
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

    /// What came of it all.
    pub(super) fn end(mut self) -> (Vec<Claim>, Vec<proto::Conflict>, BridgeCounters) {
        self.decide_until(u64::MAX);
        self.world.end()
    }
}
