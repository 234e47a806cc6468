//! Rule 4, the pure part: which leases go with a container.

use proptest::prelude::*;

use super::*;
use crate::{
    evidence::{Place, Unread},
    judgement::{Cause, Kept},
    lease::{State, tests::owner},
    reconcile::tests::lease,
};

fn container(id: &str, sandbox: &str, lifecycle: &str, since: i64) -> Entry {
    Entry {
        owner: owner(sandbox, lifecycle),
        id: id.into(),
        addresses: Vec::new(),
        labelled: true,
        named: true,
        dead: None,
        detail: "".into(),
        since: jiff::Timestamp::from_second(since).unwrap(),
        unread: Unread::default(),
        place: Place::Clear,
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
    let verdict = Verdict::Over(Cause::NotFound);
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

proptest! {
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
