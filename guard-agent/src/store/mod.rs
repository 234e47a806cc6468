//! The lease store: one SQLite file with one writer.
//!
//! What SQLite guarantees is taken from it: a commit is on disk before it returns (WAL,
//! `synchronous=FULL`), and no second process gets in (`locking_mode=EXCLUSIVE`). What it does not
//! notice is looked for here: a byte that flipped inside a value (each row has a checksum), rows
//! that went missing (their number and the sum of their checksums are kept), and a write-ahead log
//! that was cut or deleted, or a file from the past (a marker beside the store counts commits).

mod columns;
mod contents;
mod error;
mod exchange;
mod handed_in;
mod header;
mod marker;
mod meta;
mod record;
mod recover;
mod scan;
mod schema;
mod value;

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use guard_core::{
    lease::{Carry, Contents, HighWater, Restored, RowChange, Swap, Write},
    time::Now,
};
use rusqlite::{Connection, OpenFlags, backup::Backup, config::DbConfig};

use self::{columns::Columns, marker::Marker, meta::Meta};
pub use self::{
    error::{CommitError, StoreError},
    handed_in::HandedIn,
    recover::{KernelHolder, Known, Recovered, epoch_of, recover},
};
use crate::failpoint::{self, Moment};

/// How long a predecessor that is still ending may keep the lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How many pages of 4 KiB the write-ahead log grows to. Until it has this size each commit makes it longer,
/// which takes half as long again as writing over what is there; from then on every five hundredth commit
/// waits for a checkpoint.
const CHECKPOINT: i64 = 1024;

/// The running boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its id.
    pub id: String,
    /// Its time.
    pub now: Now,
}

