use super::*;

/// What a store would return.
fn rows(world: &World) -> Vec<(Place, Row)> {
    world.engine.rows().map(|(place, row)| (place, row.clone())).collect()
}

pub(super) fn restart(
    world: &mut World,
    specs: impl IntoIterator<Item = PoolSpec>,
    carry: Option<Carry>,
) {
    let contents = world.engine.contents();
    let (high_water, opened) = (world.engine.high_water(), world.now.boot);
    let restored = Restored { contents, high_water, carry, opened };
    let (engine, changes, notices) = Engine::restore(pools(specs), restored);
    assert_eq!(engine.check(), Vec::<String>::new());
    (world.engine, world.changes, world.notices) = (engine, changes, notices);
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = World::with("10.0.0.0/24");
    let used: Vec<_> = ["a", "b", "c"].map(|s| world.lease(s)).into();
    for n in [2, 0] {
        world.release(used[n].generation);
        world.pass(1);
    }
    world.pass(30);
    world.run(Command::Confirm(used[1].generation)).unwrap();
    let before = rows(&world);
    restart(&mut world, [spec("10.0.0.0/24")], None);
    assert!(world.changes.is_empty());
    assert_eq!(rows(&world), before);
    assert_eq!(world.address("d"), "10.0.0.5");
    assert!(world.at("10.0.0.5").generation > used[2].generation);
}

#[test]
fn release_order_survives_restarts() {
    let mut world = World::with("10.0.0.0/29");
    let used: Vec<_> = ["a", "b", "c", "d", "e"].map(|s| world.lease(s)).into();
    for n in [3, 0, 4, 1, 2] {
        world.release(used[n].generation);
    }
    world.pass(30);
    restart(&mut world, [spec("10.0.0.0/29")], None);
    for n in [3, 0, 4, 1, 2] {
        assert_eq!(world.lease(&format!("x{n}")).address, used[n].address);
        restart(&mut world, [spec("10.0.0.0/29")], None);
    }
}

#[test]
fn rule_10_after_a_reboot_the_time_that_was_left_is_left_again() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    world.view.ports.insert(7);
    let port = Some((Arc::from("veth7"), 7));
    world.run(Command::Bind { generation: lease.generation, mac: None, port }).unwrap();
    let cooling = world.lease("t");
    world.release(cooling.generation);
    world.pass(10);
    let carry = Carry { then: world.now.boot, now: Duration::from_secs(5) };
    world.now.boot = carry.now;
    restart(&mut world, [spec("10.0.0.0/24")], Some(carry));
    assert_eq!(world.changes.len(), 2);
    let binding = world.at("10.0.0.2").binding.clone();
    assert_eq!((binding.ifindex, binding.interface), (None, None), "no link outlives a boot");
    assert!(binding.port_ended);
    world.pass(19);
    assert_eq!(world.state("10.0.0.3"), Some(State::Cooling));
    world.pass(1);
    assert_eq!(world.state("10.0.0.3"), None);
}

#[test]
fn a_pool_that_shrinks_keeps_its_leases_and_drains() {
    let mut world = World::with("10.0.0.0/24");
    let low = world.lease("low");
    let high = world.allocate(ask_for("high", "10.0.0.200")).unwrap();
    restart(&mut world, [spec("10.0.0.0/25")], None);
    assert_eq!(world.notices, [Notice::Draining(Arc::clone(&high))]);
    assert!(world.changes.is_empty());
    let pools = world.engine.pools();
    assert_eq!(
        pools.iter().map(|p| (p.draining, p.capacity)).collect::<Vec<_>>(),
        [(false, 125), (true, 0)]
    );
    assert_eq!(world.lease("high").generation, high.generation, "rule 1 still holds");
    assert_eq!(world.lease("low").generation, low.generation);
    assert_eq!(world.refused(ask_for("x", "10.0.0.201")), Reason::AddressOutsidePool);
    world.release(high.generation);
    world.pass(30);
    assert_eq!(world.state("10.0.0.200"), None);
    assert_eq!(world.engine.pools().len(), 1);
}

#[test]
fn a_pool_that_is_renamed_keeps_its_leases_under_the_new_name() {
    let mut world = World::with("10.0.0.0/24");
    let lease = world.lease("s");
    restart(&mut world, [PoolSpec { name: Arc::from("q"), ..spec("10.0.0.0/16") }], None);
    assert_eq!(world.changes.len(), 1);
    let q = Allocate { pools: vec![Arc::from("q")], ..ask("s") };
    assert_eq!(world.allocate(q).unwrap().generation, lease.generation);
}

#[test]
fn a_lease_on_what_is_reserved_now_is_not_handed_out_again() {
    let mut world = World::with("10.0.0.0/29");
    let lease = world.lease("s");
    let moved = || PoolSpec { gateway: Gateway::Is(ip("10.0.0.2")), ..spec("10.0.0.0/29") };
    restart(&mut world, [moved()], None);
    assert_eq!(world.state("10.0.0.2"), Some(State::Held));
    world.release(lease.generation);
    world.pass(30);
    let rest: Vec<_> = ["a", "b", "c", "d"].map(|s| world.address(s)).into();
    assert_eq!(rest, ["10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
}

#[test]
fn a_new_ipv6_lease_is_above_what_was_used_before_the_restart() {
    let mut world = World::with("fd00::/64");
    let first = world.lease("a");
    world.lease("b");
    world.release(first.generation);
    world.pass(30);
    restart(&mut world, [spec("fd00::/64")], None);
    assert_eq!(world.address("c"), "fd00::4");
}
