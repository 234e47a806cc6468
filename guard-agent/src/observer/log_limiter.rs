//! Log lines about what guests do, at a rate that no guest can raise.

use std::time::Duration;

/// Lines that may be written in one window.
const LINES: u32 = 20;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts lines, and those that were left out.
#[derive(Debug, Default)]
pub(super) struct LogLimiter {
    window: Duration,
    written: u32,
    left_out: u64,
}

impl LogLimiter {
    /// Whether a line may be written now, on `CLOCK_MONOTONIC`; and how many were left out since
    /// the last one that was.
    pub(super) fn may_write(&mut self, now: Duration) -> Option<u64> {
        if now.saturating_sub(self.window) >= WINDOW {
            (self.window, self.written) = (now, 0);
        }
        if self.written == LINES {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_with_the_next_line() {
        let mut limiter = LogLimiter::default();
        let at = Duration::from_secs;
        let written = (0..100).filter_map(|_| limiter.may_write(at(5))).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(limiter.may_write(at(6)), Some(100 - u64::from(LINES)));
        assert_eq!(limiter.may_write(at(6)), Some(0));
    }
}
