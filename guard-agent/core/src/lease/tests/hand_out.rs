use super::*;

#[test]
fn rule_1_the_same_asker_gets_the_same_lease() {
    let mut world = World::with("10.0.0.0/24");
    let first = world.lease("s");
    world.run(Command::Confirm(first.generation)).unwrap();
    let again = world.lease("s");
    assert_eq!((again.address, again.generation), (first.address, first.generation));
    assert!(world.changes.is_empty());

    let other_key = Allocate { key: Arc::from("eth1"), ..ask("s") };
    assert_ne!(world.allocate(other_key).unwrap().address, first.address);
    let other_run = Allocate { lifecycle: Arc::from("2"), ..ask("s") };
    assert_ne!(world.allocate(other_run).unwrap().address, first.address);
}

#[test]
fn rule_1_the_same_key_with_another_address_or_mac_is_refused_and_names_the_lease() {
    let mut world = World::with("10.0.0.0/24");
    let mac = Some(station(1).mac);
    let first = world.allocate(Allocate { mac, ..ask("s") }).unwrap();
    world.allocate(Allocate { mac, ..ask_for("s", "10.0.0.2") }).unwrap();
    world.allocate(ask("s")).unwrap();
    for other in [ask_for("s", "10.0.0.77"), Allocate { mac: Some(station(2).mac), ..ask("s") }] {
        let refusal = world.allocate(other).unwrap_err();
        assert_eq!(refusal.reason, Reason::OwnerHasLease);
        assert!(refusal.message.contains(&first.generation.to_string()), "{refusal}");
        assert!(refusal.message.contains("10.0.0.2"), "{refusal}");
    }
}

#[test]
fn rule_1_several_pools_are_all_or_nothing() {
    let v6 = PoolSpec { name: Arc::from("six"), ..spec("fd00::/126") };
    let mut world = World::new([spec("10.0.0.0/24"), v6]);
    let both =
        |sandbox: &str| Allocate { pools: vec![Arc::from("p"), Arc::from("six")], ..ask(sandbox) };
    let first = world.run(Command::Allocate(both("a"))).unwrap();
    let Reply::Leases(first) = first else { panic!("{first:?}") };
    assert_eq!(first.len(), 2);
    assert!(first[0].address.is_ipv4() && first[1].address.is_ipv6());
    world.run(Command::Allocate(both("b"))).unwrap();

    let before: Vec<_> = world.engine.rows().map(|(place, _)| place).collect();
    assert_eq!(world.refused(both("c")), Reason::PoolExhausted);
    assert!(world.changes.is_empty());
    assert_eq!(before, world.engine.rows().map(|(place, _)| place).collect::<Vec<_>>());
    // What was taken back comes next.
    assert_eq!(world.address("d"), "10.0.0.4");
}

#[test]
fn rule_2_a_live_candidate_is_quarantined_with_mac_and_port() {
    let mut world = World::with("10.0.0.0/24");
    world.see_wire("10.0.0.2", 7);
    assert_eq!(world.address("s"), "10.0.0.3");
    let squatter = world.at("10.0.0.2");
    assert_eq!((squatter.state, &*squatter.reason), (State::Quarantined, reason::LIVE));
    assert_eq!(squatter.binding.mac, Some(station(7).mac));
    assert_eq!(squatter.binding.interface.as_deref(), Some("veth7"));
    assert_eq!((squatter.generation, &squatter.owner), (0, &None));
}

#[test]
fn rule_2_after_32_live_candidates_the_next_call_goes_on() {
    let mut world = World::with("10.0.0.0/24");
    for n in 2..34 {
        world.see_wire(&format!("10.0.0.{n}"), n);
    }
    assert_eq!(world.refused(ask("s")), Reason::NoConflictFreeAddress);
    assert!((2..34).all(|n| world.state(&format!("10.0.0.{n}")) == Some(State::Quarantined)));
    assert_eq!(world.address("s"), "10.0.0.34");
    assert_eq!(world.address("t"), "10.0.0.35");
}

#[test]
fn rule_2_addresses_that_are_quarantined_already_count_as_tries_once() {
    let mut world = World::with("10.0.0.0/24");
    for n in 2..34 {
        world.claim(&format!("10.0.0.{n}"), n);
    }
    assert_eq!(world.refused(ask("s")), Reason::NoConflictFreeAddress);
    assert_eq!(world.address("s"), "10.0.0.34");
    assert_eq!(world.address("t"), "10.0.0.35");
}

#[test]
fn rule_2_a_full_pool_with_a_squatter_has_no_conflict_free_address() {
    let mut world = World::with("10.0.0.0/29");
    world.see_wire("10.0.0.4", 4);
    for sandbox in ["a", "b", "c", "d"] {
        let generation = world.lease(sandbox).generation;
        world.run(Command::Confirm(generation)).unwrap();
    }
    assert_eq!(world.refused(ask("e")), Reason::NoConflictFreeAddress);
    world.forget("10.0.0.4");
    world.recheck("10.0.0.4");
    world.pass(10);
    assert_eq!(world.address("e"), "10.0.0.4");
    assert_eq!(world.refused(ask("f")), Reason::PoolExhausted);
}

#[test]
fn evidence_that_names_only_the_asker_does_not_stand_against_it() {
    let mut world = World::with("10.0.0.0/24");
    let of = |sandbox| evidence(Source::Inventory, None, Some(owner(sandbox, "")));
    world.see("10.0.0.2", of("s"));
    assert_eq!(world.address("s"), "10.0.0.2");
    world.see("10.0.0.3", of("t"));
    world.see_wire("10.0.0.3", 9);
    assert_eq!(world.address("t"), "10.0.0.4");
}

