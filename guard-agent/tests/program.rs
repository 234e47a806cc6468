//! Loads the program into the kernel, and runs the cases through it under `BPF_PROG_TEST_RUN`.
//! Needs root and a kernel with BPF; without root the tests say so and pass over it.

#[path = "../../guard-ebpf/tests/common/mod.rs"]
#[expect(dead_code, reason = "the twins of the cases are checked by the runner on the host")]
#[cfg(test)]
mod common;
#[path = "program/differential.rs"]
#[cfg(test)]
mod differential;
#[path = "program/flood.rs"]
#[cfg(test)]
mod flood;
#[path = "program/kernel.rs"]
#[cfg(test)]
mod kernel;
#[path = "program/wire.rs"]
#[cfg(test)]
mod wire;

use std::os::fd::AsFd as _;

use aya::maps::{HashMap, IterableMap as _, Map, MapData, lpm_trie::Key};
use bytemuck::Zeroable as _;
use guard_ebpf::abi::{
    AddressKey, BridgeCounters, EVENT_LIVE, EVENT_VIOLATION, Owned, Port, Prefix, STRENGTH_ASSERT,
    near_slot,
};

use self::{
    common::{BRIDGE, Case, HERE},
    kernel::{Program, coarse_ns, load, pins},
};

#[cfg(test)]
fn case(file: &str, name: &str) -> Case {
    let cases = Case::all().into_iter();
    cases.filter(|(f, _)| f == file).find(|(_, case)| case.name == name).unwrap().1
}

#[test]
fn the_program_agrees_with_the_cases() {
    let Some(mut program) = Program::load() else { return };
    for (file, case) in Case::all() {
        if let Some(reason) = &case.skip_test_run {
            eprintln!("passed over: {file}: {} {}: {reason}", case.row, case.name);
            continue;
        }
        let what = format!("{file}: {} {}", case.row, case.name);
        assert_eq!(program.outcome(&case, false).cut_to(&case.expect), case.expect, "{what}");
        let (enforced, expected) = program.outcome(&case, true).enforced(&case.expect);
        assert_eq!(enforced, expected, "{what}: enforced");
    }
}

/// On every kernel that this runs on; what it tells there is a scenario's.
#[test]
fn the_kernel_takes_the_tracer() {
    let Some(pins) = pins() else { return };
    let object = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-trace"));
    load(&pins, object, "guard_trace");
}

/// Each start of the agent waits for the verifier, which walks over the program along every way through it:
/// far more often than it is long, where a loop calls what is not global (`judge` in the program).
#[test]
fn the_verifier_is_soon_done() {
    // 84,000 on 6.18, and 118,000 on 6.1.
    const MOST: u32 = 150_000;
    let Some(program) = Program::load() else { return };
    // Not known before Linux 5.16.
    let Some(walked) = program.verified() else { return };
    assert!(walked < MOST, "{walked} instructions");
}

#[test]
fn a_frame_of_an_unknown_port_leaves_no_trace() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    program.ports.remove(&HERE).unwrap();
    program.near_ports.set(near_slot(HERE), Port::zeroed(), 0).unwrap();
    program.run(&case.frame.bytes(), 1);
    assert_eq!((program.event(), program.counted()), (None, BridgeCounters::zeroed()));
}

#[test]
fn a_challenger_is_told_once_and_counted() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    program.run(&case.frame.bytes(), 100);
    assert_eq!(program.event().map(|event| event.kind), Some(EVENT_VIOLATION));
    assert_eq!(program.event(), None);
    let (key, challenger) = program.challenger(case.frame.mac());
    assert_eq!((key.key, key.kind), (case.key(), EVENT_VIOLATION));
    assert_eq!((challenger.frames, challenger.strength), (100, STRENGTH_ASSERT));
}

#[test]
fn a_challenger_is_told_again_after_a_second() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    program.run(&case.frame.bytes(), 1);
    assert!(program.event().is_some());
    let (key, mut challenger) = program.challenger(case.frame.mac());
    challenger.told_ns -= 1_000_000_000;
    program.challengers.insert(key, challenger, 0).unwrap();
    program.run(&case.frame.bytes(), 1);
    assert!(program.event().is_some());
}

#[test]
fn a_probe_does_not_silence_the_claim_that_follows() {
    let Some(mut program) = Program::load() else { return };
    let probe = case("arp", "probe_for_an_owned_address_is_told_and_passes");
    let claim = case("arp", "announcement_after_a_probe");
    program.prepare(&probe, coarse_ns());
    program.run(&probe.frame.bytes(), 3);
    program.run(&claim.frame.bytes(), 3);
    assert!(program.event().is_some());
    assert_eq!(program.event().map(|event| event.kind), Some(EVENT_VIOLATION));
    assert_eq!(program.event(), None);
}

