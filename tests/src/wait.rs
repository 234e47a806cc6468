//! Waiting for what sends no event.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything in the lab may take before it counts as not happening: far more than a loaded
/// machine needs, so that only a real fault runs into it.
pub const TIMEOUT: Duration = Duration::from_secs(20);

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something.
///
/// Only for what the kernel or a program does without telling: where there is an event (a log
/// line, a line of a stream, the end of a process) wait for that.
///
/// # Errors
/// What `look` says, at once; and after [`TIMEOUT`], that `what` did not come about.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {TIMEOUT:?} in vain: {what}");
        }
        #[expect(clippy::disallowed_methods, reason = "the one place that waits without an event")]
        std::thread::sleep(BETWEEN_LOOKS);
    }
}
