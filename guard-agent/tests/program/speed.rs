//! Nanoseconds per path, for people:
//! `cargo test -p guard-agent --test program -- --ignored --nocapture`.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::libc::{SYS_bpf, syscall};

use crate::{
    case,
    common::HERE,
    kernel::{Program, coarse_ns},
};

const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_TEST_RUN: i64 = 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// `mov64 r0, -1` and `exit`.
const EMPTY: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
/// Runs in a batch, and batches: the least of them is what the path costs.
const RUNS: u32 = 10_000;
const BATCHES: u32 = 300;

/// A program that does nothing, run in the same way.
struct Empty(OwnedFd);

fn bpf(command: i64, attributes: &mut [u64; 16]) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "bpf(2) has no wrapper for a program without an object file")]
    // SAFETY: the attributes are as long as said, longer than the kernel reads of these commands,
    // and the buffers that they name outlive the call.
    let result =
        unsafe { syscall(SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap()) }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl Empty {
    fn load() -> Self {
        let mut attributes = [0; 16];
        attributes[0] = pair(BPF_PROG_TYPE_SCHED_CLS, u32::try_from(EMPTY.len()).unwrap());
        attributes[1] = EMPTY.as_ptr() as u64;
        attributes[2] = c"GPL".as_ptr() as u64;
        let fd = bpf(BPF_PROG_LOAD, &mut attributes).unwrap();
        #[expect(unsafe_code, reason = "a descriptor comes as a number")]
        // SAFETY: the kernel has just opened it for us.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn run(&self, bytes: &[u8]) -> u128 {
        let mut attributes = [0; 16];
        attributes[0] = pair(u32::try_from(self.0.as_raw_fd()).unwrap(), 0);
        attributes[1] = pair(u32::try_from(bytes.len()).unwrap(), 0);
        attributes[2] = bytes.as_ptr() as u64;
        attributes[4] = pair(RUNS, 0);
        bpf(BPF_PROG_TEST_RUN, &mut attributes).unwrap();
        u128::from(attributes[4] >> 32)
    }
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(mut program) = Program::load() else { return };
    let empty = Empty::load();
    for (file, name) in [
        ("arp", "request_by_the_owner_seen_just_now"),
        ("arp", "same_claim_within_the_second_stores_nothing"),
        ("ipv4", "packet_by_the_owner_seen_just_now"),
        ("ipv4", "packet_by_the_live_claimant_seen_just_now"),
        ("ndp", "packet_by_the_owner_seen_just_now"),
        ("ndp", "owner_defends_its_address"),
        ("ipv4", "routed_source_on_an_uplink"),
        ("arp", "request_for_a_declared_owners_address"),
        ("ndp", "behind_more_headers_than_are_read"),
        ("layer2", "any_kind_from_an_unknown_mac"),
    ] {
        let case = case(file, name);
        let bytes = case.frame.bytes();
        program.prepare(&case, coarse_ns() + 3_600_000_000_000);
        let (mut nothing, mut path) = (u128::MAX, u128::MAX);
        for _ in 0..BATCHES {
            nothing = nothing.min(empty.run(&bytes));
            path = path.min(program.run(&bytes, RUNS).as_nanos());
        }
        println!("{file} {name}: {} ns over an empty program ({nothing} ns)", path - nothing);
    }
    program.ports.remove(&HERE).unwrap();
}
