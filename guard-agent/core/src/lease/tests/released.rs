use super::*;

fn outcome(reply: Reply) -> State {
    match reply {
        Reply::Released(state, _) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_4_a_live_address_stays_releasing_until_the_evidence_is_gone() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.see_wire("10.0.0.2", 5);
    world.claim("10.0.0.2", 5);
    assert_eq!(world.state("10.0.0.2"), Some(State::Active));
    assert_eq!(outcome(world.release(lease.generation)), State::Releasing);
    // Frames may be gone before the port is.
    world.forget("10.0.0.2");
    world.recheck("10.0.0.2");
    assert_eq!(world.state("10.0.0.2"), Some(State::Releasing));
    world.link_ended(5);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    world.pass(29);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    world.pass(1);
    assert_eq!(world.state("10.0.0.2"), None);
}

#[test]
fn rule_4_the_generation_ends_with_the_release() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.see_wire("10.0.0.2", 5);
    world.release(lease.generation);
    assert_eq!(world.run(Command::Confirm(lease.generation)).unwrap(), Reply::Stale);
    let next = world.lease("s");
    assert_eq!(next.address, ip("10.0.0.3"));
}

#[test]
fn rule_4_releasing_twice_restarts_no_timer() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    assert_eq!(outcome(world.release(lease.generation)), State::Cooling);
    let until = world.at("10.0.0.2").until;
    world.pass(10);
    assert_eq!(world.release(lease.generation), Reply::Stale);
    assert!(world.changes.is_empty());
    assert_eq!(world.at("10.0.0.2").until, until);
    let by_owner = Command::ReleaseOwner { sandbox: Arc::from("s"), lifecycle: None };
    assert_eq!(outcome(world.run(by_owner).unwrap()), State::Cooling);
    assert!(world.changes.is_empty());
}

#[test]
fn rule_4_an_old_generation_is_stale_and_an_unknown_one_not_found() {
    let mut world = World::with("10.0.0.0/30");
    let old = world.lease("a");
    world.release(old.generation);
    let new = world.lease("b");
    assert_eq!(new.address, old.address);
    for command in [
        Command::Release(old.generation),
        Command::Confirm(old.generation),
        Command::Bind { generation: old.generation, mac: Some(station(1).mac), port: None },
    ] {
        assert_eq!(world.run(command).unwrap(), Reply::Stale);
        assert!(world.changes.is_empty());
    }
    assert_eq!(world.release(new.generation + 1), Reply::NotFound);
    assert_eq!(world.release(42), Reply::NotFound);
    assert_eq!(world.state("10.0.0.2"), Some(State::Held));
}

#[test]
fn rule_4_a_sandbox_without_lifecycle_is_refused_while_several_hold_leases() {
    let mut world = World::with("10.0.0.0/24");
    let run = |lifecycle: &str| Allocate { lifecycle: Arc::from(lifecycle), ..ask("s") };
    let release = |lifecycle: Option<&str>| Command::ReleaseOwner {
        sandbox: Arc::from("s"),
        lifecycle: lifecycle.map(Arc::from),
    };
    world.allocate(run("1")).unwrap();
    world.allocate(Allocate { key: Arc::from("eth1"), ..run("1") }).unwrap();
    world.allocate(run("2")).unwrap();
    world.lease("ss");
    assert_eq!(world.run(release(None)).unwrap_err().reason, Reason::AmbiguousOwner);
    assert!(world.changes.is_empty());
    let Reply::Released(State::Cooling, leases) = world.run(release(Some("1"))).unwrap() else {
        panic!("not released")
    };
    assert_eq!(leases.len(), 2);
    assert_eq!(world.run(release(Some("9"))).unwrap(), Reply::Stale);
    let Reply::Released(State::Cooling, leases) = world.run(release(None)).unwrap() else {
        panic!("not released")
    };
    assert_eq!(leases.len(), 1);
    assert_eq!(world.state("10.0.0.5"), Some(State::Held));
    let nobody = Command::ReleaseOwner { sandbox: Arc::from("x"), lifecycle: None };
    assert_eq!(world.run(nobody).unwrap(), Reply::NotFound);
}

#[test]
fn a_namesake_of_the_port_does_not_keep_a_released_lease() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.view.ports.insert(5);
    let port = Some((Arc::from("veth5"), 5));
    world.run(Command::Bind { generation: lease.generation, mac: None, port }).unwrap();
    assert_eq!(outcome(world.release(lease.generation)), State::Releasing);
    world.view.names.insert(6, "veth5".to_owned());
    world.port_added(6);
    world.link_ended(5);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
}

