//! The limit: what SQLite makes of one durable row at a time.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guard_tests::{BRIDGE, POOL};
use rusqlite::{CachedStatement, Connection, Statement, params};

const SCHEMA: &str = include_str!("../../../../guard-agent/src/store/schema/1.sql");

/// A database with the agent's own tables, written to by nobody else.
pub(crate) struct Raw {
    conn: Connection,
    next: u32,
}

impl Raw {
    /// Makes one with `rows` rows in it.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn create(path: &Path, first: Ipv4Addr, rows: usize) -> Result<Self> {
        let mut conn = Connection::open(path).context("opening the raw database")?;
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        conn.execute_batch(SCHEMA)?;
        let mut next = u32::from(first);
        let filling = conn.transaction()?;
        {
            let mut insert = prepare(&filling)?;
            for _ in 0..rows {
                put(&mut insert, &mut next)?;
            }
        }
        filling.commit()?;
        Ok(Self { conn, next })
    }

    /// Commits rows one at a time, and returns how long each took.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn commit(&mut self, count: usize) -> Result<Vec<Duration>> {
        let mut insert = prepare(&self.conn)?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            put(&mut insert, &mut self.next)?;
            times.push(start.elapsed());
        }
        Ok(times)
    }

    /// Commits so many rows as one transaction, and returns their numbers.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn commit_together(&mut self, count: usize) -> Result<std::ops::Range<u64>> {
        let first = u64::from(self.next);
        let together = self.conn.transaction()?;
        {
            let mut insert = prepare(&together)?;
            for _ in 0..count {
                put(&mut insert, &mut self.next)?;
            }
        }
        together.commit()?;
        Ok(first..u64::from(self.next))
    }
}

fn prepare(conn: &Connection) -> Result<CachedStatement<'_>> {
    let places = vec!["?"; 23].join(", ");
    conn.prepare_cached(&format!("INSERT INTO lease VALUES ({places})")).context("the agent's row")
}

/// The row of an allocation.
fn put(insert: &mut Statement<'_>, next: &mut u32) -> Result<()> {
    let (none, empty) = (None::<i64>, "");
    let nanos = 1_700_000_000_000_000_000_i64;
    let sandbox = format!("sandbox-{next}");
    insert.execute(params![
        BRIDGE,
        0,
        next.to_be_bytes(),
        1,
        0,
        POOL,
        sandbox,
        empty,
        empty,
        nanos + i64::from(*next),
        0,
        none,
        none,
        none,
        empty,
        none,
        0,
        nanos,
        nanos,
        nanos,
        0,
        none,
        i64::from(*next),
    ])?;
    *next += 1;
    Ok(())
}
