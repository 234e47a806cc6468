use super::{
    super::command::{ReserveSubnet, WhichSubnet},
    restored::restart,
    *,
};

fn reserve(world: &mut World, ask: ReserveSubnet) -> Result<Arc<Subnet>, Refusal> {
    match world.run(Command::ReserveSubnet(ask))? {
        Reply::Subnet(subnet) => Ok(subnet),
        other => panic!("{other:?}"),
    }
}

fn ask_length(id: &str, length: u8) -> ReserveSubnet {
    ReserveSubnet { pool: Arc::from("p"), id: Arc::from(id), length, prefix: None }
}

fn ask_prefix(id: &str, prefix: &str) -> ReserveSubnet {
    let prefix: ipnet::IpNet = prefix.parse().unwrap();
    ReserveSubnet { prefix: Some(prefix), ..ask_length(id, prefix.prefix_len()) }
}

fn prefix(world: &mut World, id: &str, length: u8) -> String {
    reserve(world, ask_length(id, length)).unwrap().prefix.to_string()
}

fn reason(world: &mut World, ask: ReserveSubnet) -> (Reason, String) {
    let Refusal { reason, message, .. } = reserve(world, ask).unwrap_err();
    (reason, message)
}

fn by_prefix(prefix: &str) -> Command {
    let prefix = prefix.parse().unwrap();
    Command::ReleaseSubnet(WhichSubnet::Prefix { prefix, pool: None })
}

fn sizes(world: &World) -> (u128, u128) {
    let pools = world.engine.pools();
    (pools[0].capacity, pools[0].free)
}

#[test]
fn a_subnet_is_the_lowest_aligned_block_without_reserved_addresses() {
    let mut world = World::new([PoolSpec {
        exclude: vec!["10.0.0.40".parse().unwrap()],
        ..spec("10.0.0.0/24")
    }]);
    // The network and the gateway are in the first block, the exclusion in the third.
    assert_eq!(prefix(&mut world, "a", 28), "10.0.0.16/28");
    assert_eq!(prefix(&mut world, "b", 28), "10.0.0.48/28");
    assert_eq!(prefix(&mut world, "c", 29), "10.0.0.8/29");
    assert_eq!(prefix(&mut world, "d", 26), "10.0.0.64/26");
    assert_eq!(prefix(&mut world, "e", 32), "10.0.0.2/32");
    // The last block has the broadcast address.
    assert_eq!(prefix(&mut world, "f", 26), "10.0.0.128/26");
    assert_eq!(reason(&mut world, ask_length("g", 26)).0, Reason::SubnetExhausted);
    world.host(&["10.0.0.200"]);
    assert_eq!(prefix(&mut world, "h", 29), "10.0.0.32/29");
    assert_eq!(prefix(&mut world, "i", 28), "10.0.0.208/28", "the host has 10.0.0.200");
}

#[test]
fn the_same_identifier_gets_the_same_subnet_and_no_other() {
    let mut world = World::new([
        spec("10.0.0.0/24"),
        PoolSpec::new("q", segment(), "10.0.1.0/24".parse().unwrap()),
    ]);
    let first = reserve(&mut world, ask_length("a", 28)).unwrap();
    assert_eq!(reserve(&mut world, ask_length("a", 28)).unwrap(), first);
    assert!(world.changes.is_empty());
    assert_eq!(reserve(&mut world, ask_prefix("a", "10.0.0.17/28")).unwrap(), first, "as numbers");
    for other in [
        ask_length("a", 29),
        ask_prefix("a", "10.0.0.32/28"),
        ReserveSubnet { pool: Arc::from("q"), ..ask_length("a", 28) },
    ] {
        let (reason, message) = reason(&mut world, other);
        assert_eq!(reason, Reason::SubnetHeld);
        assert!(message.contains("10.0.0.16/28"), "{message}");
    }
    assert_ne!(reserve(&mut world, ask_length("b", 28)).unwrap().prefix, first.prefix);
}

