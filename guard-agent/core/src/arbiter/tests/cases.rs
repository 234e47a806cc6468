//! The cases of `tests/cases`: what the program tells of a frame leads to an incident of the kind
//! that it should, or to none.

use std::time::Duration;

use bytemuck::Zeroable as _;
use guard_ebpf::{
    abi::{
        self, AddressKey, Challenger, ChallengerKey, FRAME_BYTES, Live, MAC_BEYOND, OWNED_GATEWAY,
        OWNED_HOST, Port, PortState,
    },
    frame::Frame,
};
use proptest::prelude::*;

use super::world::{BRIDGE, Play};
use crate::{
    arbiter::{Event, Missed, PortUse, Read},
    incident::Kind,
};

#[path = "../../../../../guard-ebpf/tests/common/mod.rs"]
#[expect(dead_code, reason = "some of it is for other runners")]
mod common;

use self::common::{Case, ELSEWHERE, HERE};

/// A frame out of which the kernel took a tag.
struct Stripped(Vec<u8>, Option<(u16, u16)>);

impl Frame for Stripped {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0[..].load(offset)
    }

    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0[..].head(offset)
    }

    fn begin(&self, into: &mut [u8; FRAME_BYTES]) {
        self.0[..].begin(into);
    }

    fn stripped_tag(&self) -> Option<u16> {
        self.1.map(|(_, tci)| tci)
    }

    fn stripped_type(&self) -> u16 {
        self.1.map_or(0, |(kind, _)| kind)
    }

    fn size(&self) -> u32 {
        self.0[..].size()
    }
}

fn play(case: &Case) -> Play {
    let mut play = Play::new(&[], &[]);
    let world = &mut play.world;
    world.add_port(HERE, case.port().kind == abi::PORT_UPLINK);
    let beyond = case.mac_holder().is_some_and(|(_, holder)| holder.flags & MAC_BEYOND != 0);
    world.add_port(ELSEWHERE, beyond);
    world.ports.values_mut().for_each(|port| port.answers = false);
    let (now, key) = (world.model.now_ns, case.key());
    world.model.owned = case.owned(now).map(|owned| (key, owned)).into_iter().collect();
    world.model.live.extend(case.live(now).map(|live| (key, live)));
    world.model.macs.extend(case.mac_holder());
    world.model.bound_macs.extend(case.bound_mac().map(|station| (station, 1)));
    world.model.state = case.port_state(now);
    world.model.prefixes.clear();
    for (key, len, prefix) in case.prefixes() {
        world.model.add_prefix(key, len, prefix);
    }
    world.model.vlans.extend(case.vlans().map(|vlans| (HERE, vlans)));
    // What is live is evidence.
    if let Some(live) = case.live(now) {
        play.handle(Event::Live(key, live));
    }
    play.world.model.watch(&Stripped(case.frame.bytes(), case.frame.stripped), &case.port());
    play.drain(HERE);
    play
}

/// The kind of incident that a case's event is, and whether it is one at its first frame.
fn expected(case: &Case, event: &str) -> Option<(Kind, bool)> {
    let reserved = |owned: abi::Owned| owned.flags & (OWNED_GATEWAY | OWNED_HOST) != 0;
    let live = case.live(0xffff_ffff_ffff);
    // claims.md L01b: from an uplink, to a group.
    let comes_back = case.port().kind == abi::PORT_UPLINK && case.frame.bytes()[0] & 1 != 0;
    match event {
        "clone" | "bridge_mac" if comes_back => Some((Kind::Loop, event == "bridge_mac")),
        "violation" if case.owned(0xffff_ffff_ffff).is_some_and(reserved) => {
            Some((Kind::Gateway, true))
        }
        "violation" => Some((Kind::Duplicate, true)),
        // claims.md A33.
        "contest" if live?.ifindex == HERE && case.port().kind == abi::PORT_ACCESS => None,
        // claims.md A18, L01b: it does not answer where it was.
        "contest" if live?.mac == case.frame.mac() => None,
        "contest" => Some((Kind::Duplicate, false)),
        "clone" => Some((Kind::Clone, false)),
        "bridge_mac" => Some((Kind::Gateway, true)),
        "flood" => Some((Kind::Flood, true)),
        "opaque" => Some((Kind::Opaque, true)),
        "router" => Some((Kind::Router, true)),
        "declined" => Some((Kind::Declined, true)),
        _ => None,
    }
}

