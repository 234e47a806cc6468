//! Rule 5: whose sandbox is over, and whose may not be.

use proptest::prelude::*;

use super::*;
use crate::{
    evidence::{Place, Unread},
    lease::tests::owner,
};

const GRACE: Duration = Duration::from_secs(180);

/// On `CLOCK_BOOTTIME`.
const NOW: Duration = Duration::from_secs(10_000);

/// On some wall clock, which nobody has set.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn alive(sandbox: &str, lifecycle: &str) -> Entry {
    Entry {
        owner: owner(sandbox, lifecycle),
        id: "".into(),
        addresses: Vec::new(),
        labelled: true,
        named: true,
        dead: None,
        detail: "".into(),
        since: at(0),
        unread: Unread::default(),
        place: Place::Clear,
    }
}

/// Dead, and listed so for longer than the grace. It says since when.
fn dead(sandbox: &str, lifecycle: &str, since: i64) -> Entry {
    let death = Death { listed: NOW - GRACE, at: Some(at(since)) };
    Entry { dead: Some(death), since: at(since), ..alive(sandbox, lifecycle) }
}

/// As [`dead`], but the directory does not say since when: that is when it was first listed.
fn undated(sandbox: &str, lifecycle: &str) -> Entry {
    let death = Death { listed: NOW - GRACE, at: None };
    Entry { dead: Some(death), since: at(7000), ..alive(sandbox, lifecycle) }
}

/// As `entry`, first listed so long ago.
fn listed_for(entry: Entry, ago: Duration) -> Entry {
    let dead = entry.dead.map(|death| Death { listed: NOW - ago, ..death });
    Entry { dead, ..entry }
}

fn judge_of(sandbox: &str, lifecycle: &str, made: i64, index: &[Entry]) -> Verdict {
    let owner = owner(sandbox, lifecycle);
    let subject = Subject { owner: &owner, id: "c", made: at(made) };
    Index::new(index.to_vec()).judge(subject, NOW, GRACE)
}

const UNLISTED: Verdict = Verdict::LookUp(Doubt::Unlisted);
const LISTED: Verdict = Verdict::Keep(Kept::Listed);

fn over(since: i64) -> Verdict {
    Verdict::Over(Cause::Dead(at(since)))
}

fn which_run(since: i64) -> Verdict {
    Verdict::LookUp(Doubt::Run(at(since)))
}

#[test]
fn rule_5_whom_the_index_does_not_list_is_looked_up() {
    let judge = |index: &[Entry]| judge_of("s", "1", 100, index);
    assert_eq!(judge(&[]), UNLISTED);
    assert_eq!(judge(&[alive("other", "1"), dead("other", "1", 0)]), UNLISTED);
    assert_eq!(judge(&[alive("s", "1")]), LISTED);
    // By the name that CNI knows it by.
    assert_eq!(judge(&[alive("c", "")]), LISTED);
    // One whose name cannot be read may be anybody's.
    assert_eq!(judge(&[alive("", "")]), LISTED);
}

#[test]
fn rule_5_a_container_is_looked_up_by_its_id_too() {
    let owner = owner("s", "1");
    let names = |id: &str| -> Vec<_> {
        let subject = Subject { owner: &owner, id, made: at(0) };
        subject.names().map(|owner| owner.to_string()).collect()
    };
    assert_eq!(names("c"), ["s/1", "c"]);
    assert_eq!(names("s"), ["s/1"]);
    assert_eq!(names(""), ["s/1"], "a lease");
}

#[test]
fn rule_5_whom_the_index_lists_as_dead_past_the_grace_goes_without_a_look_up() {
    let second = Duration::from_secs(1);
    let judge = |index: &[Entry]| judge_of("s", "1", 100, index);
    assert_eq!(judge(&[dead("s", "1", 500)]), over(500));
    // Within the grace, to the second.
    for ago in [GRACE - second, Duration::ZERO] {
        let recent = listed_for(dead("s", "1", 500), ago);
        assert_eq!(judge(&[recent]), Verdict::Keep(Kept::Grace(at(500))));
    }
    // Two that are about it: the one that was listed later counts.
    let both = [dead("s", "1", 200), listed_for(dead("s", "", 900), second)];
    assert_eq!(judge(&both), Verdict::Keep(Kept::Grace(at(900))));
    assert_eq!(judge(&[dead("s", "1", 200), dead("s", "", 900)]), over(200));
}

#[test]
fn rule_10_no_wall_clock_shortens_or_lengthens_the_grace() {
    // The directory's clock may be years off, or step: what it says does not count.
    for since in [-4_000_000_000, 0, 4_000_000_000] {
        assert_eq!(judge_of("s", "1", 100, &[dead("s", "1", since)]), over(since));
        let recent = listed_for(dead("s", "1", since), GRACE / 2);
        assert_eq!(judge_of("s", "1", 100, &[recent]), Verdict::Keep(Kept::Grace(at(since))));
    }
}

#[test]
fn rule_5_a_new_lifecycle_is_another_sandbox() {
    let new = |index: &[Entry]| judge_of("s", "2", 500, index);
    // The old one is dead, and of the new one the index knows nothing yet.
    assert_eq!(new(&[dead("s", "1", 400)]), UNLISTED);
    assert_eq!(new(&[dead("s", "1", 400), alive("s", "2")]), LISTED);
    // The old one, beside the new one.
    let index = [dead("s", "1", 400), alive("s", "2")];
    assert_eq!(judge_of("s", "1", 100, &index), over(400));
    assert_eq!(judge_of("s", "1", 100, &[alive("s", "2")]), UNLISTED);
    // One that does not say which run it is of.
    assert_eq!(judge_of("s", "", 100, &index), LISTED);
    assert_eq!(judge_of("s", "", 100, &[dead("s", "1", 400)]), UNLISTED);
}

