//! Rules 4 and 5, the pure parts: which container goes, and which leases go with it.

use proptest::prelude::*;

use super::*;
use crate::{
    inventory::{Place, SourceError, Unread, directory::Word},
    lease::{State, tests::owner},
    reconcile::tests::lease,
};

const GRACE: Duration = Duration::from_secs(180);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NOW: i64 = 10_000;

fn container(id: &str, sandbox: &str, lifecycle: &str, since: i64) -> Entry {
    Entry {
        owner: owner(sandbox, lifecycle),
        id: id.into(),
        addresses: Vec::new(),
        labelled: true,
        named: true,
        dead: false,
        detail: "".into(),
        since: at(since),
        unread: Unread::default(),
        place: Place::Clear,
    }
}

fn alive(sandbox: &str, lifecycle: &str) -> Entry {
    container("", sandbox, lifecycle, 0)
}

fn dead(sandbox: &str, lifecycle: &str, since: i64) -> Entry {
    Entry { dead: true, ..container("", sandbox, lifecycle, since) }
}

fn judge(container: &Entry, index: &[Entry]) -> Verdict {
    Index::new(index.to_vec()).judge(container, at(NOW), GRACE)
}

#[test]
fn rule_5_whom_the_index_does_not_list_is_looked_up() {
    let mine = container("c", "s", "1", 100);
    assert_eq!(judge(&mine, &[]), Verdict::LookUp);
    assert_eq!(judge(&mine, &[alive("other", "1"), dead("other", "1", 0)]), Verdict::LookUp);
    assert_eq!(judge(&mine, &[alive("s", "1")]), Verdict::Keep(Kept::Listed));
    // By the name that CNI knows it by.
    assert_eq!(judge(&mine, &[alive("c", "")]), Verdict::Keep(Kept::Listed));
}

#[test]
fn rule_5_whom_the_index_lists_as_dead_past_the_grace_goes_without_a_look_up() {
    let mine = container("c", "s", "1", 100);
    let past = NOW - 180;
    assert_eq!(judge(&mine, &[dead("s", "1", past)]), Verdict::Remove(Cause::Dead(at(past))));
    // Within the grace, to the second; a death in the future is no death yet.
    for since in [past + 1, NOW, NOW + 1000] {
        assert_eq!(judge(&mine, &[dead("s", "1", since)]), Verdict::Keep(Kept::Grace(at(since))));
    }
    // Two that are about it: the later one counts.
    let both = [dead("s", "1", 200), dead("s", "", NOW - 1)];
    assert_eq!(judge(&mine, &both), Verdict::Keep(Kept::Grace(at(NOW - 1))));
}

#[test]
fn rule_5_a_new_lifecycle_is_another_sandbox() {
    let new = container("c", "s", "2", 500);
    // The old one is dead, and of the new one the index knows nothing yet.
    assert_eq!(judge(&new, &[dead("s", "1", 400)]), Verdict::LookUp);
    // All of them were dead before the new one was made.
    assert_eq!(judge(&new, &[dead("s", "", 499)]), Verdict::LookUp);
    assert_eq!(judge(&new, &[dead("s", "", 500)]), Verdict::Remove(Cause::Dead(at(500))));
    assert_eq!(judge(&new, &[dead("s", "1", 400), alive("s", "2")]), Verdict::Keep(Kept::Listed));
    // The old container, beside the new one.
    let old = container("c1", "s", "1", 100);
    let index = [dead("s", "1", 400), alive("s", "2")];
    assert_eq!(judge(&old, &index), Verdict::Remove(Cause::Dead(at(400))));
    assert_eq!(judge(&old, &[alive("s", "2")]), Verdict::LookUp);
    // One that does not say which run it is of.
    let either = container("c", "s", "", 100);
    assert_eq!(judge(&either, &index), Verdict::Keep(Kept::Listed));
    assert_eq!(judge(&either, &[dead("s", "1", 400)]), Verdict::LookUp);
}

#[test]
fn rule_5_any_answer_but_not_found_keeps_it() {
    assert_eq!(judge_answer(Ok(Some(Word::NotFound))), Verdict::Remove(Cause::NotFound));
    let late = || SourceError::Late(Duration::from_secs(10));
    let failed = || SourceError::Call { what: "look a sandbox up", why: "no".to_owned() };
    let others =
        [Ok(Some(Word::Alive)), Ok(Some(Word::Dead)), Ok(None), Err(late()), Err(failed())];
    for answer in others {
        let shown = format!("{answer:?}");
        assert!(matches!(judge_answer(answer), Verdict::Keep(_)), "{shown}");
    }
}

#[test]
fn a_directory_that_has_lost_its_list_ends_nobody_unasked() {
    for (removals, all, held_back) in
        [(8, 8, false), (9, 9, true), (9, 44, true), (9, 45, false), (20, 100, false)]
    {
        assert_eq!(is_mass_removal(removals, all), held_back, "{removals} of {all}");
    }
}

fn watched(container: Entry, removed: bool) -> Watched {
    let verdict = Verdict::Remove(Cause::NotFound);
    let failed = (!removed).then(|| "it is busy".to_owned());
    Watched { container, verdict, failed }
}

