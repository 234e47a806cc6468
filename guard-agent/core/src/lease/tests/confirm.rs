use super::*;

#[test]
fn the_first_claim_is_learned_and_a_second_claimant_changes_nothing() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.see_wire("10.0.0.2", 3);
    world.claim("10.0.0.2", 3);
    let learned = world.at("10.0.0.2");
    assert_eq!(learned.state, State::Active);
    assert_eq!(
        learned.binding,
        Binding {
            declared: false,
            mac: Some(station(3).mac),
            interface: Some(Arc::from("veth3")),
            ifindex: Some(3),
            device: world.view.device(3),
            port_ended: false,
        }
    );
    world.see_wire("10.0.0.2", 4);
    world.claim("10.0.0.2", 4);
    assert!(world.changes.is_empty());
    assert_eq!(world.at("10.0.0.2").generation, lease.generation);
    // The port is gone: whoever claims next is learned.
    world.view.ports.remove(&3);
    world.claim("10.0.0.2", 4);
    assert_eq!(world.at("10.0.0.2").binding.ifindex, Some(4));
}

#[test]
fn rule_12_a_port_confirms_the_leases_of_one_owner() {
    let mut world = World::with("10.0.0.0/24");
    let second = Allocate { key: Arc::from("eth1"), ..ask("s") };
    world.lease("s");
    world.allocate(second).unwrap();
    world.lease("t");
    for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        world.claim(address, 3);
    }
    let states = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|address| world.state(address).unwrap());
    assert_eq!(states, [State::Active, State::Active, State::Held]);
    assert_eq!(world.at("10.0.0.4").binding, Binding::default());
    // Its own port does.
    world.claim("10.0.0.4", 4);
    let confirmed = world.at("10.0.0.4");
    assert_eq!((confirmed.state, confirmed.binding.ifindex), (State::Active, Some(4)));
}

#[test]
fn a_declared_binding_never_moves_by_a_claim() {
    let mut world = World::with("10.0.0.0/24");
    let declared = Allocate { mac: Some(station(3).mac), ..ask("s") };
    world.allocate(declared).unwrap();
    world.see_wire("10.0.0.2", 4);
    world.claim("10.0.0.2", 4);
    assert_eq!(world.state("10.0.0.2"), Some(State::Held));
    world.see_wire("10.0.0.2", 3);
    world.claim("10.0.0.2", 3);
    let bound = world.at("10.0.0.2");
    assert_eq!((bound.state, bound.binding.ifindex), (State::Active, Some(3)));
    assert_eq!((bound.binding.declared, &bound.binding.interface), (true, &None));
}

#[test]
fn a_declared_port_is_found_when_it_appears_and_is_evidence() {
    let mut world = World::with("10.0.0.0/24");
    let declared = Allocate { interface: Some(Arc::from("veth8")), ..ask("s") };
    world.allocate(declared).unwrap();
    assert_eq!(world.at("10.0.0.2").binding.ifindex, None);
    world.port_added(9);
    assert_eq!(world.at("10.0.0.2").binding.ifindex, None);
    world.port_added(8);
    let lease = world.at("10.0.0.2");
    assert_eq!(lease.binding.ifindex, Some(8));
    let found = Engine::evidence_of(&lease, &world.view);
    assert_eq!(found[0].source, Source::Kernel);
    assert_eq!(found[0].owner, lease.owner);
    // A port that is there already is found at hand-out.
    let next = Allocate { interface: Some(Arc::from("veth8")), key: Arc::from("2"), ..ask("s") };
    assert_eq!(world.allocate(next).unwrap().binding.ifindex, Some(8));
    // One that had the name before is another.
    world.view.names.insert(8, "renamed".to_owned());
    let next = Allocate { interface: Some(Arc::from("veth8")), key: Arc::from("3"), ..ask("s") };
    assert_eq!(world.allocate(next).unwrap().binding.ifindex, None);
}

#[test]
fn a_port_that_ends_takes_its_name_along_and_leaves_the_declared_mac() {
    let mut world = World::with("10.0.0.0/24");
    let generation = world.lease("s").generation;
    world.view.ports.insert(8);
    let port = Some((Arc::from("veth8"), 8));
    world.run(Command::Bind { generation, mac: Some(station(8).mac), port }).unwrap();
    // It has another name by now: it is the same link.
    world.view.names.insert(8, "renamed".to_owned());
    world.port_added(8);
    assert_eq!(world.at("10.0.0.2").binding.ifindex, Some(8));
    world.link_ended(8);
    let binding = world.at("10.0.0.2").binding.clone();
    assert_eq!((binding.declared, binding.mac), (true, Some(station(8).mac)));
    assert_eq!((binding.interface, binding.ifindex, binding.port_ended), (None, None, true));
    // The next link has its number and its name, and is another one.
    world.view.names.clear();
    world.port_added(8);
    assert_eq!(world.at("10.0.0.2").binding.ifindex, None);
    // The MAC is right on the first port where it claims, and then on no other.
    world.claim("10.0.0.2", 9);
    assert_eq!(world.at("10.0.0.2").binding.ifindex, None, "another MAC");
    let on_9 = Station { mac: station(8).mac, ..station(9) };
    world.see("10.0.0.2", evidence(Source::Wire, Some(&on_9), None));
    world.recheck("10.0.0.2");
    let binding = world.at("10.0.0.2").binding.clone();
    assert_eq!((binding.ifindex, binding.interface), (Some(9), None), "learned, and not declared");
    assert!(binding.declared && !binding.port_ended);
}