#[test]
fn an_event_that_finds_no_room_is_counted_and_told_later() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    let bytes = case.frame.bytes();
    // First claims of addresses on a prefix as long as the ring, until it is full.
    let prefix = AddressKey::new(BRIDGE, 0, [10, 0, 0, 0].into());
    let on_link = Prefix { on_link: 1, ..Prefix::default() };
    program.prefixes.insert(&Key::new(prefix.prefix_len(8), prefix), on_link, 0).unwrap();
    let mut other = bytes.clone();
    let mut sender = 0_u32;
    while program.counted().events_lost == 0 {
        sender += 1;
        let [_, high, middle, low] = sender.to_be_bytes();
        other[28..32].copy_from_slice(&[10, 100 + high, middle, low]);
        program.run(&other, 1);
    }
    program.run(&bytes, 1);
    assert_eq!(program.counted().events_lost, 2);
    while program.event().is_some() {}
    program.run(&bytes, 1);
    assert_eq!(program.event().map(|event| event.kind), Some(EVENT_VIOLATION));
}

#[test]
fn rule_12_a_port_that_tries_mac_after_mac_is_told_for_the_first_four() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    let mut bytes = case.frame.bytes();
    let mut told = Vec::new();
    for number in 0..200 {
        bytes[11] = number;
        bytes[27] = number;
        program.run(&bytes, 1);
        told.extend(std::iter::from_fn(|| program.event()));
    }
    // One more stands for all others, and is told again every second.
    assert!((5..=6).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|event| event.kind == EVENT_VIOLATION));
    assert_eq!(program.challenger([0; 6]).1.frames, 196);
    // Another address that the port claims is another matter.
    let other = [10, 8, 64, 77];
    bytes[28..32].copy_from_slice(&other);
    let key = AddressKey::new(BRIDGE, 0, other.into());
    program.owned.insert(key, case.owned(coarse_ns()).unwrap()).unwrap();
    program.run(&bytes, 1);
    assert_eq!(program.event().map(|event| event.key), Some(key));
}

/// A map of owners, and the way to change it behind the program's back.
#[cfg(test)]
fn behind(owned: &HashMap<MapData, AddressKey, Owned>) -> HashMap<MapData, AddressKey, Owned> {
    let fd = owned.map().fd().as_fd().try_clone_to_owned().unwrap();
    Map::from_map_data(MapData::from_fd(fd).unwrap()).unwrap().try_into().unwrap()
}

#[test]
fn one_who_is_known_is_remembered_until_the_next_tick() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_by_the_owner_seen_just_now");
    let bytes = case.frame.bytes();
    let mut owned = behind(&program.owned);
    let mut is_asked_for = || {
        program.prepare(&case, coarse_ns());
        program.run(&bytes, 1);
        assert_eq!(program.event(), None);
        owned.remove(&case.key()).unwrap();
        program.run(&bytes, 1);
        program.event().is_some()
    };
    // A tick may pass in between, but not each time.
    assert!((0..100).any(|_| !is_asked_for()), "nobody is remembered");
}

#[test]
fn one_who_is_known_is_forgotten_with_the_agents_first_change() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_by_the_owner_seen_just_now");
    let (key, bytes) = (case.key(), case.frame.bytes());
    // Mostly within one tick.
    for _ in 0..100 {
        program.prepare(&case, coarse_ns());
        program.run(&bytes, 2);
        assert_eq!(program.event(), None);
        let mut owned = case.owned(coarse_ns()).unwrap();
        owned.mac[5] ^= 1;
        program.owned.insert(key, owned).unwrap();
        program.run(&bytes, 1);
        assert_eq!(program.event().map(|event| event.kind), Some(EVENT_VIOLATION));
        program.challengers.remove(&program.challenger(case.frame.mac()).0).unwrap();
        program.prepare(&case, coarse_ns());
        program.run(&bytes, 2);
        program.owned.remove(&key).unwrap();
        program.run(&bytes, 1);
        assert_eq!(program.event().map(|event| event.kind), Some(EVENT_LIVE));
        program.run(&bytes, 2);
        program.live.remove(&key).unwrap();
        program.run(&bytes, 1);
        assert_eq!(program.event().map(|event| event.kind), Some(EVENT_LIVE));
    }
}
