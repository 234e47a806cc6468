//! Time, as the core takes it: an argument.
//!
//! Deadlines are measured on `CLOCK_BOOTTIME`, which runs through suspend and which no step of the
//! wall clock touches; the wall clock is for people only.

use std::{io, time::Duration};

use jiff::{Timestamp, Unit};
use nix::time::{ClockId, clock_gettime};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`.
    pub boot: Duration,
    /// The wall clock, for what people read.
    pub wall: Timestamp,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { boot: clock(ClockId::CLOCK_BOOTTIME), wall: Timestamp::now() }
    }

    /// What the wall clock shows at a moment on `CLOCK_BOOTTIME`, for people: to the second, since
    /// the two clocks are read one after the other.
    pub fn wall_at(self, boot: Duration) -> Timestamp {
        let at = match boot.checked_sub(self.boot) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(self.boot.saturating_sub(boot)),
        };
        at.and_then(|at| at.round(Unit::Second)).unwrap_or(self.wall)
    }
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
