//! What needs root says so in one line, with the command that has it.

use anyhow::{Result, ensure};

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Refuses unless we are root; `why` completes "root is needed to …", `task` the command.
pub(crate) fn require(why: &str, task: &str) -> Result<()> {
    ensure!(
        is_root(),
        "root is needed to {why}; run: sudo -E env PATH=\"$PATH\" cargo xtask {task}"
    );
    Ok(())
}
