//! Reads all rows of a store, and checks them against its checksums and counts.

use std::path::Path;

use guard_core::lease::Contents;
use rusqlite::Connection;

use super::{
    StoreError,
    meta::Meta,
    record::{self, Found, Record},
    scan,
};

/// What a damaged count of rows can make a start reserve: a few MiB.
const MOST_EXPECTED: usize = 1 << 17;

/// The version from which on there are child subnets and interface names.
const WITH_RECORDS: i64 = 2;

/// How much was read so far, and what could not be.
#[derive(Default)]
struct Tally {
    rows: u64,
    digest: u64,
    bad: Vec<String>,
}

impl Tally {
    fn add(&mut self, crc: u32) {
        self.rows += 1;
        self.digest = self.digest.wrapping_add(u64::from(crc));
    }

    fn bad(&mut self, path: &Path, contents: String) {
        tracing::error!(path = %path.display(), contents, "a row cannot be read");
        self.bad.push(contents);
    }

    fn records<T: Record>(
        &mut self,
        conn: &Connection,
        path: &Path,
        version: i64,
    ) -> rusqlite::Result<Vec<std::sync::Arc<T>>> {
        let mut all = Vec::new();
        record::scan(conn, version, |found| match found {
            Found::Row(row, crc) => {
                self.add(crc);
                all.push(std::sync::Arc::new(row));
            }
            Found::Unreadable { remains: _, contents } => self.bad(path, contents),
        })?;
        Ok(all)
    }
}

/// Whether a store of this version has child subnets and interface names.
pub(super) fn has_records(version: i64) -> bool {
    version >= WITH_RECORDS
}

/// Reads all rows. One that cannot be read is logged with its contents, and makes the store a
/// damaged one: what it says is not known to be free.
pub(super) fn read(
    conn: &Connection,
    path: &Path,
    meta: &Meta,
    version: i64,
) -> Result<Contents, StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    // As many as there should be: a list that grows is for a moment twice as long.
    let expected = usize::try_from(meta.rows).unwrap_or_default().min(MOST_EXPECTED);
    let mut tally = Tally::default();
    let mut all = Contents { rows: Vec::with_capacity(expected), ..Contents::default() };
    scan::scan(conn, version, |found| match found {
        scan::Found::Row(place, row, crc) => {
            tally.add(crc);
            all.rows.push((place, row));
        }
        scan::Found::Unreadable { place: _, contents } => tally.bad(path, contents),
    })
    .map_err(fault)?;
    if has_records(version) {
        all.subnets = tally.records(conn, path, version).map_err(fault)?;
        all.interfaces = tally.records(conn, path, version).map_err(fault)?;
    }
    let Tally { rows, digest, bad } = tally;
    let what = if !bad.is_empty() {
        format!("{} of its rows cannot be read", bad.len())
    } else if rows != meta.rows {
        format!("it has {rows} rows and had {}", meta.rows)
    } else if digest != meta.digest {
        "its rows are not those of the last commit".to_owned()
    } else {
        return Ok(all);
    };
    Err(StoreError::Damaged { path: path.to_owned(), what, rows: bad })
}
