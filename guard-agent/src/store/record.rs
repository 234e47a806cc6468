//! Rows of the tables `subnet` and `interface`, to and from the engine's.

use std::sync::Arc;

use guard_core::{
    lease::{InterfaceName, Subnet},
    segment::Segment,
};
use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Connection, ToSql, types::Value};

use super::{
    meta::Meta,
    value::{address, blob, checksum, int, since_1970, string, text},
};

/// What has a small table of its own. The first column is its key, the last one the checksum.
pub(super) trait Record: Sized {
    const TABLE: &'static str;
    /// The columns without the checksum. Before version 5 the last one was not there.
    const NAMES: &'static [&'static str];
    const INSERT: &'static str;
    const DELETE: &'static str;

    /// In the order of the schema, without the checksum.
    fn values(&self) -> Vec<Value>;

    fn of(values: &[Value]) -> Option<Self>;

    /// What must not be handed out, although its row has changed: kept under an identifier that
    /// says so.
    fn remains(values: &[Value]) -> Option<Self>;
}

/// What stands in one row.
pub(super) enum Found<T> {
    /// The row, as it was written, and its checksum.
    Row(T, u32),
    /// Something else; what it is about may still be recognisable.
    Unreadable { remains: Option<T>, contents: String },
}

/// Replaces `old` by `new`. Returns the checksums of both, or nothing if `old` was not there.
pub(super) fn swap<T: Record>(
    conn: &Connection,
    old: Option<&T>,
    new: Option<&T>,
) -> rusqlite::Result<Option<(Option<u32>, Option<u32>)>> {
    let (old, new) = (old.map(T::values), new.map(T::values));
    let (old_crc, new_crc) = (old.as_deref().map(checksum), new.as_deref().map(checksum));
    if let Some(key) = old.as_ref().and_then(|values| values.first())
        && conn.prepare_cached(T::DELETE)?.execute((key, old_crc))? != 1
    {
        return Ok(None);
    }
    if let Some(values) = &new {
        let all = values.iter().map(|v| v as &dyn ToSql).chain([&new_crc as &dyn ToSql]);
        conn.prepare_cached(T::INSERT)?.execute(rusqlite::params_from_iter(all))?;
    }
    Ok(Some((old_crc, new_crc)))
}

/// Writes one into its table, where it is not, and counts it.
pub(super) fn insert<T: Record>(
    conn: &Connection,
    new: &T,
    meta: &mut Meta,
) -> rusqlite::Result<()> {
    if let Some((old, new)) = swap(conn, None, Some(new))? {
        meta.count(old, new);
    }
    Ok(())
}

/// The version from which on there is who made them.
const WITH_MAKERS: i64 = 5;

/// The names of the columns that a table has in a version, without the checksum.
pub(super) fn of_version<T: Record>(version: i64) -> &'static [&'static str] {
    let before = &T::NAMES[..T::NAMES.len() - 1];
    if version < WITH_MAKERS { before } else { T::NAMES }
}

/// Reads all rows of a store of this version, by key, whatever stands in them, and hands them over one by
/// one.
pub(super) fn scan<T: Record>(
    conn: &Connection,
    version: i64,
    mut take: impl FnMut(Found<T>),
) -> rusqlite::Result<()> {
    let names = of_version::<T>(version);
    let (columns, key) = (names.join(", "), names[0]);
    let select = format!("SELECT {columns}, crc FROM {} ORDER BY {key}", T::TABLE);
    let mut statement = conn.prepare(&select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut values =
            (0..names.len()).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<Value>>>()?;
        let (crc, written) = (checksum(&values), row.get::<_, i64>(names.len())?);
        // What it has not says nothing.
        values.resize(T::NAMES.len(), Value::Null);
        let read = (i64::from(crc) == written).then(|| T::of(&values)).flatten();
        take(read.map_or_else(
            || Found::Unreadable {
                remains: T::remains(&values),
                contents: format!("{values:?}, crc {written}"),
            },
            |row| Found::Row(row, crc),
        ));
    }
    Ok(())
}

/// Who has what a row that cannot be read is about.
fn recovered(what: impl std::fmt::Display) -> Arc<str> {
    Arc::from(format!("recovered:{what}"))
}

fn time(value: &Value) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(int(value)?)).ok()
}

fn user(uid: Option<u32>) -> Value {
    uid.map_or(Value::Null, |uid| Value::Integer(uid.into()))
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
fn maybe_user(value: &Value) -> Option<Option<u32>> {
    if *value == Value::Null {
        return Some(None);
    }
    u32::try_from(int(value)?).ok().map(Some)
}

impl Record for Subnet {
    const TABLE: &'static str = "subnet";
    const NAMES: &'static [&'static str] =
        &["id", "bridge", "vlan", "network", "length", "pool", "created_ns", "maker"];
    const INSERT: &'static str = "INSERT INTO subnet VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    const DELETE: &'static str = "DELETE FROM subnet WHERE id = ?1 AND crc = ?2";

    fn values(&self) -> Vec<Value> {
        let Self { id, segment, prefix, pool, created_at, maker } = self;
        let Segment { bridge, vlan, .. } = segment;
        vec![
            text(id),
            text(bridge),
            Value::Integer(i64::from(*vlan)),
            blob(prefix.network()),
            Value::Integer(i64::from(prefix.prefix_len())),
            text(pool),
            Value::Integer(since_1970(*created_at)),
            user(*maker),
        ]
    }

    fn of(values: &[Value]) -> Option<Self> {
        let [id, bridge, vlan, network, length, pool, created, maker] = values else { return None };
        let length = u8::try_from(int(length)?).ok()?;
        Some(Self {
            id: string(id)?,
            segment: Segment::new(string(bridge)?, u16::try_from(int(vlan)?).ok()?),
            prefix: IpNet::new(address(network)?, length).ok()?.trunc(),
            pool: string(pool)?,
            created_at: time(created)?,
            maker: maybe_user(maker)?,
        })
    }

    fn remains(values: &[Value]) -> Option<Self> {
        let [_, bridge, vlan, network, length, pool, _, _] = values else { return None };
        let (id, zero, none) = (text(""), Value::Integer(0), Value::Null);
        let row = [&id, bridge, vlan, network, length, pool, &zero, &none].map(Value::clone);
        let found = Self::of(&row)?;
        Some(Self { id: recovered(found.prefix), ..found })
    }
}

impl Record for InterfaceName {
    const TABLE: &'static str = "interface";
    const NAMES: &'static [&'static str] = &["name", "prefix", "id", "created_ns", "maker"];
    const INSERT: &'static str = "INSERT INTO interface VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    const DELETE: &'static str = "DELETE FROM interface WHERE name = ?1 AND crc = ?2";

    fn values(&self) -> Vec<Value> {
        let Self { name, prefix, id, created_at, maker } = self;
        let created = Value::Integer(since_1970(*created_at));
        vec![text(name), text(prefix), text(id), created, user(*maker)]
    }

    fn of(values: &[Value]) -> Option<Self> {
        let [name, prefix, id, created, maker] = values else { return None };
        let (name, prefix, id) = (string(name)?, string(prefix)?, string(id)?);
        Some(Self { name, prefix, id, created_at: time(created)?, maker: maybe_user(maker)? })
    }

    fn remains(values: &[Value]) -> Option<Self> {
        let name = string(values.first()?)?;
        let (prefix, id) = (guard_core::lease::no_text(), recovered(&name));
        Some(Self { name, prefix, id, created_at: Timestamp::UNIX_EPOCH, maker: None })
    }
}
