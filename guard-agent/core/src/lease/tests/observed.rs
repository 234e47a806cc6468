use super::*;

fn inventory(sandbox: &str) -> Evidence {
    evidence(Source::Inventory, None, Some(owner(sandbox, "1")))
}

#[test]
fn rule_7_a_claim_on_a_free_address_quarantines_it_at_once() {
    let mut world = World::with("10.0.0.0/24");
    world.see_wire("10.0.0.9", 9);
    world.claim("10.0.0.9", 9);
    let lease = world.at("10.0.0.9");
    assert_eq!((lease.state, lease.until), (State::Quarantined, None));
    assert_eq!(lease.binding.interface.as_deref(), Some("veth9"));
    // Not in a pool, or never handed out: nothing to act on.
    for address in ["10.0.1.9", "10.0.0.1", "10.0.0.255"] {
        world.see_wire(address, 9);
        world.claim(address, 9);
        assert!(world.changes.is_empty(), "{address}");
    }
}

#[test]
fn rule_7_inventory_evidence_adopts_and_a_stranger_on_the_wire_does_not_prevent_it_alone() {
    let mut world = World::with("10.0.0.0/24");
    world.see("10.0.0.9", inventory("s"));
    world.recheck("10.0.0.9");
    let lease = world.at("10.0.0.9");
    assert_eq!((lease.state, &*lease.reason), (State::Active, reason::ADOPTED));
    assert_eq!(lease.owner, Some(owner("s", "1")));
    assert!(lease.generation > 0);

    // From quarantined, with the frames of one port.
    world.see_wire("10.0.0.10", 3);
    world.claim("10.0.0.10", 3);
    world.see("10.0.0.10", inventory("t"));
    world.recheck("10.0.0.10");
    assert_eq!(world.state("10.0.0.10"), Some(State::Active));
    assert_eq!(world.at("10.0.0.10").binding.ifindex, Some(3));

    // Frames from two ports: somebody is not the owner.
    world.see_wire("10.0.0.11", 4);
    world.see_wire("10.0.0.11", 5);
    world.see("10.0.0.11", inventory("u"));
    world.recheck("10.0.0.11");
    assert_eq!(world.state("10.0.0.11"), Some(State::Quarantined));
}

#[test]
fn two_containers_with_one_address_are_both_named() {
    let mut world = World::with("10.0.0.0/24");
    world.see("10.0.0.9", inventory("s"));
    world.see("10.0.0.9", inventory("t"));
    world.recheck("10.0.0.9");
    let lease = world.at("10.0.0.9");
    assert_eq!((lease.state, &*lease.reason), (State::Quarantined, reason::DISPUTED));
    assert_eq!(lease.labels["owners"], "s/1, t/1");
    assert_eq!(named(&world), [owner("s", "1"), owner("t", "1")]);
    // One of them goes: it is the other's.
    world.forget("10.0.0.9");
    world.see("10.0.0.9", inventory("t"));
    world.recheck("10.0.0.9");
    assert_eq!(named(&world), [owner("t", "1")]);
}

/// Who the last command said is named at an address, its holder first.
fn named(world: &World) -> Vec<Owner> {
    let [.., Notice::Named { holder, others, .. }] = &world.notices[..] else {
        panic!("{:?}", world.notices)
    };
    holder.iter().filter_map(|lease| lease.owner.clone()).chain(others.clone()).collect()
}

#[test]
fn two_containers_with_a_leased_address_are_both_named() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    let address = lease.address.to_string();
    world.see(&address, evidence(Source::Inventory, None, Some(owner("s", ""))));
    world.recheck(&address);
    assert_eq!(named(&world), [owner("s", "")], "its own label is nobody else's");
    // As CNI knows it: by the container's id, whatever its sandbox is called.
    let by_id = Evidence { id: Some("s".into()), ..inventory("pod") };
    world.see(&address, by_id);
    world.recheck(&address);
    assert_eq!(named(&world), [owner("s", "")]);
    world.see(&address, inventory("t"));
    world.recheck(&address);
    assert_eq!(named(&world), [owner("s", ""), owner("t", "1")]);
    assert_eq!(world.at(&address).owner, Some(owner("s", "")), "it is the holder's all the same");
}

