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
            ..Binding::default()
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
    let added = |bridge: &str| Command::PortAdded {
        bridge: Arc::from(bridge),
        interface: Arc::from("veth8"),
        ifindex: 8,
    };
    world.run(added("br9")).unwrap();
    assert_eq!(world.at("10.0.0.2").binding.ifindex, None);
    world.view.ports.insert(8);
    world.run(added("br0")).unwrap();
    let lease = world.at("10.0.0.2");
    assert_eq!(lease.binding.ifindex, Some(8));
    let found = Engine::evidence_of(&lease, &world.view);
    assert_eq!(found[0].source, Source::Kernel);
    assert_eq!(found[0].owner, lease.owner);
    // A port that is there already is found at hand-out.
    let next = Allocate { interface: Some(Arc::from("veth8")), key: Arc::from("2"), ..ask("s") };
    assert_eq!(world.allocate(next).unwrap().binding.ifindex, Some(8));
}

#[test]
fn a31_a_port_of_the_same_name_takes_the_place_of_one_that_ended_without_its_mac() {
    let mut world = World::with("10.0.0.0/24");
    let generation = world.lease("s").generation;
    world.view.ports.insert(8);
    let port = Some((Arc::from("veth8"), 8));
    world.run(Command::Bind { generation, mac: Some(station(8).mac), port }).unwrap();
    let added = |ifindex| Command::PortAdded {
        bridge: Arc::from("br0"),
        interface: Arc::from("veth8"),
        ifindex,
    };
    // A namesake while the bound port exists under another name by now: the binding stays.
    world.run(added(9)).unwrap();
    assert_eq!(world.at("10.0.0.2").binding.ifindex, Some(8));
    world.view.ports.remove(&8);
    world.run(added(9)).unwrap();
    let binding = world.at("10.0.0.2").binding.clone();
    assert_eq!((binding.declared, binding.ifindex, binding.mac), (true, Some(9), None));
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