fn subscribers(world: &mut World, names: &[(&str, u64)]) {
    let list = names.iter().map(|(name, secs)| (Arc::from(*name), Duration::from_secs(*secs)));
    world.run(Command::Subscribers(list.collect())).unwrap();
}

#[test]
fn rule_9_a_hold_keeps_the_address_until_it_is_acknowledged() {
    let mut world = World::with("10.0.0.0/24");
    subscribers(&mut world, &[("nfs", 120), ("fw", 300)]);
    let lease = world.lease("s");
    let ack = |subscriber: &str| Command::AckHold {
        generation: lease.generation,
        subscriber: Arc::from(subscriber),
    };
    assert_eq!(world.run(ack("nfs")).unwrap(), Reply::Stale, "it is not released");
    assert_eq!(outcome(world.release(lease.generation)), State::Releasing);
    let waits = world.at("10.0.0.2");
    assert_eq!((waits.holds.len(), &*waits.reason), (2, reason::HOLD));
    assert_eq!(world.refused(ask_for("t", "10.0.0.2")), Reason::AddressHeld);
    for subscriber in ["nfs", "nfs", "nobody"] {
        assert_eq!(world.run(ack(subscriber)).unwrap(), Reply::Done);
        assert_eq!(world.at("10.0.0.2").holds.len(), 1);
    }
    world.run(ack("fw")).unwrap();
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    assert_eq!(world.run(ack("fw")).unwrap(), Reply::Done);
    assert!(world.changes.is_empty());
}

#[test]
fn rule_9_a_hold_ends_with_its_deadline_and_that_is_told() {
    let mut world = World::with("10.0.0.0/24");
    subscribers(&mut world, &[("nfs", 120), ("fw", 300)]);
    let lease = world.lease("s");
    world.see_wire("10.0.0.2", 2);
    world.release(lease.generation);
    world.forget("10.0.0.2");
    world.recheck("10.0.0.2");
    assert_eq!(&*world.at("10.0.0.2").reason, reason::HOLD);
    world.pass(2);
    let told = world.notices.iter().find_map(|notice| match notice {
        Notice::HoldExpired(_, late) => Some(late),
        _ => None,
    });
    let Some(late) = told else { panic!("not told") };
    assert_eq!(late[..], [Arc::from("nfs")]);
    assert_eq!(world.state("10.0.0.2"), Some(State::Releasing));
    world.pass(3);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
}

#[test]
fn force_ends_the_lease_and_never_frees_a_live_address() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.see_wire("10.0.0.2", 2);
    world.claim("10.0.0.2", 2);
    let force =
        |n: u8| Command::ForceRelease { segment: segment(), address: ip(&format!("10.0.0.{n}")) };
    assert_eq!(outcome(world.run(force(2)).unwrap()), State::Releasing);
    assert_eq!(world.run(Command::Confirm(lease.generation)).unwrap(), Reply::Stale);
    assert_eq!(world.run(force(9)).unwrap(), Reply::NotFound);
}

#[test]
fn a_row_that_changed_twice_is_undone_to_what_it_was_first() {
    let mut world = World::with("10.0.0.0/24");
    subscribers(&mut world, &[("nfs", 120)]);
    let lease = world.lease("s");
    world.release(lease.generation);
    let before = world.at("10.0.0.2");
    let ack = Command::AckHold { generation: lease.generation, subscriber: Arc::from("nfs") };
    world.run(ack).unwrap();
    let changes = world.changes.clone();
    assert_eq!(changes.len(), 2);
    world.engine.undo(&changes);
    assert_eq!(world.at("10.0.0.2"), before);
    assert_eq!(world.engine.check(), Vec::<String>::new());
}

#[test]
fn rule_4_a_container_that_names_no_address_keeps_what_its_sandbox_gives_back() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.view.owners = vec![evidence(Source::Inventory, None, Some(owner("s", "")))];
    // All is known: a stream would have told that it has ended.
    assert_eq!(outcome(world.release(lease.generation)), State::Releasing);
    world.view.owners.clear();
    world.look(|changes| changes.owners = true);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
}

