//! Rules 6 and 7, the pass's part: what may be concluded from which answers.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{brake::*, pass::*};
use crate::{
    evidence::{PollOutcome, PollResult},
    evidence::{Source, Unknown},
    lease::{
        Binding, Generation, Lease, State,
        tests::{FakeView, evidence, owner, station},
    },
    segment::Segment,
};

/// The running one.
const BOOT: u64 = 7;

pub(crate) fn lease(generation: Generation, state: State) -> Lease {
    Lease {
        segment: Segment::new("br0", 0),
        address: std::net::IpAddr::from(
            (0x0a00_0000 + u32::try_from(generation).unwrap()).to_be_bytes(),
        ),
        pool: "p".into(),
        state,
        owner: Some(owner(&format!("s{generation}"), "")),
        key: "".into(),
        generation,
        binding: Binding::default(),
        reason: "".into(),
        holds: Vec::new(),
        misses: 0,
        missed_at: None,
        boot: BOOT,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
        until: None,
        cooldown_bypassed: false,
        release_order: 0,
        maker: None,
        labels: std::collections::BTreeMap::new(),
    }
}

/// Bound to the port of this number.
fn bound(generation: Generation, port: u8) -> Lease {
    let station = station(port);
    let binding = Binding {
        declared: true,
        mac: Some(station.mac),
        interface: Some(station.interface),
        ifindex: Some(station.ifindex),
        ..Binding::default()
    };
    Lease { binding, ..lease(generation, State::Active) }
}

fn heard(outcome: PollOutcome, ours: usize) -> PollResult {
    let (source, asked) = (Source::Inventory, Duration::from_secs(11));
    PollResult { source, name: "containerd", asked, outcome, ours }
}

fn complete() -> PollResult {
    heard(PollOutcome::Complete, 1)
}

const READ: Duration = Duration::from_secs(10);

fn judge(leases: &[Lease], heard: &[PollResult], view: &FakeView) -> Result<Judgement, Ended> {
    let leases: Vec<_> = leases.iter().cloned().map(Arc::new).collect();
    Look { leases: &leases, read: READ, heard, boot: BOOT }.judge(view)
}

fn generations(leases: &[Arc<Lease>]) -> Vec<Generation> {
    leases.iter().map(|lease| lease.generation).collect()
}

#[test]
fn rule_6_each_way_to_fail_ends_the_pass() {
    let leases = [lease(1, State::Active)];
    let view = FakeView::default();
    let late =
        PollResult { asked: READ.checked_sub(Duration::from_millis(1)).unwrap(), ..complete() };
    let ways = [
        (heard(PollOutcome::Failed("gone".to_owned()), 0), "did not answer"),
        (heard(PollOutcome::Partial("a label".to_owned()), 1), "in part"),
        (late, "older"),
    ];
    for (way, says) in ways {
        // Whatever another source says.
        for heard in
            [vec![way.clone()], vec![complete(), way.clone()], vec![way.clone(), complete()]]
        {
            let ended = judge(&leases, &heard, &view).unwrap_err().to_string();
            assert!(ended.contains(says), "{ended}");
        }
    }
    assert_eq!(generations(&judge(&leases, &[complete()], &view).unwrap().silent), [1]);
}

#[test]
fn rule_6_an_empty_inventory_is_believed_unless_a_bound_port_exists() {
    let empty = [heard(PollOutcome::Complete, 0)];
    let mut view = FakeView::default();
    let leases = [lease(1, State::Active), bound(2, 5)];
    assert_eq!(generations(&judge(&leases, &empty, &view).unwrap().silent), [1, 2]);
    view.ports.insert(5);
    let ended = judge(&leases, &empty, &view).unwrap_err();
    assert!(matches!(ended, Ended::Empty { name: "containerd", .. }), "{ended}");
    // It lists something of ours: the port is a leaked one, and the rest goes on.
    assert_eq!(generations(&judge(&leases, &[complete()], &view).unwrap().silent), [1]);
    // It knows an owner by the container's id, without any label.
    view.owners.push(evidence(Source::Inventory, None, Some(owner("s2", ""))));
    assert_eq!(generations(&judge(&leases, &empty, &view).unwrap().silent), [1]);
    // A port that no lease of the pass is bound to says nothing.
    assert_eq!(generations(&judge(&leases[..1], &empty, &view).unwrap().silent), [1]);
}

