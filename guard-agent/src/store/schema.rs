//! The tables, and how older ones become them.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, backup::Backup};

use super::{Boot, StoreError, meta::Meta, nanos};
use crate::lease::HighWater;

/// "gIPL", in the file's header: tells a lease store from any other SQLite database.
const APPLICATION_ID: i64 = 0x6749_504c;

/// Each brings a store one version further, from an empty file to version 1 first.
const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql")];

/// The version that this agent writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Checks that the file is a lease store, or an empty database where one is to be made.
pub(super) fn check_kind(
    conn: &Connection,
    path: &Path,
    first_start: bool,
) -> Result<(), StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    let application = pragma(conn, "application_id").map_err(fault)?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(fault)?;
    if application == APPLICATION_ID || (first_start && application == 0 && tables == 0) {
        return Ok(());
    }
    if application == 0 && tables == 0 {
        // All that was written since it was made was in the log.
        let what = "it is empty: its write-ahead log was lost".to_owned();
        return Err(StoreError::damaged(path, what));
    }
    let what = "another program's SQLite database".to_owned();
    Err(StoreError::NotAStore { path: path.to_owned(), what })
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

/// Makes the tables of a new store, or brings those of an older one to [`VERSION`] after a backup.
pub(super) fn prepare(
    conn: &mut Connection,
    path: &Path,
    first_start: bool,
    boot: &Boot,
) -> Result<(), StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    let found = pragma(conn, "user_version").map_err(fault)?;
    if found == 0 && first_start {
        let made = conn.transaction().and_then(|transaction| {
            for migration in MIGRATIONS {
                transaction.execute_batch(migration)?;
            }
            first_meta(boot).write(&transaction)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()
        });
        return made.map_err(fault);
    }
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    let done = usize::try_from(found).ok().filter(|done| *done > 0);
    let Some(done) = done else {
        return Err(StoreError::damaged(path, format!("its schema has the version {found}")));
    };
    if found < VERSION {
        copy(conn, &backup_path(path, found))?;
        tracing::info!(path = %path.display(), from = found, to = VERSION, "migrating the store");
    }
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let migrated = conn.transaction().and_then(|transaction| {
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", at + 1)?;
            transaction.commit()
        });
        migrated.map_err(fault)?;
    }
    Ok(())
}

fn first_meta(boot: &Boot) -> Meta {
    Meta {
        boot_id: boot.id.clone(),
        boot_time_ns: nanos(boot.now.boot),
        high_water: HighWater::seed(boot.now.wall),
        epoch: 0,
        commits: 0,
        rows: 0,
        digest: 0,
        pending_boot: None,
    }
}

fn backup_path(store: &Path, version: i64) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(format!(".v{version}.bak"));
    name.into()
}

/// Copies a database into a file that does not exist yet.
pub(super) fn copy(conn: &Connection, to: &Path) -> Result<(), StoreError> {
    let fault = |source| StoreError::sqlite(to, source);
    if let Err(source) = std::fs::OpenOptions::new().write(true).create_new(true).open(to) {
        return Err(StoreError::Io { path: to.to_owned(), source });
    }
    let mut target = Connection::open(to).map_err(fault)?;
    Backup::new(conn, &mut target).and_then(|backup| backup.step(-1)).map_err(fault)?;
    target.close().map_err(|(_, source)| fault(source))
}