#[test]
fn nothing_leased_resting_quarantined_or_live_is_in_a_subnet() {
    let mut world = World::with("10.0.0.0/24");
    let give = |address: &str, world: &mut World| {
        world.allocate(ask_for(address, address)).unwrap().generation
    };
    give("10.0.0.17", &mut world);
    let releasing = give("10.0.0.33", &mut world);
    world.see_wire("10.0.0.33", 1);
    let cooling = give("10.0.0.49", &mut world);
    world.release(releasing);
    world.release(cooling);
    world.run(Command::Quarantine { segment: segment(), address: ip("10.0.0.65") }).unwrap();
    world.see_wire("10.0.0.81", 2);
    for (prefix, want, names) in [
        ("10.0.0.16/28", Reason::SubnetLeased, "10.0.0.17 in 10.0.0.16/28 is held (10.0.0.17)"),
        ("10.0.0.32/28", Reason::SubnetLeased, "releasing"),
        ("10.0.0.48/28", Reason::SubnetLeased, "cooling"),
        ("10.0.0.64/28", Reason::SubnetLeased, "quarantined"),
        ("10.0.0.80/28", Reason::SubnetLive, "10.0.0.81 in 10.0.0.80/28 is in use"),
        ("10.0.0.0/28", Reason::SubnetReserved, "never hands out"),
        ("10.0.0.240/28", Reason::SubnetReserved, "never hands out"),
        ("10.0.1.0/28", Reason::SubnetOutsidePool, "10.0.0.0/24"),
        ("fd00::/28", Reason::SubnetOutsidePool, "10.0.0.0/24"),
    ] {
        let (reason, message) = reason(&mut world, ask_prefix("x", prefix));
        assert_eq!(reason, want, "{prefix}: {message}");
        assert!(message.contains(names), "{message}");
    }
    let refusal = reserve(&mut world, ask_prefix("x", "10.0.0.48/28")).unwrap_err();
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(1800)));
    assert_eq!(prefix(&mut world, "a", 28), "10.0.0.96/28");
    let (reason, message) = reason(&mut world, ask_prefix("b", "10.0.0.104/29"));
    assert_eq!(reason, Reason::SubnetOverlaps);
    assert!(message.contains("10.0.0.96/28 of \"a\""), "{message}");
    // What was free before and is again stands in nobody's way.
    world.pass(30);
    assert_eq!(prefix(&mut world, "b", 28), "10.0.0.48/28");
}

#[test]
fn lengths_that_make_no_child_are_refused() {
    let mut world = World::with("10.0.0.0/24");
    for length in [0, 8, 24, 33, 128, 255] {
        assert_eq!(reason(&mut world, ask_length("a", length)).0, Reason::SubnetMalformed);
    }
    let wrong = ReserveSubnet { length: 29, ..ask_prefix("a", "10.0.0.16/28") };
    assert_eq!(reason(&mut world, wrong).0, Reason::SubnetMalformed);
    let unknown = ReserveSubnet { pool: Arc::from("?"), ..ask_length("a", 28) };
    assert_eq!(reason(&mut world, unknown).0, Reason::PoolUnknown);
}

#[test]
fn a_subnet_leaves_the_pool_at_once_and_comes_back_with_its_release() {
    let mut world = World::with("10.0.0.0/28");
    let used = world.lease("s");
    world.release(used.generation);
    world.pass(30);
    assert_eq!(sizes(&world), (13, 13));
    // 10.0.0.2 was used before, 10.0.0.3 never.
    reserve(&mut world, ask_prefix("a", "10.0.0.2/31")).unwrap();
    reserve(&mut world, ask_prefix("b", "10.0.0.8/30")).unwrap();
    assert_eq!(sizes(&world), (7, 7));
    let refusal = world.allocate(ask_for("x", "10.0.0.9")).unwrap_err();
    assert_eq!(refusal.reason, Reason::AddressHeld);
    assert!(refusal.message.contains("10.0.0.8/30 of \"b\""), "{refusal}");
    let given: Vec<_> = (0..7).map(|n| world.address(&format!("s{n}"))).collect();
    assert_eq!(
        given,
        [4, 5, 6, 7, 12, 13, 14].map(|n| format!("10.0.0.{n}")),
        "what the subnets leave"
    );
    assert_eq!(world.refused(ask("more")), Reason::PoolExhausted);

    assert!(matches!(world.run(by_prefix("10.0.0.9/30")), Ok(Reply::Subnet(_))));
    assert!(matches!(world.run(by_prefix("10.0.0.8/30")), Ok(Reply::NotFound)));
    assert!(matches!(world.run(by_prefix("10.0.0.2/32")), Ok(Reply::NotFound)), "not that one");
    let id = Command::ReleaseSubnet(WhichSubnet::Id(Arc::from("a")));
    assert!(matches!(world.run(id.clone()), Ok(Reply::Subnet(_))));
    assert!(matches!(world.run(id), Ok(Reply::NotFound)));
    assert_eq!(sizes(&world), (13, 6));
    let given: Vec<_> = (7..13).map(|n| world.address(&format!("s{n}"))).collect();
    assert_eq!(given, [3, 8, 9, 10, 11, 2].map(|n| format!("10.0.0.{n}")), "the used one last");
}

#[test]
fn rule_7_what_is_in_use_in_a_subnet_is_quarantined_when_it_is_released() {
    let mut world = World::with("10.0.0.0/24");
    reserve(&mut world, ask_length("a", 28)).unwrap();
    world.see_wire("10.0.0.20", 3);
    world.claim("10.0.0.20", 3);
    world.run(Command::RecheckAll).unwrap();
    assert_eq!(world.state("10.0.0.20"), None, "it is the subnet's holder's affair");
    world.run(by_prefix("10.0.0.16/28")).unwrap();
    assert_eq!(world.state("10.0.0.20"), Some(State::Quarantined));
    assert_eq!(reason(&mut world, ask_prefix("a", "10.0.0.16/28")).0, Reason::SubnetLeased);
}