#[test]
fn each_reason_against_a_requested_address_has_its_error() {
    let exclude = vec!["10.0.0.200/29".parse().unwrap()];
    let mut world = World::new([PoolSpec { exclude, ..spec("10.0.0.0/24") }]);
    world.host(&["10.0.0.9"]);
    world.allocate(ask_for("held", "10.0.0.50")).unwrap();
    let cooling = world.allocate(ask_for("cooled", "10.0.0.51")).unwrap();
    world.release(cooling.generation);
    let releasing = world.allocate(ask_for("busy", "10.0.0.52")).unwrap();
    world.see_wire("10.0.0.52", 52);
    world.release(releasing.generation);
    world.see_wire("10.0.0.53", 53);
    world.claim("10.0.0.54", 54);

    for (address, reason) in [
        ("10.1.0.1", Reason::AddressOutsidePool),
        ("fd00::1", Reason::AddressOutsidePool),
        ("10.0.0.0", Reason::AddressReserved),
        ("10.0.0.1", Reason::AddressReserved),
        ("10.0.0.255", Reason::AddressReserved),
        ("10.0.0.9", Reason::AddressReserved),
        ("10.0.0.201", Reason::AddressExcluded),
        ("10.0.0.50", Reason::AddressHeld),
        ("10.0.0.51", Reason::AddressCooling),
        ("10.0.0.52", Reason::AddressLive),
        ("10.0.0.53", Reason::AddressLive),
        ("10.0.0.53", Reason::AddressQuarantined),
        ("10.0.0.54", Reason::AddressQuarantined),
    ] {
        assert_eq!(world.refused(ask_for("s", address)), reason, "{address}");
    }
    let unknown = Allocate { pools: vec![Arc::from("q")], ..ask("s") };
    assert_eq!(world.refused(unknown), Reason::PoolUnknown);
}

#[test]
fn the_last_owner_may_ask_for_its_cooling_address() {
    let mut world = World::with("10.0.0.0/24");
    let first = world.lease("s");
    world.release(first.generation);
    let again = world.allocate(ask_for("s", "10.0.0.2")).unwrap();
    assert!(again.generation > first.generation && !again.cooldown_bypassed);
}

#[test]
fn generations_grow_over_all_pools_from_a_seed_of_the_time() {
    let q = PoolSpec { name: Arc::from("q"), ..spec("10.1.0.0/24") };
    let mut world = World::new([spec("10.0.0.0/24"), q]);
    let first = world.lease("a").generation;
    assert_eq!(first, (1_700_000_000 << 20) + 1);
    let other = world.allocate(Allocate { pools: vec![Arc::from("q")], ..ask("a") }).unwrap();
    assert_eq!(other.generation, first + 1);
    world.run(Command::RaiseGeneration(first + 1000)).unwrap();
    assert_eq!(world.lease("b").generation, first + 1001);
}

#[test]
fn a_failed_commit_leaves_nothing_behind() {
    let mut world = World::with("10.0.0.0/24");
    world.see_wire("10.0.0.2", 2);
    world.lease("a");
    let changes = world.changes.clone();
    assert_eq!(changes.len(), 2);
    world.engine.undo(&changes);
    assert_eq!(world.engine.check(), Vec::<String>::new());
    assert_eq!(world.engine.rows().count(), 0);
    world.forget("10.0.0.2");
    assert_eq!(world.address("a"), "10.0.0.2");
}

#[test]
fn a05_an_address_that_somebody_probes_for_is_passed_over() {
    let mut world = World::with("10.0.0.0/29");
    let probed = |n: u8| IpAddr::from([10, 0, 0, n]);
    world.view.held_back.insert(probed(2), Duration::from_secs(5));
    world.view.held_back.insert(probed(4), Duration::from_secs(3));
    // No evidence, no quarantine: those that follow are handed out.
    assert_eq!(
        [world.address("a"), world.address("b"), world.address("c")],
        ["10.0.0.3", "10.0.0.5", "10.0.0.6"]
    );
    assert_eq!((world.state("10.0.0.2"), world.state("10.0.0.4")), (None, None));
    // By name neither, and with nothing else left there is a time to come back.
    let named = world.allocate(ask_for("d", "10.0.0.4")).unwrap_err();
    assert_eq!(named.reason, Reason::AddressLive);
    assert_eq!(named.retry_after, Some(Duration::from_secs(3)));
    let refusal = world.allocate(ask("d")).unwrap_err();
    assert_eq!(refusal.reason, Reason::NoConflictFreeAddress);
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
    assert!(world.changes.is_empty());
    // Its time is up.
    world.view.held_back.clear();
    assert_eq!([world.address("d"), world.address("e")], ["10.0.0.2", "10.0.0.4"]);
    // Twin: a pool that is full all the same.
    assert_eq!(world.refused(ask("f")), Reason::PoolExhausted);
}

#[test]
fn a05_probes_are_no_tries() {
    let mut world = World::with("10.0.0.0/24");
    for n in 2..100 {
        world.view.held_back.insert(IpAddr::from([10, 0, 0, n]), Duration::from_secs(6));
    }
    assert_eq!(world.address("s"), "10.0.0.100");
}

#[test]
fn a05_a_released_address_that_somebody_probes_for_is_passed_over() {
    let mut world = World::with("10.0.0.0/30");
    let only = world.lease("s");
    world.release(only.generation);
    world.pass(1000);
    world.view.held_back.insert(only.address, Duration::from_secs(6));
    let refusal = world.allocate(ask("t")).unwrap_err();
    assert_eq!(refusal.reason, Reason::NoConflictFreeAddress);
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(6)));
    world.view.held_back.clear();
    assert_eq!(world.address("t"), only.address.to_string());
}
