//! Reads the clocks. What decides anything takes the time as an argument.

use std::{io, time::Duration};

use guard_core::time::Now;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Reads `CLOCK_BOOTTIME` and the wall clock.
pub fn now() -> Now {
    Now { boot: clock(ClockId::CLOCK_BOOTTIME), wall: Timestamp::now() }
}

/// `CLOCK_MONOTONIC`, on which the program in the kernel stamps what it sees.
pub fn monotonic() -> Duration {
    clock(ClockId::CLOCK_MONOTONIC)
}

fn clock(id: ClockId) -> Duration {
    Duration::from(clock_gettime(id).expect("Linux has this clock since 2.6.39"))
}

/// The running boot's id: deadlines of another boot are carried over, not compared.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
