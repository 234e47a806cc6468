//! The standard library's source. rustup ships no built `core` for the eBPF target, so cargo builds
//! it (`-Z build-std=core`) from the source that belongs to this very compiler.
//!
//! rustup's component is taken where rustup can reach its server. Where it cannot, Debian's
//! `rust-src` of the same version holds the same files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::apt_sources::Archive;
use super::private_apt::PrivateApt;
use crate::process;
use crate::terminal::Task;

/// Where a suite newer than the machine's may have the compiler's version, likeliest first.
const SUITES: [&str; 4] = ["trixie-backports", "trixie", "forky", "sid"];

/// Puts the source into the compiler's sysroot; true if it was not there.
pub(super) fn ensure() -> Result<bool> {
    let sysroot = process::read(process::tool("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if is_complete(&library) {
        return Ok(false);
    }
    let task = Task::start("the standard library's source", "the eBPF target is built from it");
    let mut add = process::tool("rustup");
    add.args(["component", "add", "rust-src"]);
    match process::quiet(&task, &mut add) {
        Ok(()) if is_complete(&library) => {}
        Ok(()) => from_debian(&task, &library)?,
        Err(error) => {
            task.note("rustup cannot bring it; looking for Debian's package");
            from_debian(&task, &library)
                .with_context(|| format!("rustup did not bring it either ({error:#})"))?;
        }
    }
    task.done();
    Ok(true)
}

/// Cargo reads the library's lock file first.
fn is_complete(library: &Path) -> bool {
    library.join("Cargo.lock").is_file()
}

fn from_debian(task: &Task, library: &Path) -> Result<()> {
    let release = release(&process::read(process::tool("rustc").arg("--version"))?)?;
    let archive = Archive::of_machine()?;
    for suite in SUITES {
        task.progress(&format!("looking into {suite}"));
        // A suite that has left the archive, or is signed with a key newer than this machine, is
        // no reason to stop: the next may do.
        let Ok(apt) = PrivateApt::of_suite(task, &archive, suite) else { continue };
        let versions = apt.versions("rust-src")?;
        let Some(version) = versions.iter().find(|version| is_of(version, &release)) else {
            continue;
        };
        let package = apt.download(task, "rust-src", version)?;
        task.progress(&format!("unpacking rust-src {version}"));
        return unpack(&package, &release, library);
    }
    bail!(
        "none of Debian's {} has rust-src {release}; put the source of this compiler's standard \
         library at {}",
        SUITES.join(", "),
        library.display()
    )
}

/// Unpacks beside the destination, so that the last step is a rename and a source that is there is
/// always whole.
fn unpack(package: &Path, release: &str, library: &Path) -> Result<()> {
    let parent = library.parent().context("the library's directory has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("could not create {}", parent.display()))?;
    let staging = tempfile::Builder::new()
        .prefix(".library-")
        .tempdir_in(parent)
        .with_context(|| format!("could not write to {}", parent.display()))?;
    process::read(process::tool("dpkg-deb").arg("--extract").arg(package).arg(staging.path()))?;

    let source: PathBuf = staging.path().join(format!("usr/src/rustc-{release}/library"));
    if library.exists() {
        // What an interrupted download left: it has no lock file, or we would not be here.
        fs::remove_dir_all(library)
            .with_context(|| format!("could not remove the incomplete {}", library.display()))?;
    }
    fs::rename(&source, library)
        .with_context(|| format!("could not move {} to {}", source.display(), library.display()))
}

/// `1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn release(version: &str) -> Result<String> {
    let release = version.split_whitespace().nth(1);
    release.map(str::to_owned).with_context(|| format!("rustc's version reads {version:?}"))
}

/// Whether a Debian version, say `1.95.0+dfsg1-2~bpo13+1`, is of this upstream release.
fn is_of(version: &str, release: &str) -> bool {
    version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_compilers_own_release_will_do() {
        assert!(is_of("1.95.0+dfsg1-2~bpo13+1", "1.95.0"));
        assert!(is_of("1.95.0-1", "1.95.0"));
        assert!(!is_of("1.95.01+dfsg1-1", "1.95.0"));
        assert!(!is_of("1.94.0+dfsg1-1", "1.95.0"));
    }

    #[test]
    fn rustcs_version_is_read() {
        assert_eq!(release("rustc 1.95.0 (59807616e 2026-04-14)\n").unwrap(), "1.95.0");
        assert!(release("").is_err());
    }
}
