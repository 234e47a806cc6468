//! Runs the cases against the pure decision function, and holds the cases themselves to the rules.

#[cfg(test)]
#[expect(dead_code, reason = "frames by chance are for other runners")]
mod common;

use std::collections::BTreeSet;

use bytemuck::Zeroable as _;
use guard_ebpf::{
    abi::{
        EVENT_ALLOWED, EVENT_CONTEST, EVENT_LIVE, EVENT_PROBE, EVENT_VIOLATION, FRAME_BYTES, Live,
        STATION_BOUND,
    },
    frame::Frame,
    model::Model,
    trace::{Arrival, DOES_LIVE, DOES_REPORT, Traced, trace},
    watch::Scratch,
};

use self::common::{Case, Outcome};

/// The rows of `docs/rules/claims.md` that no single frame on a port can show, and who shows them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("L01b", "whether a MAC has left its first port is found by the agent"),
    ("A19b", "the agent counts the addresses that a port claims"),
    ("A21", "the host's own frames are egress, which the program never sees"),
    ("A31", "the old port's end is told by netlink: the agent's doubts"),
    ("A32", "as A31, before netlink has told it"),
    ("A34", "silence is measured by the agent"),
    ("A35", "a flap is a sequence of incidents: the agent's alerts"),
];

/// All other rows that the code carries out.
fn rows() -> BTreeSet<String> {
    let book = include_str!("../../docs/rules/claims.md");
    let (done, _not_yet) = book.split_once("## Not yet").expect("a list of what is missing");
    let names = done.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let rows: BTreeSet<_> =
        names.filter(|name| name.contains(|c: char| c.is_ascii_digit())).collect();
    assert!(rows.len() > 60, "{rows:?}");
    for (elsewhere, _) in ELSEWHERE {
        assert!(rows.contains(elsewhere), "there is no row {elsewhere}");
    }
    let elsewhere = |row: &str| ELSEWHERE.iter().any(|(name, _)| *name == row);
    rows.into_iter().filter(|row| !elsewhere(row)).map(str::to_owned).collect()
}

/// A moment on the monotonic clock, a day after boot.
const NOW_NS: u64 = 86_400_000_000_000;

/// A frame out of which the kernel took a tag.
struct Stripped {
    bytes: Vec<u8>,
    tag: Option<(u16, u16)>,
}

impl Frame for Stripped {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes[..].load(offset)
    }

    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes[..].head(offset)
    }

    fn size(&self) -> u32 {
        self.bytes[..].size()
    }

    fn stripped_tag(&self) -> Option<u16> {
        self.tag.map(|(_, tci)| tci)
    }

    fn begin(&self, into: &mut [u8; FRAME_BYTES]) {
        self.bytes[..].begin(into);
    }

    fn stripped_type(&self) -> u16 {
        self.tag.map_or(0, |(kind, _)| kind)
    }
}

/// The state before a case.
fn before(case: &Case) -> Model {
    let key = case.key();
    let mut model = Model::new(NOW_NS);
    model.owned.extend(case.owned(NOW_NS).map(|owned| (key, owned)));
    let passed = model.changes;
    model.live.extend(case.live(NOW_NS).map(|live| (key, Live { passed, ..live })));
    model.bound_macs.extend(case.bound_mac().map(|station| (station, STATION_BOUND)));
    model.macs.extend(case.mac_holder());
    model.state = case.port_state(NOW_NS);
    model.policy = case.policy();
    for (key, len, prefix) in case.prefixes() {
        model.add_prefix(key, len, prefix);
    }
    model.vlans.extend(case.vlans().map(|vlans| (case.port().ifindex, vlans)));
    model
}

fn frame(case: &Case) -> Stripped {
    Stripped { bytes: case.frame.bytes(), tag: case.frame.stripped }
}

