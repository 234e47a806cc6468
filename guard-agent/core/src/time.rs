//! Time, as a value: what decides anything takes the time as an argument.
//!
//! Deadlines are measured on `CLOCK_BOOTTIME`, which runs through suspend and which no step of the
//! wall clock touches; the wall clock is for people only.

use std::time::Duration;

use jiff::{Timestamp, Unit};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`.
    pub boot: Duration,
    /// The wall clock, for what people read.
    pub wall: Timestamp,
}

impl Now {
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