#[test]
fn a_port_speaks_for_the_owner_who_was_bound_to_it_last() {
    let mut world = World::with("10.0.0.0/24");
    world.view.ports.insert(8);
    let bind = |generation| {
        let port = Some((Arc::from("veth8"), 8));
        Command::Bind { generation, mac: None, port }
    };
    let (first, key) = (world.lease("first"), Arc::from("2"));
    let same = world.allocate(Allocate { key, ..ask("first") }).unwrap();
    let other = world.lease("other");
    world.run(bind(first.generation)).unwrap();
    world.run(bind(same.generation)).unwrap();
    assert_eq!(world.at("10.0.0.2").binding.ifindex, Some(8), "all of one owner count as one");
    world.release(first.generation);
    assert_eq!(world.state("10.0.0.2"), Some(State::Releasing));
    world.run(bind(other.generation)).unwrap();
    assert_eq!(world.state("10.0.0.2"), Some(State::Cooling), "the port speaks for it no more");
    let binding = world.at("10.0.0.3").binding.clone();
    assert_eq!((binding.ifindex, binding.port_ended), (None, true));
    assert_eq!(world.at("10.0.0.4").binding.ifindex, Some(8));
}

#[test]
fn a_name_is_taken_once_by_the_first_link_that_has_it() {
    let mut world = World::with("10.0.0.0/24");
    world.allocate(Allocate { interface: Some(Arc::from("veth8")), ..ask("s") }).unwrap();
    world.port_added(8);
    world.link_ended(8);
    world.view.names.insert(9, "veth8".to_owned());
    world.port_added(9);
    assert_eq!(world.at("10.0.0.2").binding.ifindex, None);
}

#[test]
fn rule_1_what_was_asked_before_is_never_another_also_after_its_port_came_anew() {
    let mut world = World::with("10.0.0.0/24");
    world.view.ports.insert(8);
    let (mac, interface) = (Some(station(8).mac), Some(Arc::from("veth8")));
    let asked = || Allocate { mac, interface: interface.clone(), ..ask("s") };
    let lease = world.allocate(asked()).unwrap();
    world.link_ended(8);
    world.view.names.insert(9, "veth8".to_owned());
    world.port_added(9);
    let again = world.allocate(asked()).unwrap();
    assert_eq!((again.generation, again.binding.ifindex), (lease.generation, Some(9)));
    let other = Allocate { mac: Some(station(7).mac), ..ask("s") };
    assert_eq!(world.refused(other), Reason::OwnerHasLease);
    // A MAC where there is none yet is taken.
    let lease = world.lease("t");
    let with_mac = Allocate { mac: Some(station(3).mac), ..ask("t") };
    let again = world.allocate(with_mac).unwrap();
    assert_eq!((again.generation, again.binding.mac), (lease.generation, Some(station(3).mac)));
}

#[test]
fn bind_declares_and_none_leaves_what_was_declared() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.see_wire("10.0.0.2", 3);
    world.claim("10.0.0.2", 3);
    let bind = |mac, port| Command::Bind { generation: lease.generation, mac, port };
    world.run(bind(None, Some((Arc::from("veth4"), 4)))).unwrap();
    let bound = world.at("10.0.0.2").binding.clone();
    assert_eq!((bound.declared, bound.mac, bound.ifindex), (true, None, Some(4)));
    world.run(bind(Some(station(4).mac), None)).unwrap();
    let bound = world.at("10.0.0.2").binding.clone();
    assert_eq!((bound.mac, bound.ifindex), (Some(station(4).mac), Some(4)));
    world.run(bind(Some(station(4).mac), None)).unwrap();
    assert!(world.changes.is_empty());
}

#[test]
fn confirm_is_idempotent() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    for changes in [1, 0] {
        world.run(Command::Confirm(lease.generation)).unwrap();
        assert_eq!(world.changes.len(), changes);
        assert_eq!(world.state("10.0.0.2"), Some(State::Active));
    }
}

#[test]
fn an_allocation_that_is_confirmed_is_active_at_once_and_all_or_nothing() {
    let mut world = World::with("10.0.0.0/24");
    let confirmed = || Allocate { confirmed: true, ..ask("s") };
    let lease = world.allocate(confirmed()).unwrap();
    assert_eq!((lease.state, lease.until), (State::Active, None));
    assert_eq!(world.allocate(confirmed()).unwrap().generation, lease.generation);
    // One that was held until now is confirmed by asking so.
    let held = world.allocate(ask("t")).unwrap();
    assert_eq!(held.state, State::Held);
    let again = world.allocate(Allocate { confirmed: true, ..ask("t") }).unwrap();
    assert_eq!((again.state, again.generation), (State::Active, held.generation));
}
