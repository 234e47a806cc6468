//! The first 100 bytes of an SQLite database.

use std::{fs::File, io::Read as _, path::Path};

use rusqlite::Connection;

/// How long the header is.
pub(super) const LENGTH: usize = 100;

/// Bytes that are the same in every store, as SQLite writes them in WAL mode: where they begin, and
/// what they are. <https://www.sqlite.org/fileformat2.html#the_database_header>
const FIXED: [(usize, &[u8]); 6] = [
    (0, b"SQLite format 3\0"),
    // Pages of 4096 bytes, WAL for writers and for readers, nothing reserved at a page's end, and
    // the payload fractions.
    (16, &[0x10, 0, 2, 2, 0, 64, 32, 32]),
    // Schema format 4.
    (44, &[0, 0, 0, 4]),
    // No vacuum by itself, UTF-8.
    (52, &[0, 0, 0, 0, 0, 0, 0, 1]),
    (64, &[0, 0, 0, 0]),
    (68, b"gIPL"),
];

/// The highest version of the file format that SQLite writes; it takes a file with a higher one in
/// byte 18 for one that it may only read.
const LATEST: u8 = 2;

/// Whether the header alone makes SQLite take the file for read-only.
pub(super) fn says_read_only(path: &Path) -> bool {
    let mut header = [0; LENGTH];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[18] > LATEST
}

/// Puts what is the same in every store into a header, so that a store whose header is damaged can
/// be read. Each row has its own checksum: a wrong guess makes no row of what is none.
pub(super) fn mend(bytes: &mut [u8]) {
    for (at, fixed) in FIXED {
        if let Some(place) = bytes.get_mut(at..at + fixed.len()) {
            place.copy_from_slice(fixed);
        }
    }
    // Where the two counters of changes differ, SQLite does not believe the header's page count.
    for (at, counter) in (24..28).zip(92..96) {
        if let Some(changes) = bytes.get(at).copied()
            && let Some(valid_for) = bytes.get_mut(counter)
        {
            *valid_for = !changes;
        }
    }
}

/// The tables and indexes of a database, each with its columns: what a version is known by.
pub(super) fn shape(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut shape = conn.prepare(
        "SELECT o.type || ' ' || o.name || ' ' || coalesce(c.cid || ' ' || c.name || ' ' || \
         c.type, '') FROM sqlite_schema o LEFT JOIN pragma_table_info(o.name) c \
         WHERE o.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1",
    )?;
    let shape = shape.query_map([], |row| row.get(0))?;
    shape.collect()
}
