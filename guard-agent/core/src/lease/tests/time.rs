use super::*;

#[test]
fn unconfirmed_without_evidence_cools_down() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.pass(9);
    assert_eq!(world.state("10.0.0.2"), Some(State::Held));
    world.pass(1);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    assert_eq!(world.run(Command::Confirm(lease.generation)).unwrap(), Reply::Stale);
}

#[test]
fn unconfirmed_with_evidence_of_another_is_quarantined_and_a_later_confirm_is_stale() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.allocate(Allocate { mac: Some(station(1).mac), ..ask("s") }).unwrap();
    world.see_wire("10.0.0.2", 9);
    world.claim("10.0.0.2", 9);
    world.pass(10);
    let now = world.at("10.0.0.2");
    assert_eq!((now.state, &*now.reason), (State::Quarantined, reason::UNCONFIRMED_LIVE));
    assert_eq!(now.binding.mac, Some(station(9).mac));
    assert_eq!(world.run(Command::Confirm(lease.generation)).unwrap(), Reply::Stale);
    assert_ne!(world.lease("s").address, lease.address);
}

#[test]
fn unconfirmed_with_the_owners_evidence_stays() {
    let mut world = World::with("10.0.0.0/24");
    world.lease("s");
    world.see("10.0.0.2", evidence(Source::Inventory, None, Some(owner("s", ""))));
    world.pass(10);
    assert_eq!(world.state("10.0.0.2"), Some(State::Held));
    assert!(world.engine.next_deadline().is_some_and(|due| due > world.now.boot));
    // A bound port is the owner's, also of a silent sandbox.
    let port = Allocate { interface: Some(Arc::from("veth4")), ..ask("t") };
    world.view.ports.insert(4);
    world.allocate(port).unwrap();
    world.pass(10);
    assert_eq!(world.state("10.0.0.3"), Some(State::Held));
}

#[test]
fn an_active_lease_has_no_deadline() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.run(Command::Confirm(lease.generation)).unwrap();
    assert_eq!(world.engine.next_deadline(), None);
    world.pass(60 * 24 * 365);
    assert_eq!(world.state("10.0.0.2"), Some(State::Active));
}

#[test]
fn rule_10_steps_of_the_wall_clock_touch_nothing() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.release(lease.generation);
    world.now.wall = Timestamp::from_second(2_000_000_000).unwrap();
    world.pass(1);
    world.now.wall = Timestamp::from_second(100).unwrap();
    world.pass(1);
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling));
    world.pass(28);
    assert_eq!(world.state("10.0.0.2"), None);
}

#[test]
fn many_deadlines_take_effect_in_several_steps() {
    let mut world = World::with("10.0.0.0/20");
    let ask_many = |n: usize| Command::Allocate(ask(&format!("s{n}")));
    for n in 0..2500 {
        let _ = world.engine.apply(ask_many(n), &world.view, world.now);
    }
    world.now.boot += Duration::from_secs(600);
    let mut steps = 0;
    while world.engine.next_deadline().is_some_and(|due| due <= world.now.boot) {
        world.run(Command::Tick).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 3);
    assert_eq!(world.engine.pools()[0].count(State::Cooling), 2500);
}
