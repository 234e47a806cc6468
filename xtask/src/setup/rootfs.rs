//! A Debian with systemd in a directory of the cache, of the machine's own release, so that what is
//! built here runs there. The tests boot it under systemd-nspawn, and change nothing in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apt_sources::{Archive, codename};
use crate::process;
use crate::terminal::Task;

/// What it has beside the packages that no Debian is without.
const PACKAGES: &str = "systemd,systemd-sysv,dbus";

/// Where it is in `cache`; the tests look there, too.
fn dir(cache: &Path) -> PathBuf {
    cache.join("rootfs")
}

/// Makes it where it is missing; true if it was.
pub(super) fn ensure(cache: &Path) -> Result<bool> {
    let rootfs = dir(cache);
    if rootfs.is_dir() {
        return Ok(false);
    }
    let task = Task::start("a Debian to boot", "the package is installed and run in it");
    let staging = tempfile::Builder::new().prefix(".rootfs-").tempdir_in(cache)?;
    let made = staging.path().join("rootfs");
    let codename = codename()?;
    let mut mmdebstrap = process::tool("mmdebstrap");
    mmdebstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), &codename]);
    mmdebstrap.arg(&made).arg(Archive::of_machine()?.source(&codename).trim_end());
    process::quiet(&task, &mut mmdebstrap)?;
    fs::rename(&made, &rootfs)
        .with_context(|| format!("could not move a Debian to {}", rootfs.display()))?;
    task.done();
    Ok(true)
}
