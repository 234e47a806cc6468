//! What is printed: as JSON the API's own messages, with a view of its own where it is no message;
//! and the text for people.

pub(crate) mod conflict;
mod drops;
mod event;
mod evidence;
#[cfg(test)]
mod fit;
mod lease;
mod live;
mod operator;
mod outcome;
pub(crate) mod pool;
mod port;
mod quantity;
mod reconcile;
mod recover;
mod replay;
mod reserve;
mod status;
mod trace;
mod watchdog;

use guard_api::json::time;
use jiff::Timestamp;
use serde::Serialize;

pub(crate) use drops::{DryRun, Modes};
pub(crate) use operator::Holds;
pub(crate) use quantity::quantity;
pub(crate) use replay::Replayed;
pub(crate) use reserve::Reserved;
pub(crate) use trace::Traced;

/// The response to what has a `dry_run`, and whether it was one.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<T> {
    pub dry_run: bool,
    #[serde(flatten)]
    pub response: T,
}

/// What stands above the text.
fn head(dry_run: bool) -> &'static str {
    if dry_run { "dry run: nothing was changed\n" } else { "" }
}

/// The API writes "none" as an empty string.
pub(crate) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A number of which 0 is none.
fn number(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

/// A moment, in so many digits of a second.
fn moment(time: Option<prost_types::Timestamp>, digits: usize) -> String {
    self::time(time).map_or_else(|| "-".to_owned(), |time| format!("{time:.digits$}"))
}

/// How long ago, in one unit: people compare, scripts have JSON.
pub(crate) fn ago(time: Option<prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(time) = self::time(time) else { return "-".to_owned() };
    format!("{} ago", span(now.duration_since(time).as_secs()))
}

fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds @ 7200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

/// A segment with the VLAN within its VLAN, where there is one.
fn inner_segment(bridge: &str, vlan: u32, inner_vlan: u32) -> String {
    match inner_vlan {
        0 => segment(bridge, vlan),
        inner_vlan => format!("{}.{vlan}.{inner_vlan}", or_dash(bridge)),
    }
}

/// A bridge, with its VLAN where there is one.
pub(crate) fn segment(bridge: &str, vlan: u32) -> String {
    match (or_dash(bridge), vlan) {
        (bridge, 0) => bridge.to_owned(),
        (bridge, vlan) => format!("{bridge}.{vlan}"),
    }
}

#[cfg(test)]
mod testing {
    use std::collections::BTreeSet;

    use super::*;
    use crate::output::{Screen, View};

    pub(super) fn stamp(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    /// The text on 80 columns, one minute after the epoch. Only one word alone may be wider.
    pub(super) fn shown(view: &impl View) -> String {
        let now = Timestamp::from_second(60).unwrap();
        let text = |width| view.text(Screen { width, colour: false, now });
        for line in text(80).lines() {
            let fits = line.chars().count() <= 80 || !line.trim().contains(' ');
            assert!(fits, "wider than 80 columns: {line}");
        }
        // Each word of it is whole.
        let wide = text(u16::MAX);
        let words: BTreeSet<_> = wide.split([' ', '\n', ',']).collect();
        for word in text(80).split([' ', '\n', ',']) {
            let header =
                word.strip_suffix(':').is_some_and(|word| wide.contains(&word.to_uppercase()));
            assert!(words.contains(word) || header, "{word:?} is not whole");
        }
        text(80)
    }

    #[track_caller]
    pub(super) fn golden(view: &impl View, json: &str) {
        let json: String = json.lines().map(str::trim_start).collect();
        assert_eq!(serde_json::to_string(view).unwrap(), json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let spans = [-1, 5, 119, 120, 7200, 172_800].map(span);
        assert_eq!(spans, ["0s", "5s", "119s", "2m", "2h", "2d"]);
    }
}
