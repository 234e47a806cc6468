//! Floods of frames that are dropped: each is counted, and what changes meanwhile is seen with the next one.

use guard_ebpf::{
    abi::{EVENT_VIOLATION, MODE_OBSERVE, Mode, Policy},
    counters::{DropReason, FrameKind},
};

use crate::{
    case,
    common::Case,
    kernel::{Program, coarse_ns, stay_on_one_cpu},
};

const ENFORCED: Mode = Mode { enforce: 1, braked: 0 };
const VIOLATION: usize = DropReason::Violation as usize;

/// A program that drops this claim on another's address.
fn flooded() -> Option<(Program, Case)> {
    let mut program = Program::load()?;
    stay_on_one_cpu();
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    program.set_policy(case.policy(), ENFORCED);
    Some((program, case))
}

/// How often the case's frame was dropped: in the entry of its port, and by its bridge's counters.
fn dropped(program: &Program) -> (u64, u64) {
    let counted = program.counted().dropped[VIOLATION];
    (program.drops().values().map(|drops| drops.dropped).sum(), counted)
}

#[test]
fn each_frame_of_a_flood_is_counted() {
    const FRAMES: u32 = 100_000;
    let Some((mut program, case)) = flooded() else { return };
    let began_ns = coarse_ns();
    program.run(&case.frame.bytes(), FRAMES);
    assert!(program.dropped.get());
    let frames = u64::from(FRAMES);
    assert_eq!(dropped(&program), (frames, frames));
    assert_eq!(program.counted().frames[FrameKind::Arp as usize], frames);
    let (_, challenger) = program.challenger(case.frame.mac());
    assert_eq!(challenger.frames, frames);
    assert!(challenger.seen_ns > began_ns, "the last one is dated");
    let told: Vec<_> = std::iter::from_fn(|| program.event()).collect();
    let seconds = (coarse_ns() - began_ns) / 1_000_000_000;
    assert!((1..=seconds + 1).contains(&(told.len() as u64)), "{}", told.len());
    assert!(told.iter().all(|event| event.kind == EVENT_VIOLATION));
}

#[test]
fn a_flood_ends_with_the_first_frame_after_a_change_of_the_mode_or_the_policy() {
    let Some((mut program, case)) = flooded() else { return };
    let (bytes, policy) = (case.frame.bytes(), case.policy());
    let observed = Policy { mode: MODE_OBSERVE, ..policy };
    let without = Policy { drops: policy.drops & !DropReason::Violation.bit(), ..policy };
    let braked = Mode { braked: DropReason::Violation.bit(), ..ENFORCED };
    // Mostly within one tick.
    for _ in 0..100 {
        for (changed, mode) in
            [(policy, Mode::default()), (policy, braked), (observed, ENFORCED), (without, ENFORCED)]
        {
            program.set_policy(policy, ENFORCED);
            program.run(&bytes, 3);
            assert!(program.dropped.get());
            program.set_policy(changed, mode);
            program.run(&bytes, 1);
            assert!(!program.dropped.get(), "{changed:?} {mode:?}");
        }
    }
}

#[test]
fn a_flood_ends_with_the_agents_first_change_of_an_owner() {
    let Some((mut program, case)) = flooded() else { return };
    let (key, bytes) = (case.key(), case.frame.bytes());
    let theirs = case.owned(coarse_ns()).unwrap();
    let mut own = theirs;
    own.ifindex = case.port().ifindex;
    own.mac = case.frame.mac();
    for _ in 0..100 {
        program.owned.insert(key, theirs).unwrap();
        program.run(&bytes, 3);
        assert!(program.dropped.get());
        program.owned.insert(key, own).unwrap();
        program.run(&bytes, 1);
        assert!(!program.dropped.get());
    }
}

#[test]
fn a_frame_that_is_not_like_the_flood_is_judged_by_itself() {
    let Some((program, case)) = flooded() else { return };
    let bytes = case.frame.bytes();
    let mut other = bytes.clone();
    other[11] ^= 1;
    other[27] ^= 1;
    for _ in 0..100 {
        program.run(&bytes, 3);
        program.run(&other, 2);
    }
    assert_eq!(dropped(&program), (500, 500));
    assert_eq!(program.challenger(case.frame.mac()).1.frames, 300);
    let mac: [u8; 6] = other[6..12].try_into().unwrap();
    assert_eq!(program.challenger(mac).1.frames, 200);
    // Its flags are those of its last frame.
    let mut alone = bytes.clone();
    alone[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    program.run(&bytes, 2);
    let group = program.challenger(case.frame.mac()).1.flags;
    program.run(&alone, 2);
    assert_ne!(program.challenger(case.frame.mac()).1.flags, group);
}

#[test]
fn a_flood_is_told_of_again_after_a_second() {
    let Some((mut program, case)) = flooded() else { return };
    let bytes = case.frame.bytes();
    program.run(&bytes, 3);
    assert!(program.event().is_some());
    assert_eq!(program.event(), None);
    let (key, mut challenger) = program.challenger(case.frame.mac());
    challenger.told_ns -= 1_000_000_000;
    program.challengers.insert(key, challenger, 0).unwrap();
    program.run(&bytes, 3);
    assert!(program.event().is_some());
    assert_eq!(program.event(), None);
}
