//! Lengths of time as people write them: "500ms", "5m", "1h 30m", "15days 2min".
//!
//! serde takes this module, or [`option`], in `with`.

use std::{fmt::Write, time::Duration};

use jiff::{SignedDuration, SpanRelativeTo, fmt::friendly::SpanParser};
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// A year is 365.25 days.
const YEAR: u64 = 31_557_600;
/// A month is 30.44 days.
const MONTH: u64 = 2_630_016;
const DAY: u64 = 86_400;
/// The longest that is taken.
const MOST: Duration = Duration::from_secs(10_000 * YEAR);

/// A text that is no length of time.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Lengths of time are written otherwise, or it is below 0.
    #[error("{0:?} is not a length of time; write it as \"5m\" or \"1h 30m\"")]
    Malformed(String),
    /// No clock could show its end.
    #[error("{0:?} is not a length of time of at most 10000 years")]
    TooLong(String),
}

/// Reads a length of time: numbers with units from years down to nanoseconds, the largest first.
///
/// # Errors
/// It is none, it is below 0, or it is out of range.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    match read(text) {
        Ok(duration) if duration <= MOST => Ok(duration),
        Err(_) if read(&with_small_numbers(text)).is_err() => {
            Err(ParseError::Malformed(text.to_owned()))
        }
        Ok(_) | Err(_) => Err(ParseError::TooLong(text.to_owned())),
    }
}

/// The same with 1 for each number: what is no length of time even then is written wrongly.
fn with_small_numbers(text: &str) -> String {
    let mut small = String::new();
    let mut within = false;
    for char in text.chars() {
        let is_digit = char.is_ascii_digit();
        if !is_digit || !within {
            small.push(if is_digit { '1' } else { char });
        }
        within = is_digit;
    }
    small
}

fn read(text: &str) -> Result<Duration, jiff::Error> {
    let span = SpanParser::new().parse_span(text.trim())?;
    let calendar = SignedDuration::from_secs(i64::from(span.get_years()) * YEAR.cast_signed())
        + SignedDuration::from_secs(i64::from(span.get_months()) * MONTH.cast_signed());
    let clock = span.years(0).months(0).to_duration(SpanRelativeTo::days_are_24_hours())?;
    let sum = calendar.saturating_add(clock);
    if sum.is_negative() {
        return Err(jiff::Error::from_args(format_args!("negative")));
    }
    sum.try_into()
}

/// Writes a length of time such that [`parse`] reads it.
pub fn format(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut write = |count: u64, unit: &str, plural: &str| {
        if count > 0 {
            let space = if text.is_empty() { "" } else { " " };
            let plural = if count > 1 { plural } else { "" };
            let _ = write!(text, "{space}{count}{unit}{plural}");
        }
    };
    let (secs, nanos) = (duration.as_secs(), u64::from(duration.subsec_nanos()));
    write(secs / YEAR, "year", "s");
    write(secs % YEAR / MONTH, "month", "s");
    write(secs % YEAR % MONTH / DAY, "day", "s");
    write(secs % YEAR % MONTH % DAY / 3600, "h", "");
    write(secs % YEAR % MONTH % DAY % 3600 / 60, "m", "");
    write(secs % YEAR % MONTH % DAY % 60, "s", "");
    write(nanos / 1_000_000, "ms", "");
    write(nanos / 1000 % 1000, "us", "");
    write(nanos % 1000, "ns", "");
    text
}

/// For serde.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For serde.
///
/// # Errors
/// It is not a length of time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// For fields that may be absent.
pub mod option {
    use std::time::Duration;

    use serde::{Deserializer, Serialize, Serializer};

    /// For serde.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(super::format).serialize(serializer)
    }

    /// For serde. Where the field stands, it has a value: TOML has no null.
    ///
    /// # Errors
    /// It is not a length of time.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_unit_by_each_of_its_names() {
        let units: [(&[&str], Duration); 10] = [
            (&["ns", "nsec", "nanos"], Duration::from_nanos(1)),
            (&["us", "usec", "µs"], Duration::from_micros(1)),
            (&["ms", "msec", "millis"], Duration::from_millis(1)),
            (&["s", "sec", "secs", "second", "seconds"], Duration::from_secs(1)),
            (&["m", "min", "mins", "minute", "minutes"], Duration::from_mins(1)),
            (&["h", "hr", "hrs", "hour", "hours"], Duration::from_hours(1)),
            (&["d", "day", "days"], Duration::from_secs(DAY)),
            (&["w", "wk", "wks", "week", "weeks"], Duration::from_secs(7 * DAY)),
            (&["month", "months"], Duration::from_secs(MONTH)),
            (&["y", "yr", "yrs", "year", "years"], Duration::from_secs(YEAR)),
        ];
        for (names, one) in units {
            for name in names {
                for text in [format!("3{name}"), format!("3 {name}"), format!(" 3{name} ")] {
                    assert_eq!(parse(&text).unwrap(), one * 3, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn reads_sums_and_fractions() {
        for (text, secs) in [
            ("0s", 0.0),
            ("1h30m", 5400.0),
            ("1h 30m", 5400.0),
            ("2days 12h", 216_000.0),
            ("15days 2min 2s", 1_296_122.0),
            ("2h 37min", 9420.0),
            ("1year 2months 3weeks 1day 1h 1m 1s", 38_722_093.0),
            ("90s", 90.0),
            ("1.5h", 5400.0),
            ("0.5s", 0.5),
            ("2s 500ms", 2.5),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs_f64(secs), "{text:?}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for text in ["", "5", "m", "five minutes", "-5m", "5m ago", "30m 1h", "1m 1m", "1M", "1.5d"]
        {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a length of time")), "{error}");
        }
    }

    #[test]
    fn what_no_clock_could_show_the_end_of_is_too_long() {
        assert_eq!(parse("10000years").unwrap(), MOST);
        for text in ["999999999h", "10000years 1s", "99999999999999999999s", "19000years 19000y"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("parse"), "{error}");
        }
        let error = parse("999999999h").unwrap_err().to_string();
        assert_eq!(error, "\"999999999h\" is not a length of time of at most 10000 years");
    }

    #[test]
    fn writes_the_largest_units_first() {
        let second = Duration::from_secs(1);
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (second / 2, "500ms"),
            (second * 90, "1m 30s"),
            (second * 5400, "1h 30m"),
            (Duration::from_secs(DAY), "1day"),
            (Duration::from_secs(2 * DAY + 1), "2days 1s"),
            (Duration::from_secs(YEAR + 2 * MONTH), "1year 2months"),
            (Duration::from_nanos(1_002_003), "1ms 2us 3ns"),
        ] {
            assert_eq!(format(duration), text);
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(secs in 0..10_000 * YEAR, nanos in 0u32..1_000_000_000) {
            let duration = Duration::new(secs, nanos);
            prop_assert_eq!(parse(&format(duration)).unwrap(), duration);
        }

        #[test]
        fn bears_any_text(text in ".{0,24}") {
            let _ = parse(&text);
        }
    }
}