fn run(case: &Case, enforce: bool) -> Outcome {
    let (key, port, mut model) = (case.key(), case.port(), before(case));
    model.mode.enforce = enforce.into();
    let macs = model.macs.len();
    let dropped = model.watch(&frame(case), &port);
    assert_eq!(dropped, model.counters.dropped.iter().sum::<u64>() == 1);

    let mut outcome = Outcome::default();
    outcome.told(&model.events, case);
    outcome.counted(&model.counters);
    let (live, owned) = (model.live.get(&key).copied(), model.owned.get(&key).copied());
    outcome.written(case, NOW_NS, live, owned, model.state);
    outcome.learnt = Some(model.macs.len() > macs);
    outcome
}

#[test]
fn the_decision_function_agrees() {
    for (file, case) in Case::all() {
        let what = format!("{file}: {} {}", case.row, case.name);
        assert_eq!(run(&case, false).cut_to(&case.expect), case.expect, "{what}");
        let (enforced, expected) = run(&case, true).enforced(&case.expect);
        assert_eq!(enforced, expected, "{what}: enforced");
        for skip in [&case.skip_test_run, &case.skip_wire] {
            assert_ne!(skip.as_deref(), Some(""), "{}: why?", case.name);
        }
        assert!(
            case.frame.stripped.is_none() || case.skip_test_run.is_some(),
            "{}: a test run cannot carry a stripped tag",
            case.name
        );
    }
}

/// What a trace shows of a case's frame.
fn traced(case: &Case) -> Vec<Traced> {
    let (model, port) = (before(case), case.port());
    let (mut shown, mut scratch) = (Vec::new(), Scratch::zeroed());
    let at = Arrival { port: &port, from: port.ifindex, now_ns: NOW_NS };
    trace(&frame(case), &model, &at, &mut scratch, |traced: &Traced| {
        shown.push(*traced);
    });
    shown
}

#[test]
fn a_trace_shows_each_claim_and_what_would_be_told_of_it() {
    let mut most = 0;
    for (file, case) in Case::all() {
        let shown = traced(&case);
        let claims: Vec<_> = shown.iter().take_while(|traced| traced.claim > 0).collect();
        let beside = &shown[claims.len()..];
        assert!(beside.iter().all(|traced| traced.claim == 0) && beside.len() <= 1);
        assert!(!shown.is_empty());
        assert!((1..).zip(&claims).all(|(number, traced)| traced.claim == number));
        let mut model = before(&case);
        model.watch(&frame(&case), &case.port());
        let kinds = [EVENT_ALLOWED, EVENT_CONTEST, EVENT_LIVE, EVENT_PROBE, EVENT_VIOLATION];
        let told = model.events.iter().filter(|event| kinds.contains(&event.kind));
        let told: Vec<_> = told.map(|event| (event.key, event.mac, event.kind)).collect();
        let mut foretold = claims.iter().filter(|t| [DOES_LIVE, DOES_REPORT].contains(&t.does));
        // A claim that makes the address live is a claim against the next, which a trace does not know.
        let known = |(at, told): (_, &(_, [u8; 6], u8))| at == 0 || told.2 != EVENT_CONTEST;
        for (key, mac, kind) in told.iter().enumerate().filter(|told| known(*told)).map(|(_, t)| t)
        {
            assert!(
                foretold.any(|t| (t.key, t.mac, t.event) == (*key, *mac, *kind)),
                "{file}: {} is told of {kind}, and {claims:?} are shown",
                case.name
            );
        }
        most = most.max(claims.len());
    }
    assert!(most > 1, "there is a case with several claims");
}

#[test]
fn every_row_has_a_case_and_every_case_a_row() {
    let rows: BTreeSet<String> = Case::all().into_iter().map(|(_, case)| case.row).collect();
    let missing: Vec<_> = self::rows().difference(&rows).cloned().collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    let unknown: Vec<_> = rows.difference(&self::rows()).cloned().collect();
    assert!(unknown.is_empty(), "cases for {unknown:?}");
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