#[test]
fn every_case_has_the_incident_that_its_events_are() {
    let mut incidents = 0;
    for (file, case) in Case::all() {
        let what = format!("{file}: {} {}", case.row, case.name);
        let mut play = play(&case);
        let events = || case.expect.event.iter().chain(&case.expect.also);
        let kinds = |play: &Play| {
            let mut kinds: Vec<_> = play.open().into_iter().map(|(kind, _)| kind).collect();
            kinds.sort_unstable();
            kinds
        };
        // What is about one address is one incident, of the worst kind.
        let mut all: Vec<_> = events().filter_map(|event| expected(&case, event)).collect();
        let about_one = all.iter().any(|(kind, _)| *kind == Kind::Clone);
        let at_once: Vec<_> = all.iter().filter(|(_, at_once)| *at_once).collect();
        assert!(kinds(&play).len() >= at_once.len().min(1), "{what}: {:?}", play.open());
        play.wait(Duration::from_secs(2));
        all.sort_unstable();
        let expected: Vec<_> = all.iter().map(|(kind, _)| *kind).collect();
        let found = kinds(&play);
        let worst = |kinds: &[Kind]| kinds.last().copied();
        assert!(
            found == expected || (about_one && worst(&found) == worst(&expected)),
            "{what}: {found:?} and not {expected:?}"
        );
        incidents += found.len();
    }
    assert!(incidents > 50, "{incidents}");
}

/// An event of any kind, about ports that there are and others, at times that make no sense.
pub(super) fn any_event() -> impl Strategy<Value = Event> {
    let port = || 0..7_u32;
    let key = (0..2_u32, 0..3_u16, 0..4_u8).prop_map(|(bridge, vlan, host)| {
        AddressKey::new(BRIDGE + bridge, vlan, [10, 8, 64, host].into())
    });
    let live = || {
        (any::<u64>(), any::<u64>(), port(), any::<[u8; 6]>()).prop_map(
            |(first_ns, seen_ns, ifindex, mac)| Live {
                first_ns,
                seen_ns,
                ifindex,
                mac,
                ..Live::zeroed()
            },
        )
    };
    let some_live = || prop::option::of(live());
    let event = (any::<u64>(), key.clone(), port(), port(), 0..3_u8, 0..3_u8, any::<u8>());
    let event = event.prop_map(|(time_ns, key, ifindex, holder_ifindex, mac, holder, kind)| {
        let [mac, holder_mac] = [mac, holder].map(|number| [2, 0, 0, 0, 0, number]);
        abi::Event {
            time_ns,
            key,
            ifindex,
            holder_ifindex,
            mac,
            holder_mac,
            kind: kind % 14,
            ..abi::Event::zeroed()
        }
    });
    let challenger = (key.clone(), port(), any::<[u8; 6]>(), 0..14_u8, any::<u64>(), some_live());
    prop_oneof![
        6 => (event, some_live(), any::<bool>(), any::<u64>(), any::<bool>()).prop_map(
            |(event, live, may_move, refused, blocked)| Event::Frame {
                // As a kernel would say it: of whom the program judged by.
                read: Read {
                    live: live.map(|live| Live {
                        ifindex: event.holder_ifindex,
                        mac: event.holder_mac,
                        ..live
                    }),
                    may_move,
                    used: PortUse::new(
                        &Port::zeroed(),
                        &PortState { refused, ..PortState::default() },
                    ),
                    blocked,
                },
                event,
            },
        ),
        1 => (key.clone(), live()).prop_map(|(key, live)| Event::Live(key, live)),
        1 => challenger.prop_map(|(key, port, mac, kind, seen_ns, live)| Event::Challenger {
            key: ChallengerKey::new(&key, port, mac, kind),
            challenger: Challenger { seen_ns, ..Challenger::zeroed() },
            live,
            blocked: false,
            missed: [Missed::No, Missed::Yes, Missed::Gone][usize::from(kind) % 3],
        }),
        1 => (key, some_live(), any::<bool>()).prop_map(|(key, live, port_works)| {
            Event::HolderRead { key, live, port_works }
        }),
        1 => port().prop_map(|ifindex| Event::PortGone { ifindex, addresses: Vec::new() }),
        1 => port().prop_map(|ifindex| Event::CarrierLost { ifindex }),
        1 => (0..2_u32).prop_map(|bridge| Event::BridgeGone { ifindex: BRIDGE + bridge }),
        1 => Just(Event::Tick),
    ]
}
