//! Runs the cases against the pure decision function, and holds the cases themselves to the rules.

#[cfg(test)]
mod common;

use std::collections::BTreeSet;

use bytemuck::Zeroable as _;
use guard_ebpf::{
    abi::{AddressKey, BridgeCounters, EVENT_LIVE, EVENT_OWNER, Live, Owned},
    decide::{Action, Holder, Tables, judge},
    frame::parse,
};

use self::common::{Case, HERE, Outcome};

/// Rows that the program and the decision function carry out by now.
const ROWS: &[&str] = &[
    "L03", "A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A09", "A10", "A11", "A12",
    "A13", "A14", "A15", "A16", "A17", "A18", "A19", "A20", "A22", "A23", "A24", "A25", "A30",
    "A33", "D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D10",
];

/// A moment on the monotonic clock, a day after boot.
const NOW_NS: u64 = 86_400_000_000_000;

struct State {
    key: AddressKey,
    owned: Option<Owned>,
    live: Option<Live>,
    prefixes: Vec<(std::net::Ipv4Addr, u8)>,
}

impl Tables for State {
    fn owned(&self, key: &AddressKey) -> Option<&Owned> {
        self.owned.as_ref().filter(|_| *key == self.key)
    }

    fn live(&self, key: &AddressKey) -> Option<&Live> {
        self.live.as_ref().filter(|_| *key == self.key)
    }

    fn is_on_prefix(&self, key: &AddressKey) -> bool {
        let std::net::IpAddr::V4(address) = key.ip() else { return false };
        self.prefixes.iter().any(|(prefix, len)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*len)).unwrap_or(0);
            address.to_bits() & mask == prefix.to_bits()
        })
    }
}

fn run(case: &Case) -> Outcome {
    let state = State {
        key: case.key(),
        owned: case.owned(NOW_NS),
        live: case.live(NOW_NS),
        prefixes: case.prefixes.clone(),
    };
    let port = case.port();
    let parsed = parse(&case.frame.bytes()[..], &port);
    let decision = judge(&state, &port, HERE, &parsed, NOW_NS);
    let mut counters = BridgeCounters::zeroed();
    counters.count(&parsed, &decision);

    let mut outcome = Outcome::default();
    outcome.counted(&counters);
    let Some(claim) = parsed.claim() else { return outcome };
    if decision.action != Action::Nothing {
        assert_eq!(claim.key, state.key);
    }
    match decision.action {
        Action::Nothing | Action::Malformed(_) | Action::NoClaim(_) => {}
        Action::RefreshOwner => {
            outcome.wrote = Some("owner_seen".to_owned());
            let owned = state.owned.expect("an owner is refreshed");
            if owned.seen_ns == 0 {
                let holder = Holder::declared(&owned);
                outcome.event(EVENT_OWNER, claim.flags, holder.ifindex, holder.mac);
            }
        }
        Action::RefreshLive => outcome.wrote = Some("live_seen".to_owned()),
        Action::InsertLive => {
            outcome.wrote = Some("live".to_owned());
            outcome.event(EVENT_LIVE, claim.flags, 0, [0; 6]);
        }
        Action::Report(report) => {
            outcome.event(report.kind, report.flags, report.holder.ifindex, report.holder.mac);
        }
    }
    outcome
}

#[test]
fn the_decision_function_agrees() {
    for (file, case) in Case::all() {
        let mut outcome = run(&case);
        if case.expect.kind.is_none() {
            outcome.kind = None;
        }
        assert_eq!(outcome, case.expect, "{file}: {} {}", case.row, case.name);
        assert_ne!(case.skip_test_run.as_deref(), Some(""), "{}: why?", case.name);
    }
}

#[test]
fn every_row_has_a_case_and_every_case_a_row() {
    let rows: BTreeSet<String> = Case::all().into_iter().map(|(_, case)| case.row).collect();
    let rows: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(rows, ROWS.iter().copied().collect());
}

#[test]
fn every_case_that_must_not_alarm_has_a_twin_that_must() {
    let cases = Case::all();
    let names: BTreeSet<_> = cases.iter().map(|(file, case)| (file, &case.name)).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    for (file, case) in &cases {
        let what = format!("{file}: {} {}", case.row, case.name);
        match &case.twin {
            None => assert!(case.expect.alarms(), "{what} is quiet and has no twin"),
            Some(twin) => {
                assert!(!case.expect.alarms(), "{what} alarms and has a twin");
                let twin = cases.iter().find(|(f, c)| f == file && c.name == *twin);
                assert!(twin.is_some_and(|(_, c)| c.expect.alarms()), "{what}: no such twin");
            }
        }
    }
}