#[test]
fn rule_5_a_death_without_a_lifecycle_is_looked_up() {
    for lifecycle in ["", "2"] {
        let judge = |index: &[Entry]| judge_of("s", lifecycle, 500, index);
        // A time that guard made up tells nothing, nor does one by another's clock.
        assert_eq!(judge(&[undated("s", "")]), which_run(7000));
        assert_eq!(judge(&[dead("s", "", 500)]), which_run(500));
        // It was over before this one was made, and concerns another run.
        assert_eq!(judge(&[dead("s", "", 499)]), UNLISTED);
        // Its grace counts all the same.
        let recent = listed_for(undated("s", ""), Duration::ZERO);
        assert_eq!(judge(&[recent]), Verdict::Keep(Kept::Grace(at(7000))));
    }
    // A run that is listed by its name is no doubt.
    assert_eq!(judge_of("s", "1", 500, &[undated("s", ""), undated("s", "1")]), over(7000));
}

#[test]
fn rule_5_any_answer_but_not_found_keeps_it() {
    let late = || "no answer within 10s".to_owned();
    let failed = || "cannot look a sandbox up: no".to_owned();
    for doubt in [Doubt::Unlisted, Doubt::Run(at(1))] {
        let not_found =
            [vec![SandboxState::NotFound], vec![SandboxState::NotFound, SandboxState::NotFound]];
        for words in not_found {
            assert_eq!(judge_answer(doubt, Ok(Some(words))), Verdict::Over(Cause::NotFound));
        }
        let others = [
            Ok(Some(vec![SandboxState::Alive])),
            Ok(Some(vec![SandboxState::NotFound, SandboxState::Alive])),
            Ok(Some(vec![SandboxState::Dead, SandboxState::Alive])),
            Ok(Some(Vec::new())),
            Ok(None),
            Err(late()),
            Err(failed()),
        ];
        for answer in others {
            let shown = format!("{answer:?}");
            assert!(matches!(judge_answer(doubt, answer), Verdict::Keep(_)), "{shown}");
        }
    }
    // That it is dead is the answer to whom a death concerns that the index has listed too.
    for words in [vec![SandboxState::Dead], vec![SandboxState::Dead, SandboxState::NotFound]] {
        let unlisted = judge_answer(Doubt::Unlisted, Ok(Some(words.clone())));
        assert_eq!(unlisted, Verdict::Keep(Kept::Found(SandboxState::Dead)));
        assert_eq!(judge_answer(Doubt::Run(at(1)), Ok(Some(words))), over(1));
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0..3_usize, 0..3_usize, 0..4_u8, 0..20_000_i64, 0..400_u64);
    let entry = entry.prop_map(|(sandbox, lifecycle, kind, since, ago)| {
        let (sandbox, lifecycle) = (["a", "b", "c"][sandbox], ["", "1", "2"][lifecycle]);
        let entry = match kind {
            0 => alive(sandbox, lifecycle),
            1 => undated(sandbox, lifecycle),
            _ => dead(sandbox, lifecycle, since),
        };
        listed_for(entry, Duration::from_secs(ago))
    });
    proptest::collection::vec(entry, 0..8)
}

proptest! {
    /// Whatever the index says: nothing is over without a death of its own run that was listed for
    /// the grace, nothing that may be meant by an entry that is alive or within the grace is even
    /// looked up, what is said of other runs changes nothing but to keep, and no wall clock makes
    /// more be over.
    #[test]
    fn rule_5_nothing_goes_without_its_own_death(
        index in entries(),
        (sandbox, lifecycle) in (0..3_usize, 0..3_usize),
        (made, moved) in (0..20_000_i64, 0..20_000_i64),
    ) {
        let (sandbox, lifecycle) = (["a", "b", "c"][sandbox], ["", "1", "2"][lifecycle]);
        let verdict = judge_of(sandbox, lifecycle, made, &index);
        let of_sandbox = || index.iter().filter(|entry| *entry.owner.sandbox == *sandbox);
        let of_run = |entry: &&Entry| *entry.owner.lifecycle == *lifecycle;
        let of_all = |entry: &&Entry| entry.owner.lifecycle.is_empty();
        let spared = of_sandbox().filter(|entry| entry.dead.is_none());
        let is_spared =
            spared.clone().any(|entry| of_run(&entry) || of_all(&entry) || lifecycle.is_empty());
        if is_spared {
            prop_assert_eq!(&verdict, &LISTED);
        }
        if !matches!(verdict, Verdict::Keep(_)) {
            let mut own = of_sandbox().filter(|entry| of_run(entry) || of_all(entry));
            prop_assert!(own.all(|entry| entry.dead.is_some_and(|d| NOW - d.listed >= GRACE)));
        }
        if let Verdict::Over(cause) = &verdict {
            let Cause::Dead(death) = cause else { panic!("nobody was asked") };
            prop_assert!(!lifecycle.is_empty());
            prop_assert!(of_sandbox().any(|entry| of_run(&entry) && entry.since == *death));
        }
        // Deaths of other runs are no matter.
        let others = |entry: &Entry| {
            entry.dead.is_none()
                || *entry.owner.sandbox == *sandbox && (of_run(&entry) || of_all(&entry))
        };
        let relevant: Vec<_> = index.iter().filter(|entry| others(entry)).cloned().collect();
        prop_assert_eq!(&judge_of(sandbox, lifecycle, made, &relevant), &verdict);
        // Whenever it was made, by whatever clock.
        let moved = judge_of(sandbox, lifecycle, moved, &index);
        prop_assert_eq!(matches!(moved, Verdict::Over(_)), matches!(verdict, Verdict::Over(_)));
    }
}
