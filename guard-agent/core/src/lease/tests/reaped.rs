//! Rule 6, the engine's part: misses, the threshold and the last look.

use super::{restored::restart, *};
use crate::{evidence::Unknown, lease::command::CountMisses};

const INTERVAL: Duration = Duration::from_secs(300);

impl World {
    /// A lease that is confirmed and that nothing speaks for.
    fn silent(&mut self, sandbox: &str) -> Generation {
        let generation = self.lease(sandbox).generation;
        self.run(Command::Confirm(generation)).unwrap();
        generation
    }

    fn count(&mut self, silent: &[Generation], seen: &[Generation]) -> Vec<u32> {
        let found = CountMisses {
            silent: silent.to_vec(),
            seen: seen.to_vec(),
            started: self.now.boot,
            since: self.now.boot,
            interval: INTERVAL,
            threshold: 3,
        };
        match self.run(Command::CountMisses(found)).unwrap() {
            Reply::Leases(leases) => leases.iter().map(|lease| lease.misses).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn reap(&mut self, generation: Generation) -> bool {
        let (generations, since) = (vec![generation], self.now.boot);
        match self.run(Command::Reap { generations, threshold: 3, since }).unwrap() {
            Reply::Leases(leases) => !leases.is_empty(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rule_6_an_interval_has_one_miss_whoever_asks() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    assert_eq!(world.count(&[lease], &[]), [1]);
    world.pass(4);
    assert_eq!(world.count(&[lease], &[]), [1], "asked for by hand in between");
    assert!(world.changes.is_empty());
    world.pass(1);
    assert_eq!(world.count(&[lease], &[]), [2]);
    assert!(!world.reap(lease), "not at the threshold");
    world.pass(5);
    assert_eq!(world.count(&[lease], &[]), [3]);
    world.pass(5);
    assert_eq!(world.count(&[lease], &[]), [3], "not beyond the threshold");
    assert!(world.reap(lease));
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    assert_eq!(world.at("10.0.0.2").misses, 0);
}

#[test]
fn rule_9_a_miss_is_stored_and_no_event() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    for (silent, seen) in [([lease].as_slice(), [].as_slice()), (&[], &[lease])] {
        world.count(silent, seen);
        assert_eq!(world.changes.len(), 1);
        assert_eq!(world.changes[0].change(), None);
    }
    world.release(lease);
    assert!(world.changes[0].change().is_some());
}

#[test]
fn rule_6_evidence_starts_the_count_anew() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    world.count(&[lease], &[]);
    world.count(&[], &[lease]);
    assert_eq!(world.at("10.0.0.2").misses, 0);
    // It falls silent at once: that is its first miss again.
    assert_eq!(world.count(&[lease], &[]), [1]);
}

#[test]
fn rule_6_the_owners_own_word_starts_the_count_anew() {
    for word in 0..3 {
        let mut world = World::with("10.0.0.0/24");
        let lease = world.silent("s");
        for _ in 0..3 {
            world.count(&[lease], &[]);
            world.pass(5);
        }
        let command = match word {
            0 => Command::Allocate(ask("s")),
            1 => Command::Confirm(lease),
            _ => Command::Bind { generation: lease, mac: Some(station(9).mac), port: None },
        };
        world.run(command).unwrap();
        assert!(!world.reap(lease), "what was just given to its owner is not taken away");
        assert_eq!(world.at("10.0.0.2").misses, 0);
    }
}

#[test]
fn rule_6_the_last_look_is_in_the_releasing_transaction() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    for _ in 0..3 {
        world.count(&[lease], &[]);
        world.pass(5);
    }
    world.see_wire("10.0.0.2", 5);
    assert!(!world.reap(lease));
    world.forget("10.0.0.2");
    world.view.ports.remove(&5);
    world.view.owners = vec![evidence(Source::Controller, None, Some(owner("s", "")))];
    assert!(!world.reap(lease), "the owner exists, whatever its address is");
    world.view.owners.clear();
    assert_eq!(world.at("10.0.0.2").misses, 3, "a look alone changes nothing");
    assert!(world.reap(lease));
}

#[test]
fn rule_6_nothing_is_counted_or_taken_back_before_all_is_known() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    for unknown in [Unknown::Boot, Unknown::Bridge("br0".into()), Unknown::Source("directory")] {
        world.view.unknown = Some(unknown);
        assert_eq!(world.count(&[lease], &[]), Vec::<u32>::new());
    }
    world.view.unknown = None;
    for _ in 0..3 {
        world.count(&[lease], &[]);
        world.pass(5);
    }
    // A source that has not answered since the leases were read.
    world.view.complete_since = Some(world.now.boot - Duration::from_secs(1));
    assert!(!world.reap(lease));
    assert_eq!(world.at("10.0.0.2").misses, 3);
    world.view.complete_since = Some(world.now.boot);
    assert!(world.reap(lease));
}

#[test]
fn rule_6_misses_are_keyed_by_generation() {
    let mut world = World::with("10.0.0.0/30");
    let old = world.silent("a");
    for _ in 0..3 {
        world.count(&[old], &[]);
        world.pass(5);
    }
    world.release(old);
    let new = world.silent("b");
    assert_eq!(world.at("10.0.0.2").generation, new);
    assert_eq!(world.count(&[old], &[]), Vec::<u32>::new());
    assert!(!world.reap(old));
    assert_eq!(world.at("10.0.0.2").misses, 0);
}

#[test]
fn rule_6_a_held_lease_is_never_reaped() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s").generation;
    assert_eq!(world.count(&[lease], &[]), Vec::<u32>::new());
    assert!(!world.reap(lease));
    assert_eq!(world.state("10.0.0.2"), Some(State::Held));
}