fn leases(owners: &[(&str, &str)]) -> Vec<Arc<Lease>> {
    let made = |(generation, (sandbox, lifecycle)): (u64, &(&str, &str))| {
        let owner = Some(owner(sandbox, lifecycle));
        Arc::new(Lease { owner, ..lease(generation, State::Active) })
    };
    (1..).zip(owners).map(made).collect()
}

fn generations(leases: &[Arc<Lease>]) -> Vec<u64> {
    leases.iter().map(|lease| lease.generation).collect()
}

#[test]
fn rule_4_a_lease_goes_with_its_containers_and_only_with_all_of_them() {
    let all = leases(&[("s", "1"), ("s", "2"), ("c", ""), ("c", "1"), ("t", "1")]);
    let gone = watched(container("c", "s", "1", 0), true);
    assert_eq!(generations(&due(&all, std::slice::from_ref(&gone))), [1, 3]);
    // What could not be removed speaks for its owner still.
    let left = watched(container("d", "s", "1", 0), false);
    assert_eq!(generations(&due(&all, &[gone.clone(), left])), [3]);
    let unsure = watched(container("d", "s", "", 0), false);
    assert_eq!(generations(&due(&all, &[gone.clone(), unsure])), [3]);
    let kept = Watched {
        verdict: Verdict::Keep(Kept::Listed),
        ..watched(container("d", "s", "1", 0), true)
    };
    assert_eq!(generations(&due(&all, &[kept, gone])), [3]);
    assert!(due(&all, &[watched(container("c", "s", "1", 0), false)]).is_empty());
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0..3_usize, 0..3_usize, any::<bool>(), 0..2 * NOW);
    let entry = entry.prop_map(|(sandbox, lifecycle, is_dead, since)| Entry {
        dead: is_dead,
        ..container("", ["a", "b", "c"][sandbox], ["", "1", "2"][lifecycle], since)
    });
    proptest::collection::vec(entry, 0..8)
}

proptest! {
    /// Whatever the index says: nothing goes without a death of its own run (or of all runs, after
    /// it was made) that is past the grace, nothing that may be meant by an entry that is alive
    /// goes at all, and what is said of other runs changes nothing but to keep.
    #[test]
    fn rule_5_nothing_goes_without_its_own_death(
        index in entries(),
        (sandbox, lifecycle) in (0..3_usize, 0..3_usize),
        since in 0..NOW,
    ) {
        let (sandbox, lifecycle) = (["a", "b", "c"][sandbox], ["", "1", "2"][lifecycle]);
        let mine = container("id", sandbox, lifecycle, since);
        let verdict = judge(&mine, &index);
        let of_sandbox = || index.iter().filter(|entry| *entry.owner.sandbox == *sandbox);
        let of_run = |entry: &&Entry| *entry.owner.lifecycle == *lifecycle;
        let of_all = |entry: &&Entry| entry.owner.lifecycle.is_empty();
        let spared = of_sandbox().filter(|entry| !entry.dead);
        let is_spared =
            spared.clone().any(|entry| of_run(&entry) || of_all(&entry) || lifecycle.is_empty());
        if is_spared {
            prop_assert_eq!(&verdict, &Verdict::Keep(Kept::Listed));
        }
        if let Verdict::Remove(cause) = &verdict {
            prop_assert!(!is_spared);
            let Cause::Dead(death) = cause else { panic!("nobody was asked") };
            prop_assert!(death.as_second() + 180 <= NOW);
            let mut deaths = of_sandbox().filter(|entry| entry.dead && entry.since == *death);
            let its_own = deaths.any(|entry| match &*entry.owner.lifecycle {
                "" => mine.since <= *death,
                run => run == lifecycle,
            });
            prop_assert!(its_own);
        }
        // Deaths of other runs are no matter.
        let others = |entry: &Entry| {
            !entry.dead || *entry.owner.sandbox == *sandbox && (of_run(&entry) || of_all(&entry))
        };
        let relevant: Vec<_> = index.iter().filter(|entry| others(entry)).cloned().collect();
        prop_assert_eq!(judge(&mine, &relevant), verdict);
    }

    /// No lease goes while a container is left that speaks for its owner.
    #[test]
    fn rule_4_no_lease_goes_before_its_containers(
        containers in proptest::collection::vec((0..3_usize, 0..3_usize, any::<bool>()), 0..6),
    ) {
        let names = (["a", "b", "c"], ["", "1", "2"]);
        let all: Vec<_> = names.0.iter().flat_map(|s| names.1.map(|l| (*s, l))).collect();
        let all = leases(&all);
        let watched: Vec<_> = containers.iter().enumerate().map(|(id, (s, l, removed))| {
            watched(container(&format!("id{id}"), names.0[*s], names.1[*l], 0), *removed)
        }).collect();
        for lease in due(&all, &watched) {
            let owner = lease.owner.as_ref().unwrap();
            let left = watched.iter().filter(|it| !it.is_removed());
            prop_assert!(!left.clone().any(|it| it.container.speaks_for(owner)));
            prop_assert!(watched.iter().any(|it| it.is_removed() && it.container.owner == *owner));
        }
    }
}
