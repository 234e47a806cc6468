//! The directory of pins is the agent's own: closed to others, who could put maps of theirs in the place of
//! ours, and one agent's at a time: two with a store each would hand out one address twice.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use super::KernelError;

/// Nobody but the owner, and the bit by which others may remove only what is theirs.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The directory is this agent's until this is dropped, or the agent ends in any way.
pub(crate) struct Claimed {
    _lock: Flock<File>,
}

/// Takes the directory of pins for this agent.
///
/// # Errors
/// It is not on a BPF file system, or another's.
pub(crate) fn claim(bpffs: &Path) -> Result<Claimed, KernelError> {
    make(bpffs, bpffs)?;
    let error = |source| KernelError::Pin { path: bpffs.to_owned(), source };
    let found = fs::metadata(bpffs).map_err(error)?;
    let above = bpffs.parent().and_then(|parent| fs::metadata(parent).ok());
    if above.is_some_and(|above| above.dev() == found.dev()) {
        close(bpffs)?;
    } else if found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0 {
        // The root of a file system is everybody's; what is made in it is closed.
        let (path, mode) = (bpffs.to_owned(), found.mode() & 0o7777);
        return Err(KernelError::Open { path, mode });
    }
    let file = File::open(bpffs).map_err(error)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Claimed { _lock: lock }),
        Err((_, Errno::EAGAIN)) => Err(KernelError::Taken { path: bpffs.to_owned() }),
        Err((_, errno)) => Err(error(errno.into())),
    }
}

/// A directory for pins, closed to others.
///
/// # Errors
/// It is not on a BPF file system, cannot be made, or is another's.
pub(crate) fn directory(bpffs: &Path, name: &str) -> Result<PathBuf, KernelError> {
    let pins = bpffs.join(name);
    make(bpffs, &pins)?;
    close(&pins)?;
    Ok(pins)
}

fn make(bpffs: &Path, pins: &Path) -> Result<(), KernelError> {
    let error = |source| KernelError::Pin { path: pins.to_owned(), source };
    // Nothing is made on the wrong file system; on sysfs, where one is mounted over, nothing can be.
    let there = pins.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let on = statfs(there).map_err(|errno| error(errno.into()))?;
    if on.filesystem_type() != BPF_FS_MAGIC {
        return Err(KernelError::NoBpffs { path: bpffs.to_owned() });
    }
    fs::create_dir_all(pins).map_err(error)
}

fn close(path: &Path) -> Result<(), KernelError> {
    let error = |source: io::Error| KernelError::Pin { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(error)?;
    let (owner, own) = (found.uid(), geteuid().as_raw());
    if owner != own {
        return Err(KernelError::NotOurs { path: path.to_owned(), owner, own });
    }
    if found.mode() & OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(error)?;
        tracing::info!(path = %path.display(), "closed to others from now on");
    }
    Ok(())
}
