//! A directory on a disk that keeps what it is told.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

/// Makes a directory in `parent` that goes when it is dropped.
///
/// # Errors
/// The file system keeps nothing: there a commit costs nothing, and the figures would mean nothing.
pub(crate) fn directory(parent: &Path) -> Result<TempDir> {
    let kind = statfs(parent).with_context(|| format!("looking at {}", parent.display()))?;
    if kind.filesystem_type() == TMPFS_MAGIC {
        bail!(
            "{} is a tmpfs, where a commit costs nothing; name a directory on a real disk with \
             --dir",
            parent.display()
        );
    }
    let made = tempfile::Builder::new().prefix("guard-bench-").tempdir_in(parent);
    made.with_context(|| format!("making a directory in {}", parent.display()))
}
