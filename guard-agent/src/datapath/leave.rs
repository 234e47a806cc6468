//! Taking away what guard has left in the kernel: all of it, or what an agent of another layout did. The
//! directory may be the root of a file system that others use too: ours is what is named as ours are, and
//! what the kernel says to be a map or a program of ours.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{maps::MapInfo, programs::loaded_programs};
use guard_ebpf::abi::{self, LAYOUT_VERSION, MAPS};

use super::{
    KernelError,
    attach::{self, port_of},
    clsact,
    identity::Ends,
    program::{GENERATION, LEASES},
    tcx,
};

/// The layout that a directory is named after (`v3`).
fn layout(path: &Path) -> Option<u32> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    let version = name.strip_prefix('v')?.parse().ok()?;
    path.is_dir().then_some(version)
}

/// The directories of other layouts.
///
/// # Errors
/// What is there cannot be read.
pub(super) fn others(bpffs: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let mut others = list(bpffs)?;
    others.retain(|path| layout(path).is_some_and(|version| version != LAYOUT_VERSION));
    Ok(others)
}

/// What is in a directory; nothing where there is none.
fn list(path: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let error = |source| KernelError::Pin { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(error)).collect()
}

/// Whether a pin is of a map of ours.
fn is_map(pin: &Path) -> bool {
    let Some(name) = pin.file_name().and_then(OsStr::to_str) else { return false };
    let Ok(map) = MapInfo::from_pin(pin) else { return false };
    if name == GENERATION {
        return (map.key_size(), map.value_size(), map.max_entries()) == (4, 8, 1);
    }
    MAPS.contains(&name) && map.name_as_str() == Some(name)
}

/// Whether a pin is of a link with a program of ours, as far as the kernel tells: it names programs to
/// those only who may do everything.
fn is_link(pin: &Path) -> bool {
    let Some((_, id)) = tcx::linked(pin) else { return false };
    let program = loaded_programs().flatten().find(|program| program.id() == id);
    program.is_none_or(|program| program.name_as_str() == Some(abi::PROGRAM))
}

/// Takes the program off every port and unpins what guard has pinned below `bpffs`, in this layout
/// and in others. Returns how many links, filters and maps there were.
///
/// # Errors
/// A filter or a pin cannot be removed.
pub fn detach(bpffs: &Path) -> Result<usize, KernelError> {
    let mut ours = list(bpffs)?;
    ours.retain(|path| layout(path).is_some() || path.ends_with(LEASES));
    ours.iter().map(|path| clear(path)).sum()
}

/// Removes what is ours in a directory, and it as well if that was all.
fn clear(directory: &Path) -> Result<usize, KernelError> {
    let mut removed = 0;
    for pin in list(directory)? {
        let port = pin.file_name().and_then(OsStr::to_str).and_then(port_of);
        match port {
            Some(ifindex) if pin.is_dir() => clsact::detach(directory, ifindex)?,
            Some(ifindex) if is_link(&pin) => tcx::detach(directory, ifindex)?,
            None if is_map(&pin) => attach::remove(&pin)?,
            _ => continue,
        }
        removed += 1;
    }
    Ends::open(directory).retain(|_| false);
    match fs::remove_dir(directory) {
        // Somebody else has something there.
        Err(source) if source.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(removed),
        result => attach::gone(directory, result).map(|()| removed),
    }
}

/// Takes over from agents of other layouts: their programs leave the ports, now that this agent's is on
/// them. Returns how many links, filters and maps there were.
///
/// # Errors
/// A pin cannot be removed.
pub(super) fn retire_others(bpffs: &Path, pins: &Path) -> Result<usize, KernelError> {
    others(bpffs)?.iter().try_fold(0, |removed, other| {
        clsact::hand_over(other, pins)?;
        Ok(removed + clear(other)?)
    })
}