/// An open store that nobody else can open.
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    path: PathBuf,
    marker: Marker,
    meta: Meta,
    /// Which file it is: device and inode.
    file: (u64, u64),
    restored: Option<Restored>,
    /// How many commits are to fail, for tests of what happens then.
    #[cfg(test)]
    pub(crate) failing: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Store {
    /// Opens the store at `path`, or makes one where there has never been one. All rows are read
    /// and checked.
    ///
    /// # Errors
    /// The store is in use, lost, damaged, not a store or cannot be written. Nothing is changed
    /// then, and nothing is started empty in its place.
    pub fn open(path: &Path, boot: &Boot) -> Result<Self, StoreError> {
        exchange::finish(path)?;
        let marker = Marker::read(path)?;
        // A marker says whose file it is, whatever is in the file.
        let ours = marker.as_ref().is_some_and(|marker| !marker.is_creating());
        let opened = Self::open_beside(path, marker, boot);
        if ours { opened.map_err(StoreError::of_ours) } else { opened }
    }

    /// Opens the store that this is the marker of.
    fn open_beside(path: &Path, marker: Option<Marker>, boot: &Boot) -> Result<Self, StoreError> {
        let first_start = is_first_start(path, marker.as_ref())?;
        if first_start && let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        }
        let marker = match marker {
            None if first_start => Some(Marker::create(path)?),
            marker => marker,
        };
        let mut conn = connect(path, first_start)?;
        let fault = |source| StoreError::sqlite(path, source);
        let version = schema::version(&mut conn, path, first_start, boot)?;
        let damage: String =
            conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fault)?;
        if damage != "ok" {
            return Err(StoreError::damaged(path, damage));
        }
        let mut meta = Meta::read(&conn, path)?;
        let had = marker.as_ref().map_or(0, Marker::commits);
        if meta.commits < had {
            return Err(StoreError::Behind { path: path.to_owned(), has: meta.commits, had });
        }
        let contents = contents::read(&conn, path, &meta, version)?;
        // What is damaged stays as it was found; this is whole.
        schema::migrate(&mut conn, path, version, &contents, &mut meta)?;
        let carry = (meta.boot_id != boot.id)
            .then_some(Carry { then: Duration::from_nanos(meta.boot_time_ns), now: boot.now.boot });
        let mut high_water = meta.high_water;
        high_water.boot += u64::from(carry.is_some());
        let restored = Restored { contents, high_water, carry, opened: boot.now.boot };

        // What is not written anew at once would be read by the new boot's clock.
        if carry.is_none() {
            meta.boot_time_ns = nanos(boot.now.boot);
        }
        meta.epoch += 1;
        meta.commits += 1;
        meta.write(&conn).map_err(fault)?;
        let mut marker = match marker {
            Some(marker) => marker,
            None => {
                tracing::warn!(path = %path.display(), "the store has no marker; making one");
                Marker::create(path)?
            }
        };
        marker::sync_directory(path)
            .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        marker.opened(meta.commits, meta.rows).map_err(|e| StoreError::marker(path, &e))?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(fault)?;
        meta.pending_boot = carry.map(|_| boot.id.clone());
        Ok(Self {
            conn,
            path: path.to_owned(),
            marker,
            meta,
            file: identity(path)?,
            restored: Some(restored),
            #[cfg(test)]
            failing: Default::default(),
        })
    }

    /// Whether anything says that there is a store at `path`, or was: its file, log or marker.
    pub fn left_a_trace(path: &Path) -> bool {
        let log = exchange::beside(path, "-wal");
        let files = [path.to_owned(), log, marker::path_of(path), exchange::ready(path)];
        files.iter().any(|file| file.try_exists().unwrap_or(true))
    }

    /// What the store held when it was opened. Returns it once.
    pub fn take_restored(&mut self) -> Restored {
        self.restored.take().unwrap_or_default()
    }

    /// Counts the opens of this store; committed before anything else of this one.
    pub fn epoch(&self) -> u64 {
        self.meta.epoch
    }

    /// Has it count its opens from here on, if it has not come so far: with the next commit it is
    /// stored.
    pub fn raise_epoch(&mut self, epoch: u64) {
        self.meta.epoch = self.meta.epoch.max(epoch);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.meta.rows
    }

    /// Writes changes in one transaction, each a compare-and-swap on what the row was before. When
    /// it returns, they are on disk.
    ///
    /// # Errors
    /// Nothing was written: the disk is full or read-only, or a row is not what it should be.
    pub fn commit<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Write>,
        high_water: HighWater,
        now: Now,
    ) -> Result<(), CommitError> {
        let mut meta = self.meta.clone();
        meta.high_water = high_water;
        meta.commits += 1;
        meta.boot_time_ns = nanos(now.boot);
        if let Some(id) = meta.pending_boot.take() {
            meta.boot_id = id;
        }
        let written = self.transaction(changes, &mut meta);
        if let Err(error) = written {
            // Fails where SQLite has rolled back by itself already.
            let _ = self.conn.execute_batch("ROLLBACK");
            return Err(error);
        }
        failpoint::reach(Moment::AfterCommit);
        self.meta = meta;
        // The store has it; the marker only lags.
        if let Err(error) = self.marker.committed(self.meta.commits, self.meta.rows) {
            tracing::warn!(%error, "the marker beside the store cannot be written");
        }
        Ok(())
    }

    fn transaction<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Write>,
        meta: &mut Meta,
    ) -> Result<(), CommitError> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for change in changes {
            let (old, new) = self.write(change)?;
            meta.count(old, new);
        }
        meta.write(&self.conn)?;
        #[cfg(test)]
        tests::fail(&self.failing)?;
        failpoint::reach(Moment::BeforeCommit);
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Replaces one row. Returns the checksums of the old one and the new one.
    fn write(&self, change: &Write) -> Result<(Option<u32>, Option<u32>), CommitError> {
        let conn = &self.conn;
        let (swapped, what) = match change {
            Write::Address(RowChange { place, old, new, .. }) => {
                let columns = |row| Columns::of(place, row);
                let (old, new) = (old.as_ref().map(columns), new.as_ref().map(columns));
                if columns::swap(conn, old.as_ref(), new.as_ref())? {
                    let crc = |columns: &Columns| columns.checksum();
                    return Ok((old.as_ref().map(crc), new.as_ref().map(crc)));
                }
                (None, format!("{} on {}", place.address, place.segment))
            }
            Write::Subnet(Swap { old, new }) => {
                let (old, new) = (old.as_deref(), new.as_deref());
                let what = old.or(new).map(ToString::to_string).unwrap_or_default();
                (record::swap(conn, old, new)?, format!("subnet {what}"))
            }
            Write::Interface(Swap { old, new }) => {
                let (old, new) = (old.as_deref(), new.as_deref());
                let what = old.or(new).map(|name| &*name.name).unwrap_or_default();
                (record::swap(conn, old, new)?, format!("interface {what}"))
            }
        };
        swapped.ok_or(CommitError::Drift(what))
    }

    /// Reads everything again, from the disk, and checks it as [`Store::open`] does.
    ///
    /// # Errors
    /// What is on disk is not what was written.
    pub fn read_again(&self) -> Result<Contents, StoreError> {
        // What is written to a file without a name is gone with the agent.
        if identity(&self.path).ok() != Some(self.file) {
            let what = "its file was removed or replaced while it was open".to_owned();
            return Err(StoreError::damaged(&self.path, what));
        }
        // Pages in memory are as they were written.
        self.conn.release_memory().map_err(|source| StoreError::sqlite(&self.path, source))?;
        let meta = Meta::read(&self.conn, &self.path)?;
        contents::read(&self.conn, &self.path, &meta, schema::VERSION)
    }

    /// The store as it is now, in memory: to write it somewhere may take its time.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let fault = |source| StoreError::sqlite(&self.path, source);
        let mut copy = Connection::open_in_memory().map_err(fault)?;
        Backup::new(&self.conn, &mut copy).and_then(|backup| backup.step(-1)).map_err(fault)?;
        Ok(Snapshot { copy, rows: self.rows() })
    }

    /// Ends with everything in the one file.
    ///
    /// # Errors
    /// The last checkpoint failed; the write-ahead log keeps what it holds.
    pub fn close(self) -> Result<(), StoreError> {
        let Self { conn, path, mut marker, meta, .. } = self;
        conn.flush_prepared_statement_cache();
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|source| StoreError::sqlite(&path, source))?;
        conn.close().map_err(|(_, source)| StoreError::sqlite(&path, source))?;
        marker.closed(meta.commits, meta.rows).map_err(|e| StoreError::marker(&path, &e))
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.conn
    }
}

