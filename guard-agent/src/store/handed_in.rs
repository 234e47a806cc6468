//! A database that somebody hands in: it is copied, and only the copy is opened. Nobody's file is changed
//! by being looked at, and one that never answers keeps nobody waiting who has the store.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use guard_core::bounds;
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc::{self, F_RDLCK, F_UNLCK, SEEK_SET},
};

use super::{StoreError, error::lock_holder, exchange::beside, header};
use crate::regular;

/// A page of the database, as SQLite makes them.
const PAGE: u64 = 4096;

/// Where SQLite locks a file (`PENDING_BYTE`), and how many bytes.
const LOCKS: (libc::off_t, libc::off_t) = (0x4000_0000, 512);

static COPIES: AtomicU32 = AtomicU32::new(0);

/// The copy of a database and its log, which goes when it is dropped.
#[derive(Debug)]
pub struct HandedIn {
    /// What it is a copy of.
    pub(super) path: PathBuf,
    db: PathBuf,
}

impl HandedIn {
    /// Copies a database beside the store.
    ///
    /// # Errors
    /// It is not there, no regular file, in use, or cannot be read.
    pub fn take(path: &Path, store: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        if is_file_of(path, store) {
            // To open and close it would end the locks that this process has on it.
            let holder = "this agent, whose own it is".to_owned();
            return Err(StoreError::Locked { path: path.to_owned(), holder });
        }
        refuse_in_use(path)?;
        // A file may say that it is larger than the disk.
        let length = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let bytes = length(path).saturating_add(length(&beside(path, "-wal")));
        bounds::DATABASE
            .check("the database", usize::try_from(bytes).unwrap_or(usize::MAX))
            .map_err(|much| io(io::Error::new(io::ErrorKind::FileTooLarge, much)))?;
        Self::copy(path, store).map_err(io)
    }

    /// As [`HandedIn::take`], whoever has it open.
    pub(super) fn copy(path: &Path, store: &Path) -> io::Result<Self> {
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let db = beside(store, &format!(".salvage-{number}"));
        let copy = Self { path: path.to_owned(), db };
        // Of a recovery that was cut off: its log would be applied to this copy.
        copy.remove();
        let log = copied(&beside(path, "-wal"), &beside(&copy.db, "-wal"))?;
        if !copied(path, &copy.db)? && !log {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&copy.db)?;
        if log && file.metadata()?.len() < PAGE {
            // SQLite deletes the log of an empty file, and all that is missing may be in it.
            file.set_len(PAGE)?;
        }
        Ok(copy)
    }

    pub(super) fn db(&self) -> &Path {
        &self.db
    }

    /// Makes its header that of a store.
    pub(super) fn mend(&self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.db)?;
        let mut header = [0; header::LENGTH];
        file.read_exact_at(&mut header, 0)?;
        header::mend(&mut header);
        file.write_all_at(&header, 0)
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm"] {
            // Some of them are not there.
            let _ = fs::remove_file(beside(&self.db, suffix));
        }
    }
}

impl Drop for HandedIn {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Refuses a database that someone has open for writing: a copy would be torn.
pub(super) fn refuse_in_use(path: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    if !is_locked(path).map_err(io)? {
        return Ok(());
    }
    let holder = lock_holder(path).unwrap_or_else(|| "another process".to_owned());
    Err(StoreError::Locked { path: path.to_owned(), holder })
}

fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match regular::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let (l_start, l_len) = LOCKS;
    let (l_type, l_whence) = (lock(F_RDLCK)?, lock(SEEK_SET)?);
    let mut lock_there = libc::flock { l_type, l_whence, l_start, l_len, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock_there))?;
    Ok(lock_there.l_type != lock(F_UNLCK)?)
}

fn lock(number: i32) -> io::Result<libc::c_short> {
    number.try_into().map_err(io::Error::other)
}

fn is_file_of(path: &Path, store: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    identity(path).is_some_and(|file| Some(file) == identity(store))
}

/// Copies a file. Returns whether there is one.
fn copied(from: &Path, to: &Path) -> io::Result<bool> {
    let mut source = match regular::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        source => source?,
    };
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut copy)?;
    Ok(true)
}
