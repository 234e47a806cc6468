//! What enforcement must never do, over frames, states and policies by chance.

#[cfg(test)]
#[expect(dead_code, reason = "the cases are for other runners")]
mod common;

use std::env;

use bytemuck::Zeroable as _;
use guard_ebpf::{
    abi::{
        CLOSED_IPV4, CLOSED_IPV6, MODE_ENFORCE, MODE_OBSERVE, OWNED_LEASED, OWNED_MAC, OWNED_PORT,
        Owned, PORT_ACCESS, Port, PortMac, STATION_BOUND,
    },
    counters::DropReason,
    frame::parse,
    model::Model,
    trace::{Arrival, Traced, trace},
    watch::Scratch,
};

use self::common::{
    HERE,
    generate::{Chance, any, port, state},
};

const NOW_NS: u64 = 1 << 40;
/// How many states, unless the environment says how many frames there are to be.
const STATES: u64 = 600;
const FRAMES: usize = 64;
const FRAMES_VARIABLE: &str = "GUARD_PROPERTY_FRAMES";

/// What drops whoever sends it: the classes that no sandbox has to send, and what nobody can be.
const HYGIENE: [DropReason; 12] = [
    DropReason::Malformed,
    DropReason::Opaque,
    DropReason::Vlan,
    DropReason::Tagged,
    DropReason::Ethertype,
    DropReason::Snap,
    DropReason::Rarp,
    DropReason::Control,
    DropReason::Router,
    DropReason::DhcpServer,
    DropReason::Unspecified,
    DropReason::Martian,
];

#[cfg(test)]
fn states() -> u64 {
    let frames = env::var(FRAMES_VARIABLE).ok().map(|frames| frames.parse::<u64>().unwrap());
    frames.map_or(STATES, |frames| frames.div_ceil(FRAMES as u64))
}

/// Declares a binding of the frame's station for all that it claims, if that is one address, by its own
/// MAC. Returns whether the frame is one of that binding.
#[cfg(test)]
fn bind(model: &mut Model, port: &Port, frame: &[u8]) -> bool {
    let parsed = parse(frame, port);
    let (mut claims, mut scratch) = (Vec::new(), Scratch::zeroed());
    let at = Arrival { port, from: HERE, now_ns: NOW_NS };
    trace(frame, model, &at, &mut scratch, |traced: &Traced| claims.push(*traced));
    claims.retain(|traced| traced.claim > 0);
    let Some(Traced { key, mac, .. }) = claims.first().copied() else { return false };
    let own = claims.iter().all(|claim| (claim.key, claim.mac) == (key, parsed.eth_src));
    if !own || mac == port.bridge_mac {
        return false;
    }
    let flags = OWNED_LEASED | OWNED_MAC | OWNED_PORT;
    let owned = Owned { generation: 1, seen_ns: 0, ifindex: HERE, mac, flags, homes: 0 };
    model.owned.insert(key, owned);
    model.bound_macs.insert(PortMac::new(HERE, mac), STATION_BOUND);
    model.policy.closed |= if key.is_v4() { CLOSED_IPV4 } else { CLOSED_IPV6 };
    model.changes += 1;
    true
}

/// The reason for which the one frame was dropped that came since.
#[cfg(test)]
fn reason(before: &Model, after: &Model) -> DropReason {
    let counts = before.counters.dropped.iter().zip(&after.counters.dropped);
    let at = counts.clone().position(|(before, after)| before != after).unwrap();
    assert_eq!(counts.filter(|(before, after)| before != after).count(), 1);
    DropReason::ALL[at]
}

/// Whether frames are dropped for the reason.
#[cfg(test)]
fn drops(model: &Model, reason: DropReason) -> bool {
    let Model { policy, mode, .. } = model;
    let is_over = policy.until_ns != 0 && NOW_NS >= policy.until_ns;
    let enforced = match policy.mode {
        _ if is_over => mode.enforce != 0,
        MODE_OBSERVE => false,
        MODE_ENFORCE => true,
        _ => mode.enforce != 0,
    };
    enforced && policy.drops & !mode.braked & reason.bit() != 0
}

#[test]
fn a_declared_binding_drops_by_hygiene_alone_and_what_drops_shows_nothing() {
    let (mut bound, mut dropped) = (0, 0);
    for seed in 0..states() {
        let mut chance = Chance::new(seed);
        let port = Port { kind: PORT_ACCESS, ..port(&mut chance) };
        let mut model = Model::new(NOW_NS);
        state(&mut chance, &mut model);
        if !chance.once_in(4) {
            (model.policy.drops, model.mode.enforce) = (u32::MAX, 1);
        }
        for _ in 0..FRAMES {
            let frame = any(&mut chance);
            let own = chance.once_in(2) && bind(&mut model, &port, &frame);
            let before = model.clone();
            let is_dropped = model.watch(&frame[..], &port);
            bound += usize::from(own);
            if !is_dropped {
                continue;
            }
            dropped += 1;
            let reason = reason(&before, &model);
            assert!(drops(&model, reason), "{seed}: {} is off", reason.name());
            assert!(
                !own || HYGIENE.contains(&reason),
                "{seed}: {} drops {frame:02x?} on {port:?}",
                reason.name()
            );
            assert!(model.owned == before.owned, "{seed}: an owner was heard by {frame:02x?}");
            assert!(model.live == before.live, "{seed}: live by {frame:02x?}");
            assert!(model.macs == before.macs, "{seed}: a MAC is held by {frame:02x?}");
            assert_eq!(model.state.addresses, before.state.addresses);
            assert_eq!(model.state.admitted_macs, before.state.admitted_macs);
        }
    }
    // Fewer need not meet everything.
    let few = states() < STATES;
    assert!(few || (bound > 1_000 && dropped > 5_000), "{bound} of bindings, {dropped} dropped");
}

#[test]
fn what_would_drop_in_observe_is_what_drops() {
    for seed in 0..states() {
        let mut chance = Chance::new(seed);
        let port = port(&mut chance);
        let mut model = Model::new(NOW_NS);
        state(&mut chance, &mut model);
        model.policy.mode = 0;
        model.mode.braked = 0;
        for _ in 0..FRAMES {
            let frame = any(&mut chance);
            let mut enforced = model.clone();
            (model.mode.enforce, enforced.mode.enforce) = (0, 1);
            let before = model.counters;
            assert!(!model.watch(&frame[..], &port), "{seed}: dropped in observe");
            let would = model.counters.would_drop != before.would_drop;
            assert_eq!(
                enforced.watch(&frame[..], &port),
                would,
                "{seed}: {frame:02x?} on {port:?}"
            );
            let dropped = enforced.counters.dropped.iter().zip(&before.dropped);
            let counted = model.counters.would_drop.iter().zip(&before.would_drop);
            let more = |(after, before): (&u64, &u64)| after - before;
            assert!(dropped.map(more).eq(counted.map(more)), "{seed}: for another reason");
        }
    }
}