/// A store at some moment.
pub struct Snapshot {
    copy: Connection,
    /// How many rows it has.
    pub rows: u64,
}

impl Snapshot {
    /// Writes it into a new file.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write(&self, to: &Path) -> Result<(), StoreError> {
        schema::copy(&self.copy, to)
    }
}

fn is_first_start(path: &Path, marker: Option<&Marker>) -> Result<bool, StoreError> {
    let missing = |beside: PathBuf| {
        let trace = format!("{} says that there was one", beside.display());
        StoreError::Missing { path: path.to_owned(), trace }
    };
    let log = exchange::beside(path, "-wal");
    match (size_of(path)?, marker) {
        // SQLite would delete the log.
        (None, None) if size_of(&log)?.is_some_and(|size| size > 0) => Err(missing(log)),
        (None, None) => Ok(true),
        // The first start was cut short before there was anything to lose.
        (None | Some(0), Some(marker)) if marker.is_creating() => Ok(true),
        (None, Some(_)) => Err(missing(marker::path_of(path))),
        (Some(0), _) => Err(StoreError::damaged(path, "the file is empty".to_owned())),
        (Some(_), marker) => Ok(marker.is_some_and(Marker::is_creating)),
    }
}

/// What tells a file from another one of the same name.
fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let file = std::fs::metadata(path);
    let file = file.map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    Ok((file.dev(), file.ino()))
}

/// How long a file is, if there is one.
fn size_of(path: &Path) -> Result<Option<u64>, StoreError> {
    match std::fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), source }),
    }
}

fn connect(path: &Path, create: bool) -> Result<Connection, StoreError> {
    connect_as(path, path, create)
}

/// Opens a file, which is a copy of another: that one is named where something is wrong.
fn connect_as(file: &Path, path: &Path, create: bool) -> Result<Connection, StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let conn = Connection::open_with_flags(file, flags).map_err(fault)?;
    conn.busy_timeout(LOCK_WAIT).map_err(fault)?;
    // A store that turns out to be damaged is left as it was found.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fault)?;
    run_nothing(&conn).map_err(fault)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(fault)?;
    // Before anything is written: the file may be somebody else's.
    schema::check_kind(&conn, path, create)?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(fault)?;
    conn.pragma_update(None, "synchronous", "FULL").map_err(fault)?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT, |_| Ok(()))
        .map_err(fault)?;
    conn.pragma_update(None, "temp_store", "MEMORY").map_err(fault)?;
    conn.set_prepared_statement_cache_capacity(16);
    // The exclusive lock is taken with the first write lock and kept.
    conn.execute_batch("BEGIN IMMEDIATE; COMMIT").map_err(fault)?;
    Ok(conn)
}

/// Nothing that is written in a database is carried out: no trigger, no view, no function in its schema.
fn run_nothing(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map(drop)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