#[test]
fn rule_6_nobody_who_could_speak_for_it_makes_a_lease_unverifiable() {
    let mut view = FakeView::default();
    let unbound = lease(1, State::Active);
    let reborn = Lease {
        binding: Binding { ifindex: None, ..bound(3, 7).binding },
        ..lease(3, State::Active)
    };
    let leases = [unbound, bound(2, 6), reborn];
    let judgement = judge(&leases, &[], &view).unwrap();
    assert_eq!(generations(&judgement.unverifiable), [1]);
    assert_eq!(generations(&judgement.silent), [2, 3], "their ports are gone");
    // After a reboot a port is known by its name only.
    view.links.insert("veth7".to_owned());
    assert_eq!(generations(&judge(&leases, &[], &view).unwrap().unverifiable), [1, 3]);
    assert!(judge(&leases, &[complete()], &view).unwrap().unverifiable.is_empty());
}

#[test]
fn rule_6_a_lease_of_an_earlier_boot_misses_also_where_nobody_is_asked() {
    let mut view = FakeView::default();
    let earlier = |lease: Lease| Lease { boot: BOOT - 1, ..lease };
    let leases = [
        lease(1, State::Active),
        earlier(lease(2, State::Active)),
        earlier(lease(3, State::Held)),
        // Its owner has asked for it since, whenever it was handed out.
        Lease { boot: BOOT, ..lease(4, State::Active) },
        earlier(bound(5, 5)),
    ];
    view.ports.insert(5);
    let judgement = judge(&leases, &[], &view).unwrap();
    assert_eq!(generations(&judgement.silent), [2], "a port speaks for the last one");
    assert_eq!(generations(&judgement.unverifiable), [1, 4]);
}

#[test]
fn rule_6_leases_of_an_absent_bridge_are_not_judged() {
    let leases = [lease(1, State::Active)];
    let unknown = Some(Unknown::Bridge("br0".into()));
    let view = FakeView { unknown, ..FakeView::default() };
    assert_eq!(judge(&leases, &[complete()], &view).unwrap(), Judgement::default());
}

#[test]
fn rule_6_what_speaks_for_a_lease_starts_its_count_anew() {
    let mut view = FakeView::default();
    view.owners.push(evidence(Source::Controller, None, Some(owner("s1", ""))));
    let leases = [Lease { misses: 2, ..lease(1, State::Active) }, lease(2, State::Held)];
    let judgement = judge(&leases, &[complete()], &view).unwrap();
    assert_eq!(judgement, Judgement { seen: vec![1], ..Judgement::default() });
}

fn brake(due: &[Arc<Lease>], all: &[Arc<Lease>], consented: &[u64]) -> Verdict {
    braked(due, all, consented, &Recent::default())
}

fn braked(due: &[Arc<Lease>], all: &[Arc<Lease>], consented: &[u64], recent: &Recent) -> Verdict {
    let consented = consented.iter().copied().collect();
    Brake { share: 0.2, boot: BOOT, consented: &consented, recent }.apply(due, all)
}

fn many(range: std::ops::Range<u64>) -> Vec<Arc<Lease>> {
    range.map(|generation| Arc::new(lease(generation, State::Active))).collect()
}

#[test]
fn rule_6_a_mass_release_waits_for_consent() {
    let all = many(1..41);
    assert!(brake(&all[..8], &all, &[]).blocked.is_empty(), "a fifth");
    let nine = brake(&all[..9], &all, &[]);
    assert_eq!((nine.reap.len(), nine.blocked.len()), (0, 9));
    assert!(brake(&many(1..9), &many(1..9), &[]).blocked.is_empty(), "eight are not many");
    // Of an earlier boot: whoever had them has ended. What counts is who asked for them last, and
    // not when they were handed out.
    let earlier = |count| -> Vec<_> {
        let of = |n| if n < count { BOOT - 1 } else { BOOT };
        let all = all.iter().enumerate();
        all.map(|(n, lease)| Arc::new(Lease { boot: of(n), ..(**lease).clone() })).collect()
    };
    let all_earlier = earlier(40);
    assert_eq!(brake(&all_earlier, &all_earlier, &[]).reap.len(), 40);
    let some = earlier(30);
    let mixed = brake(&some, &some, &[]);
    assert_eq!((mixed.reap.len(), mixed.blocked.len()), (30, 10));
    // With consent, those that were shown; others are still counted.
    let shown: Vec<_> = (1..=20).collect();
    assert_eq!(brake(&all[..20], &all, &shown).reap.len(), 20);
    assert_eq!(brake(&all, &all, &shown).blocked.len(), 20);
}