#[test]
fn rule_6_a_commit_that_fails_leaves_the_count_as_it_was() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    for _ in 0..3 {
        world.count(&[lease], &[]);
        world.pass(5);
    }
    assert!(world.reap(lease));
    let changes = std::mem::take(&mut world.changes);
    world.engine.undo(&changes);
    assert_eq!(world.engine.check(), Vec::<String>::new());
    assert_eq!((world.at("10.0.0.2").misses, world.state("10.0.0.2")), (3, Some(State::Active)));
    assert!(world.reap(lease), "and the next pass tries again");
}

#[test]
fn rule_6_a_miss_that_was_not_stored_is_counted_by_the_next_pass() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    assert_eq!(world.count(&[lease], &[]), [1]);
    let changes = std::mem::take(&mut world.changes);
    world.engine.undo(&changes);
    assert_eq!(world.count(&[lease], &[]), [1]);
}

#[test]
fn rule_10_a_step_of_the_wall_clock_neither_stops_nor_hastens_a_miss() {
    for step in [-86_400, 86_400] {
        let mut world = World::with("10.0.0.0/24");
        let lease = world.silent("s");
        assert_eq!(world.count(&[lease], &[]), [1]);
        world.now.wall += jiff::SignedDuration::from_secs(step);
        restart(&mut world, [spec("10.0.0.0/24")], None);
        world.pass(4);
        assert_eq!(world.count(&[lease], &[]), [1], "{step}: the interval is not over");
        world.pass(1);
        assert_eq!(world.count(&[lease], &[]), [2], "{step}");
    }
}

#[test]
fn rule_10_after_a_reboot_a_miss_waits_for_what_was_left_of_its_interval() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    assert_eq!(world.count(&[lease], &[]), [1]);
    world.pass(3);
    // The machine is off for a day, and the new boot's clock starts anew.
    let carry = Carry { then: world.now.boot, now: Duration::from_secs(600) };
    world.now.boot = carry.now;
    world.now.wall += jiff::SignedDuration::from_hours(24);
    restart(&mut world, [spec("10.0.0.0/24")], Some(carry));
    world.pass(1);
    assert_eq!(world.count(&[lease], &[]), [1]);
    world.pass(1);
    assert_eq!(world.count(&[lease], &[]), [2]);
}

#[test]
fn a_miss_of_which_nobody_knows_when_it_was_is_waited_for() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    world.count(&[lease], &[]);
    // As an older version has left it.
    let mut contents = world.engine.contents();
    let (_, Row::Lease(row)) = &mut contents.rows[0] else { panic!("{contents:?}") };
    Arc::make_mut(row).missed_at = None;
    let restored =
        Restored { contents, high_water: world.engine.high_water(), ..Restored::default() };
    world.engine = Engine::restore(pools([spec("10.0.0.0/24")]), restored).0;
    assert_eq!(world.count(&[lease], &[]), [1]);
    world.pass(4);
    assert_eq!(world.count(&[lease], &[]), [1]);
    world.pass(1);
    assert_eq!(world.count(&[lease], &[]), [2]);
}

#[test]
fn rule_6_misses_of_an_earlier_run_count_and_so_does_their_interval() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    world.count(&[lease], &[]);
    world.pass(1);
    restart(&mut world, [spec("10.0.0.0/24")], None);
    assert_eq!(world.count(&[lease], &[]), [1], "the interval is not over");
    world.pass(4);
    assert_eq!(world.count(&[lease], &[]), [2]);
}

#[test]
fn a_dry_run_counts_nothing() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.silent("s");
    let found = CountMisses {
        silent: vec![lease],
        seen: vec![],
        started: world.now.boot,
        since: world.now.boot,
        interval: INTERVAL,
        threshold: 3,
    };
    let reply = world.engine.preview(Command::CountMisses(found), &world.view, world.now).unwrap();
    assert!(matches!(reply, Reply::Leases(leases) if leases[0].misses == 1));
    assert_eq!(world.at("10.0.0.2").misses, 0);
    assert_eq!(world.count(&[lease], &[]), [1]);
}

#[test]
fn what_is_in_use_by_the_time_of_a_collection_stays() {
    let mut world = World::with("10.0.0.0/24");
    let (held, silent) = (world.lease("held").generation, world.silent("s"));
    let used = world.silent("used");
    // Between the two reads.
    world.see_wire("10.0.0.4", 4);
    let generations = vec![held, silent, used];
    // A pass of the reconciler takes none: they have missed nothing.
    let since = world.now.boot;
    let pass = Command::Reap { generations: generations.clone(), threshold: 1, since };
    assert_eq!(world.run(pass).unwrap(), Reply::Leases(Vec::new()));
    world.run(Command::Reap { generations, threshold: 0, since }).unwrap();
    let states = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|address| world.state(address));
    assert_eq!(states, [State::Cooling, State::Cooling, State::Active].map(Some));
}