#[test]
fn ipv6_subnets_cost_nothing_for_their_size() {
    let mut world = World::with("fd00::/48");
    let (all, _) = sizes(&world);
    assert_eq!(prefix(&mut world, "a", 64), "fd00:0:0:1::/64");
    assert_eq!(prefix(&mut world, "b", 49), "fd00:0:0:8000::/49");
    assert_eq!(prefix(&mut world, "c", 128), "fd00::2/128");
    assert_eq!(sizes(&world), (all - (1 << 64) - (1 << 79) - 1, all - (1 << 64) - (1 << 79) - 1));
    world.see_wire("fd00:0:0:2::1", 1);
    assert_eq!(prefix(&mut world, "d", 64), "fd00:0:0:3::/64");
    assert_eq!(world.address("s"), "fd00::3");
    for id in ["a", "b", "c", "d"] {
        world.run(Command::ReleaseSubnet(WhichSubnet::Id(Arc::from(id)))).unwrap();
    }
    // One is leased; the live one is quarantined with the next look at it.
    assert_eq!(sizes(&world), (all, all - 1));
}

#[test]
fn a_commit_that_fails_takes_a_subnet_back() {
    let mut world = World::with("10.0.0.0/24");
    let before = world.engine.contents();
    reserve(&mut world, ask_length("a", 26)).unwrap();
    let reserved = world.engine.contents();
    let changes = std::mem::take(&mut world.changes);
    world.engine.undo(&changes);
    assert_eq!(world.engine.check(), Vec::<String>::new());
    assert_eq!((world.engine.contents(), sizes(&world)), (before, (253, 253)));

    reserve(&mut world, ask_length("a", 26)).unwrap();
    world.see_wire("10.0.0.70", 1);
    world.run(by_prefix("10.0.0.64/26")).unwrap();
    assert_eq!(world.changes.len(), 2, "the subnet's row, and the quarantine");
    let changes = std::mem::take(&mut world.changes);
    world.engine.undo(&changes);
    assert_eq!(world.engine.check(), Vec::<String>::new());
    assert_eq!(world.engine.contents(), reserved);
}

#[test]
fn a_restart_keeps_subnets_whatever_the_pools_are_now() {
    let mut world = World::with("10.0.0.0/24");
    let subnet = reserve(&mut world, ask_length("a", 26)).unwrap();
    restart(&mut world, [spec("10.0.0.0/24")], None);
    assert!(world.changes.is_empty());
    assert_eq!(sizes(&world), (253 - 64, 253 - 64));

    // Renamed and larger.
    let renamed = PoolSpec::new("q", segment(), "10.0.0.0/16".parse().unwrap());
    restart(&mut world, [renamed], None);
    assert_eq!(world.changes.len(), 1);
    let now = world.engine.subnets().next().unwrap();
    assert_eq!((&*now.pool, now.prefix), ("q", subnet.prefix));

    // Two pools within what was carved out of one, and none that has it all.
    let inner = |name: &str, prefix: &str| PoolSpec::new(name, segment(), prefix.parse().unwrap());
    restart(&mut world, [inner("x", "10.0.0.64/27"), inner("y", "10.0.0.0/26")], None);
    assert!(matches!(&world.notices[..], [Notice::Stray(stray)] if stray.prefix == subnet.prefix));
    assert_eq!(sizes(&world), (0, 0));
    let id = Command::ReleaseSubnet(WhichSubnet::Id(Arc::from("a")));
    assert!(matches!(world.run(id), Ok(Reply::Subnet(_))));
    assert_eq!(sizes(&world), (29, 29));
}

#[test]
fn the_same_prefix_on_two_bridges_is_two_subnets() {
    let other = Segment::new("br1", 0);
    let mut world = World::new([
        spec("10.0.0.0/24"),
        PoolSpec::new("q", other, "10.0.0.0/24".parse().unwrap()),
    ]);
    reserve(&mut world, ask_length("a", 28)).unwrap();
    let second = ReserveSubnet { pool: Arc::from("q"), ..ask_length("b", 28) };
    assert_eq!(reserve(&mut world, second).unwrap().prefix.to_string(), "10.0.0.16/28");
    let refusal = world.run(by_prefix("10.0.0.16/28")).unwrap_err();
    assert_eq!(refusal.reason, Reason::SubnetAmbiguous);
    let prefix = "10.0.0.16/28".parse().unwrap();
    let pool = Some(Arc::from("q"));
    let exact = Command::ReleaseSubnet(WhichSubnet::Prefix { prefix, pool });
    let Ok(Reply::Subnet(released)) = world.run(exact) else { panic!("not released") };
    assert_eq!(&*released.id, "b");
}

#[test]
fn a_host_address_in_a_subnet_comes_and_goes() {
    let mut world = World::with("10.0.0.0/24");
    reserve(&mut world, ask_length("a", 28)).unwrap();
    world.host(&["10.0.0.20", "10.0.0.99"]);
    assert_eq!(sizes(&world), (253 - 16 - 1, 253 - 16 - 1));
    world.run(by_prefix("10.0.0.16/28")).unwrap();
    assert_eq!(sizes(&world), (253 - 2, 253 - 2));
    world.host(&[]);
    assert_eq!(sizes(&world), (253, 253));
}