#[test]
fn rule_6_passes_in_a_row_add_up() {
    let at = Duration::from_secs;
    let all = many(1..41);
    let mut recent = Recent::default();
    recent.add(at(10), &all[..5]);
    // The first pass has left 35, of 40 that were there.
    let left = &all[5..];
    assert!(braked(&left[..3], left, &[], &recent).blocked.is_empty(), "8 of 40");
    let ninth = braked(&left[..4], left, &[], &recent);
    assert_eq!((ninth.reap.len(), ninth.blocked.len()), (0, 4), "9 of 40");
    assert_eq!(braked(&left[..4], left, &[6, 7, 8, 9], &recent).reap.len(), 4, "agreed to");
    recent.add(at(20), &all[..1]);
    recent.forget(at(11));
    assert!(braked(&left[..7], left, &[], &recent).blocked.is_empty(), "long ago");
    // Another pool's do not count.
    let other = Arc::new(Lease { pool: "q".into(), ..lease(100, State::Active) });
    recent.add(at(20), vec![&other; 20]);
    assert!(braked(&left[..7], left, &[], &recent).blocked.is_empty());
}

#[test]
fn rule_6_a_mass_release_in_one_pool_stops_the_pass() {
    let mut all = many(1..41);
    let other = Arc::new(Lease { pool: "q".into(), ..lease(100, State::Active) });
    all.push(Arc::clone(&other));
    let mut due = all[..9].to_vec();
    due.push(other);
    assert_eq!(brake(&due, &all, &[]).blocked.len(), 10);
}

#[test]
fn the_consent_names_what_is_released_whatever_its_order() {
    let some = many(1..10);
    let mut other = some.clone();
    other.reverse();
    assert_eq!(consent_id(&some), consent_id(&other));
    assert_ne!(consent_id(&some), consent_id(&some[1..]));
}

proptest! {
    /// Whatever there is: a lease with evidence is never silent, nor is one that is held; with a
    /// source that did not answer nothing is concluded at all; and everything silent is due only
    /// within the brake.
    #[test]
    fn rule_6_nothing_live_is_ever_silent(
        leases in proptest::collection::vec(
            (0..2_usize, proptest::option::of(1..6_u8), 0..4_u32, BOOT - 1..=BOOT), 0..40,
        ),
        ports in proptest::collection::hash_set(1..6_u32, 0..5),
        owners in proptest::collection::hash_set(1..40_u64, 0..20),
        answers in proptest::collection::vec(0..4_u8, 0..3),
    ) {
        let all: Vec<_> = leases.iter().zip(1..).map(|((state, port, misses, boot), generation)| {
            let made = port.map_or_else(|| lease(generation, State::Active), |p| bound(generation, p));
            let state = [State::Held, State::Active][*state];
            Arc::new(Lease { state, misses: *misses, boot: *boot, ..made })
        }).collect();
        let view = FakeView {
            ports,
            owners: owners
                .iter()
                .map(|n| evidence(Source::Inventory, None, Some(owner(&format!("s{n}"), ""))))
                .collect(),
            ..FakeView::default()
        };
        let heard: Vec<_> = answers.iter().map(|kind| match kind {
            0 => heard(PollOutcome::Failed("x".to_owned()), 0),
            1 => heard(PollOutcome::Partial("x".to_owned()), 3),
            2 => heard(PollOutcome::Complete, 0),
            _ => complete(),
        }).collect();
        let look = Look { leases: &all, read: READ, heard: &heard, boot: BOOT };
        let judged = look.judge(&view);
        if heard.iter().any(|heard| heard.outcome != PollOutcome::Complete) {
            prop_assert!(judged.is_err());
            return Ok(());
        }
        let Ok(judgement) = judged else { return Ok(()) };
        for lease in judgement.silent.iter().chain(&judgement.unverifiable) {
            prop_assert_eq!(lease.state, State::Active);
            prop_assert!(!owners.contains(&lease.generation));
            prop_assert!(lease.binding.ifindex.is_none_or(|port| !view.ports.contains(&port)));
        }
        if heard.is_empty() {
            let is_over = |l: &Arc<Lease>| l.boot < BOOT || l.binding.ifindex.is_some();
            prop_assert!(judgement.silent.iter().all(is_over));
            prop_assert!(judgement.unverifiable.iter().all(|lease| lease.boot == BOOT));
        }
        let verdict = brake(&judgement.silent, &all, &[]);
        prop_assert_eq!(verdict.reap.len() + verdict.blocked.len(), judgement.silent.len());
        let of_now = |generation: &&u64| {
            all.iter().any(|lease| lease.generation == **generation && lease.boot == BOOT)
        };
        let unasked = verdict.reap.iter().filter(of_now).count();
        prop_assert!(unasked <= 8 || unasked * 5 <= all.len());
    }
}
