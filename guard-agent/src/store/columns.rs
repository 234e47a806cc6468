//! A row of the table `lease`, to and from the engine's.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use guard_core::{
    evidence::Device,
    lease::{Binding, Hold, Lease, Place, Row, State},
    mac::Mac,
    owner::Owner,
    segment::Segment,
};
use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow, ToSql, types::Value};

/// A row as it is stored.
pub(super) struct Columns {
    /// In the order of the schema, without the checksum.
    values: [Value; COUNT],
    crc: u32,
}

const COUNT: usize = 29;
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

/// The same few words stand in most rows; they are kept once.
#[derive(Default)]
struct Words(HashSet<Arc<str>>);

impl Words {
    fn shared(&mut self, word: Arc<str>) -> Arc<str> {
        if let Some(known) = self.0.get(&word) {
            return Arc::clone(known);
        }
        self.0.insert(Arc::clone(&word));
        word
    }
}

/// What stands in one row.
pub(super) enum Found {
    /// The row, as it was written, and its checksum.
    Row(Place, Row, u32),
    /// Something else; the address may still be recognisable.
    Unreadable { place: Option<Place>, contents: String },
}

/// Reads all rows of a store of this version, whatever stands in them, and hands them over one by one.
pub(super) fn scan(
    conn: &Connection,
    version: i64,
    mut take: impl FnMut(Found),
) -> rusqlite::Result<()> {
    let (names, count) = of_version(version);
    let mut statement = conn.prepare(&format!("SELECT {names}, crc FROM lease"))?;
    let mut rows = statement.query([])?;
    let mut words = Words::default();
    while let Some(row) = rows.next()? {
        let (columns, crc) = Columns::read(row, count)?;
        let whole = i64::from(columns.crc) == crc;
        let read = whole.then(|| columns.to_row(&mut words)).flatten();
        take(read.map_or_else(
            || Found::Unreadable {
                place: columns.place(),
                contents: format!("{:?}, crc {crc}", columns.values),
            },
            |(place, row)| Found::Row(place, row, columns.crc),
        ));
    }
    Ok(())
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

    /// A row that has so many columns and then its checksum. What it has not says nothing.
    fn read(row: &SqlRow<'_>, count: usize) -> rusqlite::Result<(Self, i64)> {
        let mut values = [const { Value::Null }; COUNT];
        for (at, value) in values.iter_mut().take(count).enumerate() {
            *value = row.get(at)?;
        }
        let crc = checksum(&values[..count]);
        if count == COUNT_BEFORE_3 {
            let [boot, _, port_ended, ..] = &mut values[COUNT_BEFORE_3..] else { unreachable!() };
            // That of the store's first boot, as it counts from version 3 on.
            (*boot, *port_ended) = (Value::Integer(1), Value::Integer(0));
        }
        Ok((Self { values, crc }, row.get(count)?))
    }

    /// CRC-32 over all values, each with its type and length.
    pub(super) fn checksum(&self) -> u32 {
        self.crc
    }

    /// Which address the row is about.
    fn place(&self) -> Option<Place> {
        let [bridge, vlan, at, ..] = &self.values;
        let segment = Segment::new(string(bridge)?, u16::try_from(int(vlan)?).ok()?);
        Some(Place { segment, address: address(at)? })
    }

    fn to_row(&self, words: &mut Words) -> Option<(Place, Row)> {
        let [
            _,
            _,
            _,
            state,
            order,
            pool,
            sandbox,
            lifecycle,
            key,
            generation,
            declared,
            mac,
            interface,
            ifindex,
            reason,
            holds,
            misses,
            created,
            updated,
            until,
            bypassed,
            labels,
            boot,
            missed,
            port_ended,
            port_mac,
            port_peer,
            port_netns,
            maker,
        ] = &self.values;
        let Place { segment: Segment { bridge, vlan, .. }, address } = self.place()?;
        let segment = Segment::new(words.shared(bridge), vlan);
        let place = Place { segment: segment.clone(), address };
        let release_order = int(order)?.cast_unsigned();
        let Some(state) = usize::try_from(int(state)?).ok()?.checked_sub(1) else {
            return Some((place, Row::Free { order: release_order }));
        };
        let owner = match (maybe(sandbox)?, maybe(lifecycle)?) {
            (Some(sandbox), Some(lifecycle)) => Some(Owner { sandbox, lifecycle }),
            (None, None) => None,
            _ => return None,
        };
        let device =
            Device { mac: mac_of(port_mac)?, peer: number(port_peer)?, netns: number(port_netns)? };
        let holds = match holds {
            Value::Null => Vec::new(),
            holds => serde_json::from_str::<Vec<(String, u64)>>(&string(holds)?)
                .ok()?
                .into_iter()
                .map(|(subscriber, until)| Hold {
                    subscriber: Arc::from(subscriber),
                    until: Duration::from_nanos(until),
                })
                .collect(),
        };
        let labels: BTreeMap<String, String> = match labels {
            Value::Null => BTreeMap::new(),
            labels => serde_json::from_str(&string(labels)?).ok()?,
        };
        let lease = Lease {
            segment,
            address,
            pool: words.shared(string(pool)?),
            state: *State::ALL.get(state)?,
            owner,
            key: words.shared(string(key)?),
            generation: int(generation)?.cast_unsigned(),
            binding: Binding {
                declared: int(declared)? != 0,
                mac: mac_of(mac)?,
                interface: maybe(interface)?,
                ifindex: number(ifindex)?,
                device: (device != Device::default()).then_some(device),
                port_ended: int(port_ended)? != 0,
            },
            reason: words.shared(string(reason)?),
            holds,
            misses: u32::try_from(int(misses)?).ok()?,
            missed_at: time(missed)?,
            boot: int(boot)?.cast_unsigned(),
            created_at: Timestamp::from_nanosecond(i128::from(int(created)?)).ok()?,
            updated_at: Timestamp::from_nanosecond(i128::from(int(updated)?)).ok()?,
            until: time(until)?,
            cooldown_bypassed: int(bypassed)? != 0,
            release_order,
            maker: number(maker)?,
            labels,
        };
        Some((place, Row::Lease(Arc::new(lease))))
    }
}

