//! Values as SQLite has them, to and from the engine's.

use std::{net::IpAddr, sync::Arc, time::Duration};

use guard_core::mac::Mac;
use jiff::Timestamp;
use rusqlite::types::{Value, ValueRef};

/// CRC-32 over all values, each with its type and length.
pub(super) fn checksum(values: &[Value]) -> u32 {
    checksum_in(&mut Vec::with_capacity(512), values.iter().map(ValueRef::from))
}

/// The same, with the memory that it takes.
pub(super) fn checksum_in<'a>(
    bytes: &mut Vec<u8>,
    values: impl Iterator<Item = ValueRef<'a>>,
) -> u32 {
    // In one piece: the checksum of many small ones takes several times as long.
    bytes.clear();
    let mut add = |kind: u8, value: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
    };
    for value in values {
        match value {
            ValueRef::Null => add(0, &[]),
            ValueRef::Integer(number) => add(1, &number.to_le_bytes()),
            ValueRef::Real(_) => add(2, &[]),
            ValueRef::Text(text) => add(3, text),
            ValueRef::Blob(blob) => add(4, blob),
        }
    }
    crc32fast::hash(bytes)
}

/// In network order.
pub(super) fn blob(address: IpAddr) -> Value {
    Value::Blob(match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    })
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(super) fn optional(text: Option<&Arc<str>>) -> Value {
    text.map_or(Value::Null, |text| Value::Text(text.as_ref().to_owned()))
}

pub(super) fn json<T: serde::Serialize>(value: &T, empty: bool) -> Value {
    if empty {
        return Value::Null;
    }
    Value::Text(serde_json::to_string(value).expect("text and numbers are JSON"))
}

pub(super) fn mac_blob(mac: Option<Mac>) -> Value {
    mac.map_or(Value::Null, |mac| Value::Blob(mac.0.to_vec()))
}

pub(super) fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn since_1970(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

pub(super) fn address<'a>(value: impl Into<ValueRef<'a>>) -> Option<IpAddr> {
    let ValueRef::Blob(bytes) = value.into() else { return None };
    Some(match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    })
}

pub(super) fn int<'a>(value: impl Into<ValueRef<'a>>) -> Option<i64> {
    if let ValueRef::Integer(number) = value.into() { Some(number) } else { None }
}

pub(super) fn words<'a>(value: impl Into<ValueRef<'a>>) -> Option<&'a str> {
    if let ValueRef::Text(text) = value.into() { str::from_utf8(text).ok() } else { None }
}

pub(super) fn string<'a>(value: impl Into<ValueRef<'a>>) -> Option<Arc<str>> {
    let text = words(value)?;
    Some(if text.is_empty() { guard_core::lease::no_text() } else { Arc::from(text) })
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
pub(super) fn mac(value: ValueRef<'_>) -> Option<Option<Mac>> {
    match value {
        ValueRef::Null => Some(None),
        ValueRef::Blob(mac) => Some(Some(Mac(<[u8; 6]>::try_from(mac).ok()?))),
        _ => None,
    }
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
pub(super) fn number<T: TryFrom<i64>>(value: ValueRef<'_>) -> Option<Option<T>> {
    if value == ValueRef::Null { Some(None) } else { T::try_from(int(value)?).ok().map(Some) }
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
pub(super) fn time(value: ValueRef<'_>) -> Option<Option<Duration>> {
    let nanos = number::<i64>(value)?;
    Some(nanos.map(|nanos| Duration::from_nanos(nanos.cast_unsigned())))
}

#[expect(clippy::option_option, reason = "unreadable, absent, present")]
pub(super) fn maybe(value: ValueRef<'_>) -> Option<Option<Arc<str>>> {
    if value == ValueRef::Null { Some(None) } else { string(value).map(Some) }
}