#[test]
fn probation_counts_from_the_end_of_the_evidence() {
    let mut world = World::with("10.0.0.0/24");
    world.see_wire("10.0.0.9", 9);
    world.claim("10.0.0.9", 9);
    world.pass(60);
    assert_eq!(world.state("10.0.0.9"), Some(State::Quarantined));
    world.forget("10.0.0.9");
    world.recheck("10.0.0.9");
    world.pass(9);
    // Back in time, so it starts anew.
    world.see_wire("10.0.0.9", 9);
    world.recheck("10.0.0.9");
    world.forget("10.0.0.9");
    world.recheck("10.0.0.9");
    world.pass(9);
    assert_eq!(world.state("10.0.0.9"), Some(State::Quarantined));
    world.pass(1);
    assert_eq!(world.state("10.0.0.9"), None);
}

#[test]
fn probation_that_ends_with_evidence_goes_on() {
    let mut world = World::with("10.0.0.0/24");
    world.claim("10.0.0.9", 9);
    world.forget("10.0.0.9");
    world.recheck("10.0.0.9");
    assert!(world.at("10.0.0.9").until.is_some(), "the claim is gone");
    // The next claim has not been told yet.
    world.see_wire("10.0.0.9", 9);
    world.pass(10);
    assert_eq!(world.state("10.0.0.9"), Some(State::Quarantined));
    assert_eq!(world.at("10.0.0.9").until, None);
    assert_eq!(world.engine.next_deadline(), None);
}

#[test]
fn evidence_on_a_cooling_address_quarantines_it() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.release(lease.generation);
    world.see_wire("10.0.0.2", 5);
    world.claim("10.0.0.2", 5);
    let late = world.at("10.0.0.2");
    assert_eq!((late.state, late.owner.clone()), (State::Quarantined, Some(owner("s", ""))));
    assert_eq!(world.run(Command::Release(lease.generation)).unwrap(), Reply::Stale);
}

#[test]
fn the_pass_finds_what_no_event_told() {
    let mut world = World::with("10.0.0.0/24");
    let held = world.lease("held");
    let gone = world.lease("gone");
    world.see_wire("10.0.0.3", 3);
    world.release(gone.generation);
    world.forget("10.0.0.3");
    world.see_wire("10.0.0.2", 2);
    world.see_wire("10.0.0.77", 77);
    world.run(Command::RecheckAll).unwrap();
    assert_eq!(world.at("10.0.0.2").binding.ifindex, Some(2));
    assert_eq!(world.state("10.0.0.2"), Some(State::Active));
    assert_eq!(world.at("10.0.0.2").generation, held.generation);
    assert_eq!(world.state("10.0.0.3"), Some(State::Cooling));
    assert_eq!(world.state("10.0.0.77"), Some(State::Quarantined));
    world.run(Command::RecheckAll).unwrap();
    assert!(world.changes.is_empty());
}

#[test]
fn rule_4_what_was_given_back_is_looked_at_when_a_source_says_something_else() {
    let mut world = World::with("10.0.0.0/24");
    let (gone, left) = (world.lease("gone"), world.lease("left"));
    for address in ["10.0.0.2", "10.0.0.3"] {
        world.see_wire(address, 3);
    }
    world.release(gone.generation);
    world.release(left.generation);
    world.forget("10.0.0.2");
    world.see_wire("10.0.0.77", 77);
    world.look(|changes| changes.owners = true);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    assert_eq!(world.state("10.0.0.3"), Some(State::Releasing), "it is live still");
    assert_eq!(world.state("10.0.0.77"), None, "nobody has looked there");
}

#[test]
fn rule_4_what_waits_for_the_host_comes_free_when_the_host_leaves_it() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.see_wire("10.0.0.2", 3);
    world.host(&["10.0.0.2"]);
    world.release(lease.generation);
    assert_eq!(world.state("10.0.0.2"), Some(State::Releasing));
    world.forget("10.0.0.2");
    world.host(&[]);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
}

#[test]
fn an_operators_quarantine_ends_by_its_removal_only() {
    let mut world = World::with("10.0.0.0/24");
    let set = Command::Quarantine { segment: segment(), address: ip("10.0.0.2") };
    world.run(set).unwrap();
    world.run(Command::RecheckAll).unwrap();
    world.pass(600);
    assert_eq!(world.state("10.0.0.2"), Some(State::Quarantined));
    assert_eq!(world.address("s"), "10.0.0.3");
    let held = Command::Quarantine { segment: segment(), address: ip("10.0.0.3") };
    assert_eq!(world.run(held).unwrap_err().reason, Reason::AddressHeld);
    let end = Command::Unquarantine { segment: segment(), address: ip("10.0.0.2") };
    assert_eq!(world.run(end.clone()).unwrap(), Reply::Done);
    assert_eq!(world.state("10.0.0.2"), None);
    assert_eq!(world.run(end).unwrap(), Reply::NotFound);
}

