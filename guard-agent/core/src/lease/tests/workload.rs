//! A workload with an address of its own that comes again in another sandbox.

use super::*;
use crate::evidence::Unknown;

const ADDRESS: &str = "10.0.0.20";

/// The workload "shop/web-0", which asks for its address.
fn web(sandbox: &str) -> Allocate {
    Allocate {
        workload: Arc::from("shop/web-0"),
        key: Arc::from("net/eth0"),
        ..ask_for(sandbox, ADDRESS)
    }
}

fn active(sandbox: &str) -> Allocate {
    Allocate { confirmed: true, ..web(sandbox) }
}

/// What a change tells of the address, in order.
fn told(world: &World) -> Vec<(State, String)> {
    let lease = |write: &Write| match write.change()? {
        command::Change::Put(lease) | command::Change::Free(lease) => {
            Some((lease.state, lease.owner.as_ref()?.to_string()))
        }
    };
    world.changes.iter().filter_map(lease).collect()
}

#[test]
fn a_workload_has_its_address_again_while_its_lease_is_held_active_or_cooling() {
    let mut world = World::with("10.0.0.0/24");
    let first = world.allocate(web("a")).unwrap();
    assert_eq!(first.labels.get(WORKLOAD).map(String::as_str), Some("shop/web-0"));
    for (before, after, before_state) in [("a", "b", State::Held), ("b", "c", State::Active)] {
        let old = world.at(ADDRESS);
        assert_eq!(old.state, before_state);
        let new = world.allocate(active(after)).unwrap();
        assert!(new.generation > old.generation && new.address == old.address);
        // The old one ends first, and is stale from then on.
        let tale = told(&world);
        let tale: Vec<_> = tale.iter().map(|(state, owner)| (*state, owner.as_str())).collect();
        let end = [(State::Cooling, before), (State::Held, after), (State::Active, after)];
        assert_eq!(tale, end);
        assert_eq!(world.run(Command::Confirm(old.generation)).unwrap(), Reply::Stale);
        assert_eq!(world.release(old.generation), Reply::Stale);
    }
    let lease = world.at(ADDRESS);
    world.release(lease.generation);
    assert_eq!(world.state(ADDRESS), Some(State::Cooling));
    assert!(world.allocate(active("d")).unwrap().generation > lease.generation);
}

#[test]
fn another_workload_or_key_waits() {
    let mut world = World::with("10.0.0.0/24");
    world.allocate(active("a")).unwrap();
    let none = Allocate { workload: Arc::from(""), ..web("b") };
    let other = Allocate { workload: Arc::from("shop/web-1"), ..web("b") };
    let key = Allocate { key: Arc::from("net/eth1"), ..web("b") };
    for reason in [Reason::AddressHeld, Reason::AddressCooling] {
        for ask in [&none, &other, &key] {
            assert_eq!(world.refused(ask.clone()), reason);
            assert!(world.changes.is_empty());
        }
        let generation = world.at(ADDRESS).generation;
        world.release(generation);
    }
    // A lease without a workload is of none.
    let nobody = Allocate { workload: Arc::from(""), ..ask_for("x", "10.0.0.30") };
    world.allocate(nobody.clone()).unwrap();
    assert_eq!(world.refused(Allocate { sandbox: Arc::from("y"), ..nobody }), Reason::AddressHeld);
}

#[test]
fn whatever_speaks_for_the_old_sandbox_keeps_its_lease_and_is_named() {
    let of = |sandbox| evidence(Source::Inventory, None, Some(owner(sandbox, "")));
    let frame = evidence(Source::Wire, Some(&station(7)), None);
    for (what, named) in [("frame", "veth7"), ("port", "veth5"), ("container", "as the test says")]
    {
        for released in [false, true] {
            let mut world = World::with("10.0.0.0/24");
            let old = world.allocate(active("a")).unwrap();
            match what {
                "frame" => world.see(ADDRESS, frame.clone()),
                "port" => {
                    world.view.ports.insert(5);
                    let port = Some((Arc::from("veth5"), 5));
                    let bind = Command::Bind { generation: old.generation, mac: None, port };
                    world.run(bind).unwrap();
                }
                _ => world.view.owners.push(of("a")),
            }
            if released {
                world.release(old.generation);
            }
            let before = world.at(ADDRESS);
            let refusal = world.allocate(active("b")).unwrap_err();
            assert_eq!(refusal.reason, Reason::AddressLive, "{what} {released}");
            for word in ["sandbox a", "shop/web-0", named] {
                assert!(refusal.message.contains(word), "{what}: {word}: {refusal}");
            }
            assert!(world.changes.is_empty());
            assert_eq!(world.at(ADDRESS), before);
        }
    }
}

