//! What is printed: each object of the API as JSON with the names that scripts rely on, and as
//! text for people.

mod conflict;
mod event;
mod evidence;
#[cfg(test)]
mod fit;
mod lease;
mod live;
mod operator;
mod outcome;
mod pool;
mod port;
mod quantity;
mod reconcile;
mod recover;
mod replay;
mod reserve;
mod status;
mod trace;
mod watchdog;

use jiff::Timestamp;

pub use conflict::{Claimant, Conflict, Conflicts, Silenced};
pub use event::Event;
pub use evidence::Evidence;
pub use lease::{Lease, Leases};
pub use live::LiveList;
pub use operator::{Adopted, Backup, Check, Forced, Gc, Holds, Quarantine};
pub use outcome::{Changed, Released};
pub use pool::{Pool, Pools, bar};
pub use port::{Port, Ports};
pub use quantity::quantity;
pub use reconcile::{Reconciled, Why};
pub use recover::Recovered;
pub use replay::Replayed;
pub use reserve::{
    Interfaces, ReleasedInterface, ReleasedSubnet, ReservedInterface, ReservedSubnet, Subnets,
};
pub use status::{Degraded, Ignored, Status};
pub use trace::Traced;
pub use watchdog::Watched;

/// The API writes "none" as an empty string.
fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A time that no calendar has is no time.
fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// The API writes "none" as 0 where 0 is not a value: generations, indexes and ids.
fn number<N: Default + PartialEq>(number: N) -> Option<N> {
    (number != N::default()).then_some(number)
}

/// `LEASE_STATE_HELD` is `held`; what is unspecified is none.
fn word(name: &str, prefix: &str) -> Option<String> {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => None,
        word => Some(word.to_ascii_lowercase()),
    }
}

/// How long ago, in one unit: people compare, scripts have JSON.
pub fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return "-".to_owned() };
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
fn inner_segment(bridge: Option<&str>, vlan: u32, inner_vlan: u32) -> String {
    match inner_vlan {
        0 => segment(bridge, vlan),
        inner_vlan => format!("{}.{vlan}.{inner_vlan}", bridge.unwrap_or("-")),
    }
}

/// A bridge, with its VLAN where there is one.
pub fn segment(bridge: Option<&str>, vlan: u32) -> String {
    match (bridge.unwrap_or("-"), vlan) {
        (bridge, 0) => bridge.to_owned(),
        (bridge, vlan) => format!("{bridge}.{vlan}"),
    }
}

#[cfg(test)]
mod testing {
    use std::collections::BTreeSet;

    use super::*;
    use crate::output::{Screen, View};

    pub fn stamp(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    /// The text on 80 columns, one minute after the epoch. Only one word alone may be wider.
    pub fn shown(view: &impl View) -> String {
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
    pub fn golden(view: &impl View, json: &str) {
        let json: String = json.lines().map(str::trim_start).collect();
        assert_eq!(serde_json::to_string(view).unwrap(), json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_and_none_is_none() {
        assert_eq!(word("OUTCOME_NOT_FOUND", "OUTCOME_").as_deref(), Some("not_found"));
        assert_eq!(word("OUTCOME_UNSPECIFIED", "OUTCOME_"), None);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let at = |seconds, nanos| time(Some(prost_types::Timestamp { seconds, nanos }));
        assert_eq!(at(1, 5_000_000).unwrap().to_string(), "1970-01-01T00:00:01.005Z");
        assert_eq!(at(i64::MAX, 0), None);
    }

    #[test]
    fn ages_have_one_unit() {
        let spans = [-1, 5, 119, 120, 7200, 172_800].map(span);
        assert_eq!(spans, ["0s", "5s", "119s", "2m", "2h", "2d"]);
    }
}