#[test]
fn host_addresses_are_never_handed_out_and_a_lease_on_one_is_reported() {
    let mut world = World::with("10.0.0.0/29");
    world.host(&["10.0.0.2", "192.0.2.1"]);
    assert_eq!((world.engine.pools()[0].capacity, world.engine.pools()[0].free), (4, 4));
    let lease = world.lease("s");
    assert_eq!(lease.address, ip("10.0.0.3"));
    world.host(&["10.0.0.2", "10.0.0.3"]);
    assert_eq!(world.notices, [Notice::HostAddress(Arc::clone(&lease))]);
    world.release(lease.generation);
    world.pass(30);
    let rest: Vec<_> = ["a", "b", "c"].map(|s| world.address(s)).into();
    assert_eq!(rest, ["10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    assert_eq!(world.refused(ask("d")), Reason::PoolExhausted);
    world.host(&[]);
    assert_eq!(world.address("d"), "10.0.0.2");
}

#[test]
fn the_same_prefix_on_another_segment_is_another_pool() {
    let other =
        PoolSpec { name: Arc::from("q"), segment: Segment::new("br1", 0), ..spec("10.0.0.0/24") };
    let mut world = World::new([spec("10.0.0.0/24"), other]);
    world.see_wire("10.0.0.2", 2);
    let q = Allocate { pools: vec![Arc::from("q")], ..ask("s") };
    assert_eq!(world.allocate(q).unwrap().address, ip("10.0.0.2"));
    assert_eq!(world.address("s"), "10.0.0.3");
}

#[test]
fn what_another_allocator_gave_is_taken_over_alive() {
    let mut world = World::with("10.0.0.0/24");
    let adopt = |address: &str, sandbox: &str| Command::Adopt {
        pool: Arc::from("p"),
        address: ip(address),
        owner: owner(sandbox, ""),
        key: Arc::from("eth0"),
    };
    world.see_wire("10.0.0.9", 9);
    for changes in [1, 0] {
        world.run(adopt("10.0.0.9", "c1")).unwrap();
        assert_eq!(world.changes.len(), changes);
    }
    let lease = world.at("10.0.0.9");
    assert_eq!((lease.state, lease.binding.ifindex), (State::Active, Some(9)));
    assert_eq!(world.run(adopt("10.0.0.9", "c2")).unwrap_err().reason, Reason::AddressHeld);
    assert_eq!(world.run(adopt("10.0.0.1", "c2")).unwrap_err().reason, Reason::AddressReserved);
    world.see_wire("10.0.0.10", 10);
    world.claim("10.0.0.10", 10);
    world.run(adopt("10.0.0.10", "c3")).unwrap();
    assert_eq!(world.state("10.0.0.10"), Some(State::Active));
}

#[test]
fn what_its_sandbox_gave_back_is_not_adopted_for_it_however_its_container_names_it() {
    for lifecycle in ["run-1", ""] {
        let mut world = World::with("10.0.0.0/24");
        let run = Allocate { lifecycle: "run-1".into(), ..ask("s") };
        let lease = world.allocate(run).unwrap();
        world.release(lease.generation);
        // A frame first, and then the container whose it is.
        world.claim("10.0.0.2", 5);
        assert_eq!(&*world.at("10.0.0.2").reason, reason::LIVE);
        let container = evidence(Source::Inventory, None, Some(owner("s", lifecycle)));
        world.see("10.0.0.2", container);
        world.recheck("10.0.0.2");
        let now = world.at("10.0.0.2");
        assert_eq!((now.state, &*now.reason), (State::Quarantined, reason::RELEASED_RUNNING));
    }
}

#[test]
fn what_cools_and_is_named_before_all_is_known_still_ends() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.release(lease.generation);
    world.see("10.0.0.2", evidence(Source::Inventory, None, Some(owner("other", ""))));
    world.view.unknown = Some(Unknown::Boot);
    world.pass(30);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    assert!(world.at("10.0.0.2").until.is_some(), "it ends when more is known");
    world.view.unknown = None;
    world.view.evidence.clear();
    world.look(|changes| changes.known = true);
    assert_eq!(world.state("10.0.0.2"), None);
}