#[test]
fn evidence_of_the_new_sandbox_does_not_stand_against_it() {
    let mut world = World::with("10.0.0.0/24");
    let subscribed = [(Arc::from("firewall"), Duration::from_secs(60))];
    for state in [State::Active, State::Releasing, State::Cooling] {
        world.engine.set_subscribers(if state == State::Releasing { &subscribed } else { &[] });
        let old = world.allocate(active("a")).unwrap();
        if state != State::Active {
            world.release(old.generation);
            world.engine.set_subscribers(&[]);
            let subscriber = Arc::from("firewall");
            world.see(ADDRESS, evidence(Source::Inventory, None, Some(owner("b", ""))));
            world.run(Command::AckHold { generation: old.generation, subscriber }).unwrap();
        } else {
            world.see(ADDRESS, evidence(Source::Inventory, None, Some(owner("b", ""))));
        }
        assert_eq!(world.state(ADDRESS), Some(state));
        let new = world.allocate(active("b")).unwrap();
        assert!(new.generation > old.generation);
        world.forget(ADDRESS);
        world.release(new.generation);
    }
}

#[test]
fn one_address_of_the_old_sandbox_speaks_for_all() {
    let six = PoolSpec { name: Arc::from("six"), ..spec("fd00::/120") };
    for released in [false, true] {
        let mut world = World::new([spec("10.0.0.0/24"), six.clone()]);
        let both =
            |sandbox| Allocate { pools: vec![Arc::from("p"), Arc::from("six")], ..active(sandbox) };
        let Reply::Leases(old) = world.run(Command::Allocate(both("a"))).unwrap() else { panic!() };
        let speaks = old[1].address.to_string();
        world.see_wire(&speaks, 7);
        if released {
            old.iter().for_each(|lease| drop(world.release(lease.generation)));
        }
        let refusal = world.allocate(active("b")).unwrap_err();
        assert_eq!(refusal.reason, Reason::AddressLive);
        assert!(refusal.message.contains(&speaks), "{refusal}");
    }
}

#[test]
fn rule_9_a_hold_is_honoured_before_the_workload_has_its_address_again() {
    let mut world = World::with("10.0.0.0/24");
    world.engine.set_subscribers(&[(Arc::from("firewall"), Duration::from_secs(60))]);
    let old = world.allocate(active("a")).unwrap();
    for changes in [1, 0] {
        let refusal = world.allocate(active("b")).unwrap_err();
        assert_eq!(refusal.reason, Reason::AddressHeld);
        assert!(refusal.message.contains("firewall") && refusal.retry_after.is_some(), "{refusal}");
        assert_eq!(world.state(ADDRESS), Some(State::Releasing));
        // Asked again, the deadline of the hold is what it was.
        assert_eq!(world.changes.len(), changes);
    }
    let subscriber = Arc::from("firewall");
    world.run(Command::AckHold { generation: old.generation, subscriber }).unwrap();
    assert_eq!(world.allocate(active("b")).unwrap().state, State::Active);
}

#[test]
fn rule_1_what_ended_for_an_allocation_that_is_refused_has_not_ended() {
    let six = PoolSpec { name: Arc::from("six"), ..spec("fd00::/127") };
    let mut world = World::new([spec("10.0.0.0/24"), six]);
    world.allocate(Allocate { pools: vec![Arc::from("six")], ..ask("x") }).unwrap();
    let old = world.allocate(active("a")).unwrap();
    let both = Allocate { pools: vec![Arc::from("p"), Arc::from("six")], ..active("b") };
    assert_eq!(world.refused(both), Reason::PoolExhausted);
    assert!(world.changes.is_empty());
    assert_eq!(world.at(ADDRESS), old);
    assert!(matches!(world.run(Command::Confirm(old.generation)), Ok(Reply::Leases(_))));
}

