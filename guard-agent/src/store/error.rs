//! What can be wrong with a store, and what to do about it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use guard_core::lease::Generation;
use nix::sys::stat;
use rusqlite::ErrorCode;

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "the lease store {} is in use by {holder}; stop it, or give this agent a state_dir of its own",
        path.display()
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who has it locked.
        holder: String,
    },
    /// There was one, and it is gone.
    #[error(
        "the lease store {} is missing, although {trace}; restore it with `guardctl recover --from \
         BACKUP`, or find out what can be with `guardctl recover`. Where it was removed on purpose, \
         `guard-agent detach` removes what the kernel has of it", path.display()
    )]
    Missing {
        /// The store.
        path: PathBuf,
        /// What shows that there was one.
        trace: String,
    },
    /// The file is something else.
    #[error(
        "{} is not a lease store ({what}); move it away, or set state_dir to another directory",
        path.display()
    )]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A newer agent wrote it.
    #[error(
        "the lease store {} has schema {found}, and this agent knows up to {known}; run the newer \
         agent", path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The last one that is known.
        known: i64,
    },
    /// Its contents contradict themselves.
    #[error(
        "the lease store {} is damaged: {what}; restore it with `guardctl recover --from BACKUP`, \
         or rebuild what can be with `guardctl recover`", path.display()
    )]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// Rows that cannot be read, as they are.
        rows: Vec<String>,
    },
    /// Commits that were acknowledged are not in it.
    #[error(
        "the lease store {} has {has} commits and had {had} before: its write-ahead log was lost \
         or cut, or the file is an older copy; recover with `guardctl recover`", path.display()
    )]
    Behind {
        /// The store.
        path: PathBuf,
        /// Commits in the store.
        has: u64,
        /// Commits that the marker knows of.
        had: u64,
    },
    /// The marker cannot be read or written.
    #[error("the marker {}: {what}", path.display())]
    Marker {
        /// The marker.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The disk is full or read-only, or the directory is missing.
    #[error("the lease store {} cannot be written: {source}", path.display())]
    Unwritable {
        /// The store.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The file cannot be looked at.
    #[error("the lease store {}: {source}", path.display())]
    Io {
        /// The store.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StoreError {
    pub(super) fn damaged(path: &Path, what: String) -> Self {
        Self::Damaged { path: path.to_owned(), what, rows: Vec::new() }
    }

    /// The kernel knows of leases that no store has: this generation was handed out.
    pub fn missing(path: &Path, generation: Generation) -> Self {
        let trace = format!("the kernel knows that generation {generation} was handed out");
        Self::Missing { path: path.to_owned(), trace }
    }

    /// The same error about a file that a marker, or the kernel, says is a lease store: what is not
    /// readable in it is damage.
    #[must_use]
    pub fn of_ours(self) -> Self {
        match self {
            Self::NotAStore { path, what } => Self::damaged(&path, what),
            Self::Unwritable { path, source } if super::header::says_read_only(&path) => {
                Self::damaged(&path, format!("a version in its header is unknown ({source})"))
            }
            other => other,
        }
    }

    pub(super) fn marker(store: &Path, source: &io::Error) -> Self {
        Self::Marker { path: super::marker::path_of(store), what: source.to_string() }
    }

    /// What an error of SQLite says about the store.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let holder = lock_holder(&path).unwrap_or_else(|| "another process".to_owned());
                Self::Locked { path, holder }
            }
            Some(ErrorCode::NotADatabase) => {
                Self::NotAStore { path, what: "it is not a database".to_owned() }
            }
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure,
            ) => Self::Unwritable { path, source },
            _ => Self::Damaged { path, what: source.to_string(), rows: Vec::new() },
        }
    }
}

/// Who has a file locked, from `/proc/locks` (proc_locks(5)): to open the file and ask would end our own
/// locks on it when it is closed.
pub(super) fn lock_holder(path: &Path) -> Option<String> {
    let file = fs::metadata(path).ok()?;
    let (major, minor) = (stat::major(file.dev()), stat::minor(file.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // "1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"
    let mut holders = locks.lines().filter_map(|line| {
        let [_, "POSIX", _, _, pid, of, ..] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            return None;
        };
        (of == inode).then_some(pid)
    });
    let pid = holders.find(|pid| *pid != std::process::id().to_string())?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    Some(match name {
        Ok(name) => format!("process {pid} ({})", name.trim().escape_debug()),
        Err(_) => format!("process {pid}"),
    })
}

/// Why a transaction was not committed; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A row is not what the index says it was.
    #[error("the row of {0} is not what it was")]
    Drift(String),
    /// SQLite refuses.
    #[error("the lease store cannot be written: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl CommitError {
    /// Whether the store is damaged, as opposed to not writable for the moment.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Drift(_) => true,
            Self::Sqlite(error) => !matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::CannotOpen
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::DiskFull
                        | ErrorCode::ReadOnly
                        | ErrorCode::PermissionDenied
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::OutOfMemory
                )
            ),
        }
    }
}
