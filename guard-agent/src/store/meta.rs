//! The row of the table `meta`: what the store says of itself.

use std::path::Path;

use guard_core::lease::HighWater;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{StoreError, schema};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// The boot of the last write.
    pub(super) boot_id: String,
    /// `CLOCK_BOOTTIME` at the last write.
    pub(super) boot_time_ns: u64,
    pub(super) high_water: HighWater,
    /// Counts opens.
    pub(super) epoch: u64,
    /// Counts transactions.
    pub(super) commits: u64,
    /// How many rows there are, in all tables but this one.
    pub(super) rows: u64,
    /// The sum of their checksums.
    pub(super) digest: u64,
    /// This boot, while the deadlines on disk are still those of an earlier one. Not stored.
    pub(super) pending_boot: Option<String>,
}

impl Meta {
    pub(super) fn checksum(&self, version: i64) -> u32 {
        let Self {
            boot_id,
            boot_time_ns,
            high_water: HighWater { seed, generation, release_order, boot },
            epoch,
            commits,
            rows,
            digest,
            pending_boot: _,
        } = self;
        let numbers =
            [boot_time_ns, seed, generation, release_order, epoch, commits, rows, digest, boot];
        let mut crc = crc32fast::Hasher::new();
        // Before version 3 boots were not counted.
        let known = if version < 3 { numbers.len() - 1 } else { numbers.len() };
        for number in &numbers[..known] {
            crc.update(&number.to_le_bytes());
        }
        crc.update(boot_id.as_bytes());
        crc.finalize()
    }

    /// A row was replaced: the checksums of the old one and the new one.
    pub(super) fn count(&mut self, old: Option<u32>, new: Option<u32>) {
        if let Some(old) = old {
            self.rows -= 1;
            self.digest = self.digest.wrapping_sub(u64::from(old));
        }
        if let Some(new) = new {
            self.rows += 1;
            self.digest = self.digest.wrapping_add(u64::from(new));
        }
    }

    pub(super) fn read(conn: &Connection, path: &Path) -> Result<Self, StoreError> {
        let fault = |source| StoreError::sqlite(path, source);
        let version = schema::found(conn).map_err(fault)?;
        let boot = if version < 3 { "1" } else { "boot" };
        let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        let read = conn
            .query_row(
                &format!(
                    "SELECT boot_time_ns, seed, generation, release_order, epoch, commits, rows, \
                     digest, boot_id, crc, {boot} FROM meta WHERE id = 1"
                ),
                [],
                |row| {
                    let meta = Self {
                        boot_time_ns: number(row, 0)?,
                        high_water: HighWater {
                            seed: number(row, 1)?,
                            generation: number(row, 2)?,
                            release_order: number(row, 3)?,
                            boot: number(row, 10)?,
                        },
                        epoch: number(row, 4)?,
                        commits: number(row, 5)?,
                        rows: number(row, 6)?,
                        digest: number(row, 7)?,
                        boot_id: row.get(8)?,
                        pending_boot: None,
                    };
                    Ok((meta, row.get::<_, i64>(9)?))
                },
            )
            .optional()
            .map_err(fault)?;
        match read {
            Some((meta, crc)) if i64::from(meta.checksum(version)) == crc => Ok(meta),
            Some(_) => Err(StoreError::damaged(path, "the store's own row has changed".to_owned())),
            None => Err(StoreError::damaged(path, "the store's own row is missing".to_owned())),
        }
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        let HighWater { seed, generation, release_order, boot } = self.high_water;
        conn.prepare_cached(
            "INSERT OR REPLACE INTO meta (id, boot_time_ns, seed, generation, release_order, \
             epoch, commits, rows, digest, boot_id, boot, crc) \
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            self.boot_time_ns.cast_signed(),
            seed.cast_signed(),
            generation.cast_signed(),
            release_order.cast_signed(),
            self.epoch.cast_signed(),
            self.commits.cast_signed(),
            self.rows.cast_signed(),
            self.digest.cast_signed(),
            self.boot_id,
            boot.cast_signed(),
            self.checksum(schema::VERSION),
        ])?;
        Ok(())
    }
}
