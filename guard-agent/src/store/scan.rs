//! Reads the rows of the table `lease`.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use guard_core::{
    evidence::Device,
    lease::{Binding, Hold, Lease, Place, Row, State},
    owner::Owner,
    segment::Segment,
};
use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow, types::ValueRef};

use super::{
    columns::{COUNT, of_version},
    value::{address, checksum_in, int, mac, maybe, number, string, time, words},
};

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
    let (mut bytes, mut kept) = (Vec::with_capacity(512), Kept::default());
    while let Some(row) = rows.next()? {
        let written: i64 = row.get(count)?;
        let fields = Fields::read(row, count)?;
        let crc = checksum_in(&mut bytes, fields.0.into_iter().take(count));
        let read = (i64::from(crc) == written).then(|| fields.to_row(&mut kept)).flatten();
        take(read.map_or_else(
            || Found::Unreadable {
                place: fields.place(&mut kept),
                contents: format!("{:?}, crc {written}", fields.0.map(shown)),
            },
            |(place, row)| Found::Row(place, row, crc),
        ));
    }
    Ok(())
}

/// A value of a row that cannot be read, as the log has it.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        other => format!("{other:?}"),
    }
}

/// The same few words stand in most rows; they are kept once.
#[derive(Default)]
struct Kept(HashSet<Arc<str>>);

impl Kept {
    fn word(&mut self, value: ValueRef<'_>) -> Option<Arc<str>> {
        if let Some(known) = self.0.get(words(value)?) {
            return Some(Arc::clone(known));
        }
        let word = string(value)?;
        self.0.insert(Arc::clone(&word));
        Some(word)
    }
}

/// The values of a row, in the order of the schema, where SQLite has them.
struct Fields<'a>([ValueRef<'a>; COUNT]);

impl<'a> Fields<'a> {
    /// A row that has so many columns and then its checksum. What it has not says nothing.
    fn read(row: &'a SqlRow<'_>, count: usize) -> rusqlite::Result<Self> {
        let mut values = [ValueRef::Null; COUNT];
        for (at, value) in values.iter_mut().take(count).enumerate() {
            *value = row.get_ref(at)?;
        }
        if let [boot, _, port_ended, ..] = &mut values[count..] {
            // That of the store's first boot, as it counts from version 3 on.
            (*boot, *port_ended) = (ValueRef::Integer(1), ValueRef::Integer(0));
        }
        Ok(Self(values))
    }

    /// Which address the row is about.
    fn place(&self, kept: &mut Kept) -> Option<Place> {
        let [bridge, vlan, at, ..] = self.0;
        let segment = Segment::new(kept.word(bridge)?, u16::try_from(int(vlan)?).ok()?);
        Some(Place { segment, address: address(at)? })
    }

    fn to_row(&self, kept: &mut Kept) -> Option<(Place, Row)> {
        let place = self.place(kept)?;
        let mut fields = self.0.into_iter().skip(3);
        let mut next = || fields.next().unwrap_or(ValueRef::Null);
        let (state, order) = (int(next())?, int(next())?.cast_unsigned());
        let Some(state) = usize::try_from(state).ok()?.checked_sub(1) else {
            return Some((place, Row::Free { order }));
        };
        // Each of these reads the next column.
        let mut lease = Lease {
            segment: place.segment.clone(),
            address: place.address,
            state: *State::ALL.get(state)?,
            release_order: order,
            pool: kept.word(next())?,
            owner: to_owner(next(), next())?,
            key: kept.word(next())?,
            generation: int(next())?.cast_unsigned(),
            binding: Binding {
                declared: int(next())? != 0,
                mac: mac(next())?,
                interface: maybe(next())?,
                ifindex: number(next())?,
                ..Binding::default()
            },
            reason: kept.word(next())?,
            holds: to_holds(next())?,
            misses: u32::try_from(int(next())?).ok()?,
            created_at: to_timestamp(next())?,
            updated_at: to_timestamp(next())?,
            until: time(next())?,
            cooldown_bypassed: int(next())? != 0,
            labels: to_labels(next())?,
            boot: int(next())?.cast_unsigned(),
            missed_at: time(next())?,
            maker: None,
        };
        lease.binding.port_ended = int(next())? != 0;
        let device = Device { mac: mac(next())?, peer: number(next())?, netns: number(next())? };
        lease.binding.device = (device != Device::default()).then_some(device);
        lease.maker = number(next())?;
        Some((place, Row::Lease(Arc::new(lease))))
    }
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
fn to_owner(sandbox: ValueRef<'_>, lifecycle: ValueRef<'_>) -> Option<Option<Owner>> {
    match (maybe(sandbox)?, maybe(lifecycle)?) {
        (Some(sandbox), Some(lifecycle)) => Some(Some(Owner { sandbox, lifecycle })),
        (None, None) => Some(None),
        _ => None,
    }
}

fn to_timestamp(value: ValueRef<'_>) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(int(value)?)).ok()
}

fn to_holds(value: ValueRef<'_>) -> Option<Vec<Hold>> {
    if value == ValueRef::Null {
        return Some(Vec::new());
    }
    let holds: Vec<(String, u64)> = serde_json::from_str(words(value)?).ok()?;
    let hold = |(subscriber, until): (String, u64)| Hold {
        subscriber: Arc::from(subscriber),
        until: Duration::from_nanos(until),
    };
    Some(holds.into_iter().map(hold).collect())
}

fn to_labels(value: ValueRef<'_>) -> Option<BTreeMap<String, String>> {
    if value == ValueRef::Null {
        return Some(BTreeMap::new());
    }
    serde_json::from_str(words(value)?).ok()
}
