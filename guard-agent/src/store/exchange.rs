//! Puts a recovered store in the place of the old one, in steps each of which may be the last: a
//! kill or a power cut between two of them loses neither of the stores.
//!
//! The recovered store is built beside the old one. Once it is whole and on disk it is renamed, and
//! with that name it is the store: whoever opens the store next carries out the steps that are left.
//! Until then the old files are where they were.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{StoreError, marker};
use crate::failpoint::{self, Moment};

/// A recovered store that is being written.
const NEW: &str = ".new";

/// A recovered store that is whole.
const READY: &str = ".recovered";

/// What follows the name of a store in that of its marker.
pub(super) const MARKER: &str = ".marker";

/// All files of a store. The log goes with its database, or SQLite would apply it to another.
const FILES: [&str; 4] = ["-wal", "-shm", "", MARKER];

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A recovered store that waits to take the place of the old one.
pub(super) fn ready(path: &Path) -> PathBuf {
    beside(path, READY)
}

/// Where a recovered store is to be written. What a recovery left that was cut off is removed.
pub(super) fn begin(path: &Path) -> Result<PathBuf, StoreError> {
    let new = beside(path, NEW);
    for suffix in FILES {
        remove(&beside(&new, suffix))?;
    }
    remove(&beside(&ready(path), MARKER))?;
    Ok(new)
}

/// The recovered store is whole: from here on it is the store.
pub(super) fn declare(path: &Path) -> Result<(), StoreError> {
    let (new, ready) = (beside(path, NEW), ready(path));
    // Its database comes last, since its name is what counts.
    for suffix in [MARKER, ""] {
        rename(&beside(&new, suffix), &beside(&ready, suffix))?;
        sync(path)?;
    }
    Ok(())
}

/// Puts a recovered store, if one waits, in the place of the old one, and returns where the old
/// files are now, if there were any.
pub(super) fn finish(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let ready = ready(path);
    let io = |source| StoreError::Io { path: ready.clone(), source };
    let made = match fs::metadata(&ready).and_then(|file| file.modified()) {
        Ok(made) => made.duration_since(UNIX_EPOCH).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(source)),
    };
    // The same name each time it is tried.
    let aside = format!(".damaged-{}.{:03}", made.as_secs(), made.subsec_millis());
    let aside = beside(path, &aside);
    let marker = beside(&ready, MARKER);
    // Its own marker is in its place already if it is not beside it any more.
    let marked = !marker.try_exists().map_err(io)?;
    for suffix in FILES.iter().filter(|suffix| !marked || **suffix != MARKER) {
        rename(&beside(path, suffix), &beside(&aside, suffix))?;
    }
    sync(path)?;
    if !marked {
        rename(&marker, &beside(path, MARKER))?;
        sync(path)?;
    }
    rename(&ready, path)?;
    sync(path)?;
    let moved = FILES.iter().any(|suffix| beside(&aside, suffix).exists());
    Ok(moved.then_some(aside))
}

/// Renames a file, if it is there.
fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    let renamed = step().and_then(|()| fs::rename(from, to));
    unless_missing(from, renamed)
}

fn remove(file: &Path) -> Result<(), StoreError> {
    let removed = step().and_then(|()| fs::remove_file(file));
    unless_missing(file, removed)
}

fn unless_missing(file: &Path, result: io::Result<()>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::Io { path: file.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), StoreError> {
    let synced = step().and_then(|()| marker::sync_directory(path));
    synced.map_err(|source| StoreError::Io { path: path.to_owned(), source })
}

/// Each of these can be the last one that is carried out.
fn step() -> io::Result<()> {
    failpoint::reach(Moment::RecoveryStep);
    #[cfg(test)]
    super::tests::cut_off()?;
    Ok(())
}