#[test]
fn rule_4_a_container_speaks_for_the_same_address_on_both_segments() {
    let other =
        PoolSpec { name: Arc::from("q"), segment: Segment::new("br1", 0), ..spec("10.0.0.0/24") };
    let mut world = World::new([spec("10.0.0.0/24"), other]);
    let both = Allocate { pools: vec!["p".into(), "q".into()], ..ask("s") };
    let Reply::Leases(leases) = world.run(Command::Allocate(both)).unwrap() else {
        panic!("no leases")
    };
    assert_eq!(leases[0].address, leases[1].address);
    world.view.owners = vec![evidence(Source::Inventory, None, Some(owner("s", "")))];
    world.pass(10);
    for lease in leases {
        let now = world.engine.lease_at(&lease.segment, lease.address).unwrap();
        assert_eq!(now.state, State::Held, "its sandbox is there: {now:?}");
    }
}

#[test]
fn rule_4_who_names_no_run_speaks_for_the_latest_that_has_a_lease_and_for_no_earlier_one() {
    let mut world = World::with("10.0.0.0/24");
    let of_run = |run: &str| Allocate { lifecycle: Arc::from(run), ..ask("web") };
    // The order of the names is none of time.
    let leases = ["2", "1", "3"].map(|run| world.allocate(of_run(run)).unwrap());
    world.view.owners.push(evidence(Source::Controller, None, Some(owner("web", ""))));
    for (earlier, state) in [(0, State::Cooling), (1, State::Cooling), (2, State::Releasing)] {
        assert_eq!(outcome(world.release(leases[earlier].generation)), state, "{earlier}");
    }
    // One that names the run speaks for that one.
    let again = world.allocate(of_run("1")).unwrap();
    world.allocate(of_run("4")).unwrap();
    world.view.owners.push(evidence(Source::Controller, None, Some(owner("web", "1"))));
    assert_eq!(outcome(world.release(again.generation)), State::Releasing);
}

#[test]
fn rule_4_a_released_address_is_kept_by_its_sandbox_unless_that_has_another_under_the_same_key() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.view.owners.push(evidence(Source::Inventory, None, Some(owner("s", ""))));
    assert_eq!(outcome(world.release(lease.generation)), State::Releasing);
    assert_eq!(&*world.at("10.0.0.2").reason, reason::LIVE);
    let other_key = Allocate { key: Arc::from("2"), ..ask("s") };
    world.allocate(other_key).unwrap();
    world.look(|changes| changes.owners = true);
    assert_eq!(world.state("10.0.0.2"), Some(State::Releasing));
    world.lease("s");
    world.look(|changes| changes.owners = true);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
}

#[test]
fn rule_4_what_is_not_known_keeps_a_released_address_until_it_is() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.view.complete_since = Some(world.now.boot - Duration::from_secs(1));
    assert_eq!(outcome(world.release(lease.generation)), State::Releasing);
    assert_eq!(&*world.at("10.0.0.2").reason, reason::UNKNOWN);
    assert_eq!(world.engine.take_wanted().into_iter().collect::<Vec<_>>(), ["a source"]);
    world.pass(600);
    assert_eq!(world.state("10.0.0.2"), Some(State::Releasing), "without limit in time");
    world.view.complete_since = None;
    world.look(|changes| changes.known = true);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
}

#[test]
fn rule_3_what_was_given_back_is_given_again_once_all_is_known_since_then() {
    let mut world = World::with("10.0.0.0/30");
    let lease = world.lease("s");
    let listed = world.now.boot + Duration::from_secs(60);
    world.pass(2);
    world.release(lease.generation);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling), "a stream would have told");
    // The stream breaks: what was listed last is from before the release.
    world.view.complete_since = Some(listed);
    assert_eq!(world.refused(ask("t")), Reason::PoolExhausted);
    world.view.complete_since = Some(world.now.boot);
    assert!(world.lease("t").cooldown_bypassed);
}

#[test]
fn what_is_given_back_and_cut_binds_nobody() {
    let mut world = World::with("10.0.0.0/24");
    let generation = world.lease("s").generation;
    world.view.ports.insert(8);
    let port = Some((Arc::from("veth8"), 8));
    world.run(Command::Bind { generation, mac: Some(station(8).mac), port }).unwrap();
    assert_eq!(world.run(Command::Cut(generation)).unwrap(), Reply::Stale, "somebody has it");
    world.see_wire("10.0.0.2", 8);
    world.release(generation);
    let lease = world.at("10.0.0.2");
    assert_eq!((lease.state, lease.binds_nobody()), (State::Releasing, false));
    for _ in 0..2 {
        let reply = world.run(Command::Cut(generation)).unwrap();
        assert!(matches!(reply, Reply::Released(State::Releasing, _)), "{reply:?}");
        assert!(world.at("10.0.0.2").binds_nobody());
    }
    assert_eq!(world.run(Command::Cut(generation + 1)).unwrap(), Reply::NotFound);
}