#[test]
fn what_a_list_leaves_out_is_released_only_where_nothing_speaks_for_it() {
    let six = PoolSpec { name: Arc::from("six"), ..spec("fd00::/120") };
    let mut world = World::new([spec("10.0.0.0/24"), six]);
    let both = |sandbox| Allocate { pools: vec![Arc::from("p"), Arc::from("six")], ..ask(sandbox) };
    let Reply::Leases(leases) = world.run(Command::Allocate(both("a"))).unwrap() else { panic!() };
    let speaks = leases[1].address.to_string();
    world.see_wire(&speaks, 7);
    for lease in &leases {
        // Also the one that is silent: its sandbox is there.
        let refusal = world.run(Command::ReleaseGone(lease.generation)).unwrap_err();
        assert_eq!(refusal.reason, Reason::AddressLive);
        for word in ["sandbox a", &speaks, "veth7"] {
            assert!(refusal.message.contains(word), "{word}: {refusal}");
        }
        assert!(world.changes.is_empty());
    }
    world.forget(&speaks);
    for lease in &leases {
        let gone = Command::ReleaseGone(lease.generation);
        assert!(matches!(world.run(gone.clone()), Ok(Reply::Released(State::Cooling, _))));
        assert_eq!(world.run(gone), Ok(Reply::Stale));
    }
    assert_eq!(world.run(Command::ReleaseGone(42)), Ok(Reply::NotFound));
}

#[test]
fn rule_8_nothing_ends_by_inference_while_not_all_is_known() {
    let unknowns = [
        (Unknown::Boot, Reason::Starting),
        (Unknown::Bridge(Arc::from("br0")), Reason::BridgeAbsent),
        (Unknown::Source("a source"), Reason::InventoryDegraded),
    ];
    for state in [State::Held, State::Active, State::Releasing, State::Cooling] {
        for (unknown, reason) in unknowns.clone() {
            let mut world = World::with("10.0.0.0/24");
            let confirmed = state != State::Held;
            let old = world.allocate(Allocate { confirmed, ..web("a") }).unwrap();
            if state == State::Cooling {
                world.release(old.generation);
            }
            world.view.unknown = Some(unknown);
            if state == State::Releasing {
                world.release(old.generation);
            }
            let before = world.at(ADDRESS);
            assert_eq!(before.state, state);
            let refusal = world.allocate(active("b")).unwrap_err();
            assert_eq!(refusal.reason, reason, "{state:?}: {refusal}");
            assert!(refusal.retry_after.is_some() && world.changes.is_empty(), "{refusal}");
            if before.state.is_owned() {
                let refusal = world.run(Command::ReleaseGone(old.generation)).unwrap_err();
                assert_eq!(refusal.reason, reason, "{state:?}: {refusal}");
            }
            assert_eq!(world.at(ADDRESS), before);
            world.view.unknown = None;
            world.allocate(active("b")).unwrap();
        }
    }
}

#[test]
fn a_source_that_is_asked_now_and_then_has_to_answer_after_the_first_who_asked() {
    let mut world = World::with("10.0.0.0/24");
    let old = world.allocate(active("a")).unwrap();
    // It has answered since the hand-out, perhaps before the container was made.
    world.now.boot += Duration::from_secs(10);
    let first = world.now.boot;
    world.view.complete_since = Some(first - Duration::from_secs(1));
    let asks = [Command::Allocate(active("b")), Command::ReleaseGone(old.generation)];
    for ask in &asks {
        world.now.boot += Duration::from_secs(1);
        assert_eq!(world.run(ask.clone()).unwrap_err().reason, Reason::InventoryDegraded);
    }
    // It is asked to answer, once.
    assert_eq!(world.engine.take_wanted(), ["a source"].into());
    world.view.complete_since = Some(first + Duration::from_secs(1));
    // Whoever asks much later asks anew, and then it counts from that ask on, whoever asks again.
    world.now.boot = first + Duration::from_secs(120);
    assert_eq!(world.run(asks[0].clone()).unwrap_err().reason, Reason::InventoryDegraded);
    world.view.complete_since = Some(world.now.boot);
    world.now.boot += Duration::from_secs(30);
    let gone = world.run(asks[1].clone());
    assert!(matches!(gone, Ok(Reply::Released(State::Cooling, _))), "{gone:?}");
}
