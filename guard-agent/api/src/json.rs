//! How the values of the API's messages read in JSON. `tests/generated.rs` derives from the proto file
//! what each message has.

use jiff::Timestamp;

use crate::proto::Explanation;

/// The API writes "none" as an empty string.
pub fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Two digits for each byte.
pub fn hex(bytes: &[u8]) -> Option<String> {
    let digits = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (!bytes.is_empty()).then(digits)
}

/// RFC 3339, in UTC. A time that no calendar has is none.
pub fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// A span of time; one that is negative or longer than any is none.
pub fn milliseconds(span: Option<prost_types::Duration>) -> Option<u64> {
    let span = span?;
    let seconds = u64::try_from(span.seconds).ok()?;
    let milliseconds = u64::try_from(span.nanos / 1_000_000).ok()?;
    seconds.checked_mul(1000)?.checked_add(milliseconds)
}

/// The API writes "none" as 0 where 0 is not a value: generations, indexes and ids.
pub fn number<N: Default + PartialEq>(number: N) -> Option<N> {
    (number != N::default()).then_some(number)
}

/// The state of the lease; where there is none, whether the address is free or just in use.
pub fn state(Explanation { lease, pool, .. }: &Explanation) -> &'static str {
    match (lease.as_ref().map_or("", |lease| lease.state().word()), &**pool) {
        ("", "") => "in use",
        ("", _) => "free",
        (state, _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Lease, LeaseState, Outcome};

    #[test]
    fn words_are_lower_case_and_none_is_none() {
        assert_eq!(Outcome::NotFound.word(), "not_found");
        assert_eq!(Outcome::Unspecified.word(), "");
    }

    #[test]
    fn without_a_lease_the_pool_says_whether_an_address_is_free() {
        let nowhere = Explanation::default();
        let free = Explanation { pool: "p".to_owned(), ..nowhere.clone() };
        let mut held = Explanation { lease: Some(Lease::default()), ..free.clone() };
        held.lease.as_mut().unwrap().set_state(LeaseState::Held);
        assert_eq!([&nowhere, &free, &held].map(state), ["in use", "free", "held"]);
    }

    #[test]
    fn bytes_are_hexadecimal() {
        assert_eq!(hex(&[0, 0x1f, 0xff]).as_deref(), Some("001fff"));
        assert_eq!(hex(&[]), None);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let at = |seconds, nanos| time(Some(prost_types::Timestamp { seconds, nanos }));
        assert_eq!(at(1, 5_000_000).unwrap().to_string(), "1970-01-01T00:00:01.005Z");
        assert_eq!(at(i64::MAX, 0), None);
    }

    #[test]
    fn spans_are_whole_milliseconds() {
        let of = |seconds, nanos| milliseconds(Some(prost_types::Duration { seconds, nanos }));
        assert_eq!(of(3, 250_999_999), Some(3250));
        assert_eq!(of(i64::MAX, 0), None);
        assert_eq!(of(-1, 0), None);
    }
}
