//! The tables, and how older ones become them.

use std::path::{Path, PathBuf};

use guard_core::lease::{Contents, HighWater};
use rusqlite::{Connection, OpenFlags, backup::Backup};

use super::{
    Boot, StoreError,
    columns::{self, Columns},
    header,
    meta::Meta,
    nanos, record,
};

/// "gIPL", in the file's header: tells a lease store from any other SQLite database.
const APPLICATION_ID: i64 = 0x6749_504c;

/// Each brings a store one version further, from an empty file to version 1 first.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// The last migration that drops the table `lease`, and the last that drops those of subnets and names:
/// what comes from before it is written anew, in the columns of today, and so is the row of `meta`.
const REWRITES_LEASES: i64 = 4;
const REWRITES_RECORDS: i64 = 5;

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

/// The version of the tables that a store has.
pub(super) fn found(conn: &Connection) -> rusqlite::Result<i64> {
    pragma(conn, "user_version")
}

/// Makes the tables of a new store. Returns the version of the one there is.
pub(super) fn version(
    conn: &mut Connection,
    path: &Path,
    first_start: bool,
    boot: &Boot,
) -> Result<i64, StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    let found = found(conn).map_err(fault)?;
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
        return made.map(|()| VERSION).map_err(fault);
    }
    // The tables say which version it is; the number in the header is only a number.
    let tables = of_tables(conn, path)?;
    match tables {
        Some(version) if version == found => Ok(found),
        None if found > VERSION => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION })
        }
        _ => {
            let tables = tables.map_or("none".to_owned(), |version| version.to_string());
            let what = format!("its header has the version {found}, and its tables have {tables}");
            Err(StoreError::damaged(path, what))
        }
    }
}

/// The version whose tables a store has.
pub(super) fn of_tables(conn: &Connection, path: &Path) -> Result<Option<i64>, StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    let shape = header::shape(conn).map_err(fault)?;
    let model = Connection::open_in_memory().map_err(fault)?;
    for (version, migration) in (1..).zip(MIGRATIONS) {
        model.execute_batch(migration).map_err(fault)?;
        if header::shape(&model).map_err(fault)? == shape {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// Brings the tables of an older store to [`VERSION`], after a backup.
pub(super) fn migrate(
    conn: &mut Connection,
    path: &Path,
    found: i64,
    contents: &Contents,
    meta: &mut Meta,
) -> Result<(), StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    let done = usize::try_from(found).unwrap_or(MIGRATIONS.len());
    if done >= MIGRATIONS.len() {
        return Ok(());
    }
    let backup = back_up(conn, path, found)?;
    tracing::info!(
        path = %path.display(), from = found, to = VERSION, backup = %backup.display(),
        "migrating the store"
    );
    // All at once: after each of them alone, rows could be neither here nor there.
    let migrated = conn.transaction().and_then(|transaction| {
        for migration in MIGRATIONS.iter().skip(done) {
            transaction.execute_batch(migration)?;
        }
        if found < REWRITES_LEASES.max(REWRITES_RECORDS) {
            *meta = rewritten(&transaction, found, contents, meta)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()
    });
    migrated.map_err(fault)
}

/// Writes the rows of a store of this version into their new tables, and meta's with what their checksums
/// are now.
fn rewritten(
    conn: &Connection,
    found: i64,
    contents: &Contents,
    meta: &Meta,
) -> rusqlite::Result<Meta> {
    let Contents { rows, subnets, interfaces } = contents;
    let mut meta = meta.clone();
    (meta.rows, meta.digest) = (0, 0);
    for (place, row) in rows {
        let columns = Columns::of(place, row);
        if found < REWRITES_LEASES {
            columns::swap(conn, None, Some(&columns))?;
        }
        meta.count(None, Some(columns.checksum()));
    }
    // Both of these are in every version that has them before the last that drops them.
    for subnet in subnets {
        record::insert(conn, &**subnet, &mut meta)?;
    }
    for interface in interfaces {
        record::insert(conn, &**interface, &mut meta)?;
    }
    meta.write(conn)?;
    Ok(meta)
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

/// Copies the store beside itself. A copy that was cut short never has the name of a whole one,
/// and one of an earlier migration is kept.
fn back_up(conn: &Connection, store: &Path, version: i64) -> Result<PathBuf, StoreError> {
    let beside = |suffix: String| {
        let mut name = store.as_os_str().to_owned();
        name.push(format!(".v{version}.bak{suffix}"));
        PathBuf::from(name)
    };
    let numbered = (1_u32..).map(|n| beside(format!(".{n}")));
    let to = std::iter::once(beside(String::new())).chain(numbered).find(|path| !path.exists());
    let to = to.unwrap_or_else(|| beside(".last".to_owned()));
    let new = beside(".new".to_owned());
    // Of a migration that was cut short.
    let _ = std::fs::remove_file(&new);
    copy(conn, &new)?;
    let io = |source| StoreError::Io { path: to.clone(), source };
    std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&new, &to).map_err(io)?;
    super::marker::sync_directory(&to).map_err(io)?;
    Ok(to)
}

/// Copies a database into a file that does not exist yet. What could not be copied is not left behind.
pub(super) fn copy(conn: &Connection, to: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: to.to_owned(), source };
    let name = to.file_name().ok_or_else(|| io(std::io::ErrorKind::InvalidInput.into()))?;
    let directory = to.parent().unwrap_or(Path::new("/"));
    // Links to the directory are whose it is; in the place of the file there may be none.
    let file = directory.canonicalize().map_err(io)?.join(name);
    std::fs::OpenOptions::new().write(true).create_new(true).open(&file).map_err(io)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let copied = Connection::open_with_flags(&file, flags).and_then(|mut target| {
        Backup::new(conn, &mut target)?.step(-1)?;
        target.close().map_err(|(_, source)| source)
    });
    copied.map_err(|source| {
        let _ = std::fs::remove_file(&file);
        StoreError::sqlite(to, source)
    })
}
