//! How many files and connections the agent may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As the unit has it.
const MOST: u64 = 65536;

/// Raises the limit as far as the process may. Where it may not, the service manager has said how many
/// it is to have.
pub fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(MOST)), hard);
    }
}
