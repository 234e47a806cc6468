//! `cargo xtask setup`: every prerequisite is looked for first, which is quick, and only what is
//! missing is installed. Each module here is one prerequisite, with the reason that it is one.

mod apt_sources;
mod cargo_tools;
mod chart;
mod containerds;
mod debian;
mod kernels;
mod peers;
mod private_apt;
mod rootfs;
mod rust_source;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

pub(crate) use self::chart::Tools as Chart;
pub(crate) use self::kernels::Kernel;
use crate::terminal;

/// What the machine is set up for.
///
/// [`Profile::Kernels`] includes [`Profile::Test`], and each includes [`Profile::Demo`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Profile {
    /// Building everything and running the demo.
    Demo,
    /// That, and measuring.
    Bench,
    /// Building everything, and making a release.
    Release,
    /// Building everything, the demo and the tests.
    Test,
    /// The same, and booting other kernels.
    Kernels,
}

/// Brings the machine to the state that `profile` wants.
pub(crate) fn run(profile: Profile) -> Result<()> {
    let started = Instant::now();
    terminal::heading("Set up what the build and the tests need");
    let cache = cache()?;
    let _lock = lock(&cache)?;

    let mut installed = debian::ensure(profile)?;
    installed |= rust_source::ensure()?;
    installed |= cargo_tools::ensure(profile)?;
    if profile >= Profile::Test {
        installed |= peers::ensure(&cache)?;
        installed |= rootfs::ensure(&cache)?;
        installed |= containerds::ensure(&cache)?;
    }
    if profile >= Profile::Kernels {
        installed |= kernels::ensure(&cache)?;
    }
    let state = if installed { "ready" } else { "everything is there" };
    terminal::line(&format!("{state} ({})", terminal::took(started.elapsed())));
    Ok(())
}

/// The virtual environment of the tests' Python peers; [`Profile::Test`] makes it.
pub(crate) fn peers() -> Result<PathBuf> {
    Ok(peers::dir(&cache()?))
}

/// The kernels to boot, oldest first; [`Profile::Kernels`] brings them.
pub(crate) fn kernels() -> Result<Vec<Kernel>> {
    kernels::list(&cache()?)
}

/// What checks the Helm chart, brought if it is not there.
pub(crate) fn chart() -> Result<Chart> {
    let cache = cache()?;
    let _lock = lock(&cache)?;
    chart::ensure(&cache)
}

/// What set-up keeps outside `target/`, so that `cargo clean` does not cost a download.
fn cache() -> Result<PathBuf> {
    let home = std::env::home_dir().context("no home directory: HOME is not set")?;
    let cache = home.join(".cache/guard");
    fs::create_dir_all(&cache).with_context(|| format!("could not create {}", cache.display()))?;
    Ok(cache)
}

/// Keeps a second set-up out: apt would refuse it, and both would write the same directories.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("setup.lock");
    let file =
        File::create(&path).with_context(|| format!("could not create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            terminal::line("another set-up is running; waiting for it to end");
            file.lock().with_context(|| format!("could not lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("could not lock {}", path.display()));
        }
    }
    Ok(file)
}