/// CRC-32 over all values, each with its type and length.
pub(super) fn checksum(values: &[Value]) -> u32 {
    // In one piece: the checksum of many small ones takes several times as long.
    let mut bytes = Vec::with_capacity(512);
    let mut add = |kind: u8, value: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
    };
    for value in values {
        match value {
            Value::Null => add(0, &[]),
            Value::Integer(number) => add(1, &number.to_le_bytes()),
            Value::Real(_) => add(2, &[]),
            Value::Text(text) => add(3, text.as_bytes()),
            Value::Blob(blob) => add(4, blob),
        }
    }
    crc32fast::hash(&bytes)
}

/// In network order.
pub(super) fn blob(address: IpAddr) -> Value {
    Value::Blob(match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    })
}

pub(super) fn address(value: &Value) -> Option<IpAddr> {
    let Value::Blob(bytes) = value else { return None };
    Some(match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?),
    })
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn optional(text: Option<&Arc<str>>) -> Value {
    text.map_or(Value::Null, |text| Value::Text(text.as_ref().to_owned()))
}

fn json<T: serde::Serialize>(value: &T, empty: bool) -> Value {
    if empty {
        return Value::Null;
    }
    Value::Text(serde_json::to_string(value).expect("text and numbers are JSON"))
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn since_1970(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

pub(super) fn int(value: &Value) -> Option<i64> {
    if let Value::Integer(number) = value { Some(*number) } else { None }
}

pub(super) fn string(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::Text(text) if text.is_empty() => Some(guard_core::lease::no_text()),
        Value::Text(text) => Some(Arc::from(text.as_str())),
        _ => None,
    }
}

fn mac_blob(mac: Option<Mac>) -> Value {
    mac.map_or(Value::Null, |mac| Value::Blob(mac.0.to_vec()))
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
fn mac_of(value: &Value) -> Option<Option<Mac>> {
    match value {
        Value::Null => Some(None),
        Value::Blob(mac) => Some(Some(Mac(<[u8; 6]>::try_from(&mac[..]).ok()?))),
        _ => None,
    }
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
fn number<T: TryFrom<i64>>(value: &Value) -> Option<Option<T>> {
    if *value == Value::Null { Some(None) } else { T::try_from(int(value)?).ok().map(Some) }
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
fn time(value: &Value) -> Option<Option<Duration>> {
    let nanos = number::<i64>(value)?;
    Some(nanos.map(|nanos| Duration::from_nanos(nanos.cast_unsigned())))
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
fn maybe(value: &Value) -> Option<Option<Arc<str>>> {
    if *value == Value::Null { Some(None) } else { string(value).map(Some) }
}
