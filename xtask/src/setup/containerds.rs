//! Later versions of containerd than the machine's, unpacked into the cache and never installed:
//! the inventory has to work with them, too. They run the machine's own runc.
//!
//! A version that is there stays: a newer one of the same suite comes when its directory in the
//! cache is removed.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::apt_sources::Archive;
use super::private_apt::PrivateApt;
use crate::process;
use crate::terminal::Task;

const PACKAGE: &str = "containerd";

/// Debian's suites with another major or minor version: 1.7, and 2.
const SUITES: [&str; 2] = ["trixie", "forky"];

/// What is taken out of the package.
const PROGRAMS: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];

/// Brings those that are missing; true if there were some. The scenarios look in the same place.
pub(super) fn ensure(cache: &Path) -> Result<bool> {
    let all = cache.join(PACKAGE);
    let missing = SUITES.into_iter().filter(|suite| !all.join(suite).is_dir());
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let archive = Archive::of_machine()?;
    fs::create_dir_all(&all).with_context(|| format!("could not create {}", all.display()))?;
    for suite in missing {
        let task = Task::start(&format!("{suite}'s containerd"), "the inventory works with each");
        fetch(&task, &archive, suite, &all).with_context(|| format!("{suite}'s containerd"))?;
        task.done();
    }
    Ok(true)
}

fn fetch(task: &Task, archive: &Archive, suite: &str, all: &Path) -> Result<()> {
    let apt = PrivateApt::of_suite(task, archive, suite)?;
    let versions = apt.versions(PACKAGE)?;
    let version = versions.first().with_context(|| format!("{suite} has no {PACKAGE}"))?;
    let file = apt.download(task, PACKAGE, version)?;
    let staging = tempfile::Builder::new().prefix(".containerd-").tempdir_in(all)?;
    let (unpacked, kept) = (staging.path().join("unpacked"), staging.path().join("kept"));
    process::read(process::tool("dpkg-deb").arg("--extract").arg(file).arg(&unpacked))?;
    fs::create_dir(&kept)?;
    for program in PROGRAMS {
        fs::rename(unpacked.join("usr/bin").join(program), kept.join(program))
            .with_context(|| format!("{version} has no {program}"))?;
    }
    // One that wants a later C library than the machine's is of no use.
    process::read(process::tool(kept.join("containerd")).arg("--version"))?;
    let destination = all.join(suite);
    fs::rename(&kept, &destination)
        .with_context(|| format!("could not move it to {}", destination.display()))
}
