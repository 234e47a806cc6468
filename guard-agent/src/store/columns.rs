//! Writes the rows of the table `lease`.

use guard_core::{
    lease::{Binding, Lease, Place, Row},
    segment::Segment,
};
use rusqlite::{Connection, ToSql, types::Value};

use super::value::{blob, checksum, json, mac_blob, nanos, optional, since_1970, text};

/// A row as it is stored.
pub(super) struct Columns {
    /// In the order of the schema, without the checksum.
    values: [Value; COUNT],
    crc: u32,
}

/// How many columns there are, without the checksum.
pub(super) const COUNT: usize = 29;
/// How many of them there were before version 3, and before version 4: later ones come last.
const COUNT_BEFORE_3: usize = 22;
const COUNT_BEFORE_4: usize = 28;
const NAMES: &str = "bridge, vlan, address, state, release_order, pool, sandbox, lifecycle, key, \
    generation, declared, mac, interface, ifindex, reason, holds, misses, created_ns, updated_ns, \
    until_ns, bypassed, labels, boot, missed_ns, port_ended, port_mac, port_peer, port_netns, \
    maker";
const INSERT: &str = "INSERT INTO lease VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, \
    ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)";
const UPDATE: &str = "UPDATE lease SET state = ?4, release_order = ?5, pool = ?6, sandbox = ?7, \
    lifecycle = ?8, key = ?9, generation = ?10, declared = ?11, mac = ?12, interface = ?13, \
    ifindex = ?14, reason = ?15, holds = ?16, misses = ?17, created_ns = ?18, updated_ns = ?19, \
    until_ns = ?20, bypassed = ?21, labels = ?22, boot = ?23, missed_ns = ?24, port_ended = ?25, \
    port_mac = ?26, port_peer = ?27, port_netns = ?28, maker = ?29, crc = ?30 \
    WHERE bridge = ?1 AND vlan = ?2 AND address = ?3 AND crc = ?31";
const DELETE: &str =
    "DELETE FROM lease WHERE bridge = ?1 AND vlan = ?2 AND address = ?3 AND crc = ?4";

/// The names of the columns that the table has in a version, and how many they are without the checksum.
pub(super) fn of_version(version: i64) -> (String, usize) {
    let count = match version {
        ..3 => COUNT_BEFORE_3,
        3 => COUNT_BEFORE_4,
        _ => COUNT,
    };
    (NAMES.split(", ").take(count).collect::<Vec<_>>().join(", "), count)
}

/// Replaces `old` by `new`. Returns whether `old` was there.
pub(super) fn swap(
    conn: &Connection,
    old: Option<&Columns>,
    new: Option<&Columns>,
) -> rusqlite::Result<bool> {
    let changed = match (old, new) {
        (None, None) => return Ok(true),
        (None, Some(new)) => {
            let all = new.values.iter().map(|v| v as &dyn ToSql).chain([&new.crc as &dyn ToSql]);
            conn.prepare_cached(INSERT)?.execute(rusqlite::params_from_iter(all))?
        }
        (Some(old), Some(new)) => {
            let last = [&new.crc as &dyn ToSql, &old.crc as &dyn ToSql];
            let all = new.values.iter().map(|v| v as &dyn ToSql).chain(last);
            conn.prepare_cached(UPDATE)?.execute(rusqlite::params_from_iter(all))?
        }
        (Some(old), None) => {
            let [bridge, vlan, address, ..] = &old.values;
            conn.prepare_cached(DELETE)?.execute((bridge, vlan, address, old.crc))?
        }
    };
    Ok(changed == 1)
}

impl Columns {
    pub(super) fn of(place: &Place, row: &Row) -> Self {
        let Place { segment: Segment { bridge, vlan, .. }, address } = place;
        let head = [text(bridge), Value::Integer(i64::from(*vlan)), blob(*address)];
        match row {
            Row::Free { order } => Self::of_free(head, *order),
            Row::Lease(lease) => Self::of_lease(head, lease),
        }
    }

    fn new(values: [Value; COUNT]) -> Self {
        let crc = checksum(&values);
        Self { values, crc }
    }

    fn of_free([bridge, vlan, address]: [Value; 3], order: u64) -> Self {
        let (zero, none) = (Value::Integer(0), Value::Null);
        let empty = || Value::Text(String::new());
        Self::new([
            bridge,
            vlan,
            address,
            zero.clone(),
            Value::Integer(order.cast_signed()),
            empty(),
            none.clone(),
            none.clone(),
            empty(),
            zero.clone(),
            zero.clone(),
            none.clone(),
            none.clone(),
            none.clone(),
            empty(),
            none.clone(),
            zero.clone(),
            zero.clone(),
            zero.clone(),
            none.clone(),
            zero.clone(),
            none.clone(),
            zero.clone(),
            none.clone(),
            zero,
            none.clone(),
            none.clone(),
            none.clone(),
            none,
        ])
    }

    fn of_lease([bridge, vlan, address]: [Value; 3], lease: &Lease) -> Self {
        let Lease {
            segment: _,
            address: _,
            pool,
            state,
            owner,
            key,
            generation,
            binding: Binding { declared, mac, interface, ifindex, device, port_ended },
            reason,
            holds,
            misses,
            missed_at,
            boot,
            created_at,
            updated_at,
            until,
            cooldown_bypassed,
            release_order,
            maker,
            labels,
        } = lease;
        let device = device.unwrap_or_default();
        let holds: Vec<_> = holds.iter().map(|h| (&*h.subscriber, nanos(h.until))).collect();
        Self::new([
            bridge,
            vlan,
            address,
            Value::Integer(*state as i64 + 1),
            Value::Integer(release_order.cast_signed()),
            text(pool),
            optional(owner.as_ref().map(|o| &o.sandbox)),
            optional(owner.as_ref().map(|o| &o.lifecycle)),
            text(key),
            Value::Integer(generation.cast_signed()),
            Value::Integer(i64::from(*declared)),
            mac_blob(*mac),
            optional(interface.as_ref()),
            ifindex.map_or(Value::Null, |i| Value::Integer(i64::from(i))),
            text(reason),
            json(&holds, holds.is_empty()),
            Value::Integer(i64::from(*misses)),
            Value::Integer(since_1970(*created_at)),
            Value::Integer(since_1970(*updated_at)),
            until.map_or(Value::Null, |until| Value::Integer(nanos(until))),
            Value::Integer(i64::from(*cooldown_bypassed)),
            json(labels, labels.is_empty()),
            Value::Integer(boot.cast_signed()),
            missed_at.map_or(Value::Null, |missed| Value::Integer(nanos(missed))),
            Value::Integer(i64::from(*port_ended)),
            mac_blob(device.mac),
            device.peer.map_or(Value::Null, |peer| Value::Integer(i64::from(peer))),
            device.netns.map_or(Value::Null, |netns| Value::Integer(i64::from(netns))),
            maker.map_or(Value::Null, |maker| Value::Integer(i64::from(maker))),
        ])
    }

    /// CRC-32 over all values, each with its type and length.
    pub(super) fn checksum(&self) -> u32 {
        self.crc
    }
}
