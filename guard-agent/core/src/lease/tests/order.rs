use proptest::prelude::*;

use super::*;

#[test]
fn rule_3_never_used_first_and_then_longest_released() {
    let mut world = World::with("10.0.0.0/29");
    let leases: Vec<_> = ["a", "b", "c"].map(|s| world.lease(s)).into();
    for n in [1, 0, 2] {
        world.release(leases[n].generation);
        world.pass(1);
    }
    world.pass(30);
    assert_eq!(world.engine.pools()[0].free, 5);
    let order: Vec<_> = ["d", "e", "f", "g", "h"].map(|s| world.address(s)).into();
    assert_eq!(order, ["10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2", "10.0.0.4"]);
}

#[test]
fn rule_3_under_pressure_the_oldest_cooling_one_that_is_not_live() {
    let mut world = World::with("10.0.0.0/29");
    let leases: Vec<_> = ["a", "b", "c", "d", "e"].map(|s| world.lease(s)).into();
    for n in [2, 0, 4] {
        world.release(leases[n].generation);
    }
    world.see_wire("10.0.0.4", 4);
    let lease = world.lease("f");
    assert_eq!(lease.address, ip("10.0.0.2"));
    assert!(lease.cooldown_bypassed);
    assert_eq!(world.state("10.0.0.4"), Some(State::Quarantined));
    assert_eq!(world.address("g"), "10.0.0.6");
    assert_eq!(world.refused(ask("h")), Reason::NoConflictFreeAddress);
}

#[test]
fn rule_3_with_the_bypass_off_the_error_says_when() {
    let mut world = World::new([PoolSpec { cooldown_bypass: false, ..spec("10.0.0.0/30") }]);
    let lease = world.lease("a");
    world.release(lease.generation);
    world.pass(10);
    let refusal = world.allocate(ask("b")).unwrap_err();
    assert_eq!(refusal.reason, Reason::PoolExhausted);
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(20 * 60)));
    assert!(refusal.message.contains("2023-11-14T22:43:20Z"), "{refusal}");
    world.pass(20);
    assert_eq!(world.address("b"), "10.0.0.2");
}

#[test]
fn rows_of_ipv6_addresses_go_when_cooling_ends() {
    let mut world = World::with("fd00::/64");
    let first = world.lease("a");
    assert_eq!(first.address, ip("fd00::2"));
    world.release(first.generation);
    world.pass(30);
    assert_eq!(world.engine.rows().count(), 0);
    // And the next is still one that was never used.
    assert_eq!(world.address("b"), "fd00::3");
}

#[test]
fn a_small_ipv6_pool_comes_round_again() {
    let mut world = World::with("fd00::/126");
    for n in 0..6 {
        let lease = world.lease(&format!("s{n}"));
        assert_eq!(lease.address, ip(if n % 2 == 0 { "fd00::2" } else { "fd00::3" }));
        world.release(lease.generation);
        world.pass(30);
    }
}

#[test]
fn the_largest_prefix_is_as_cheap_as_the_smallest() {
    let mut world = World::with("fc00::/7");
    for n in 0..100 {
        world.lease(&format!("s{n}"));
    }
    let high = "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    world.allocate(ask_for("t", high)).unwrap();
    assert_eq!(world.engine.pools()[0].free, (1 << 121) - 2 - 101);
    assert_eq!(world.address("u"), "fc00::66");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A lap through a pool with releases in any order hands out in the order of the releases.
    #[test]
    fn rule_3_release_order_is_the_order_of_the_next_lap(order in Just((0..13usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut world = World::with("10.0.0.0/28");
        let leases: Vec<_> = (0..13).map(|n| world.lease(&format!("a{n}"))).collect();
        for n in &order {
            world.release(leases[*n].generation);
        }
        world.pass(30);
        for n in &order {
            prop_assert_eq!(world.lease(&format!("b{n}")).address, leases[*n].address);
        }
    }
}
