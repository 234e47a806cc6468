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
    /// the two clocks are read one after the other. What is beyond all dates is at the last one.
    pub fn wall_at(self, boot: Duration) -> Timestamp {
        let at = match boot.checked_sub(self.boot) {
            Some(ahead) => self.wall.checked_add(ahead).unwrap_or(Timestamp::MAX),
            None => {
                let ago = self.boot.saturating_sub(boot);
                self.wall.checked_sub(ago).unwrap_or(Timestamp::MIN)
            }
        };
        at.round(Unit::Second).unwrap_or(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_all_dates_is_at_the_last_one() {
        let now = Now { boot: Duration::from_secs(10), wall: Timestamp::UNIX_EPOCH };
        assert_eq!(now.wall_at(Duration::from_secs(15)).as_second(), 5);
        assert_eq!(now.wall_at(Duration::from_secs(5)).as_second(), -5);
        for far in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
            assert_eq!(now.wall_at(far), Timestamp::MAX);
        }
    }
}
