//! What `replay` takes from the daemon's library: nothing else here names it.

pub use guard_agent::replay::{CaptureError, Claim, Report, Settings, replay};
