//! Random histories against the engine and a real store. After each step, what was told is checked
//! against what is known of the world, and the index against one built anew from the store.
//!
//! `GUARD_MODEL_CASES` sets the number of histories.

#[cfg(test)]
mod world;

use proptest::{prelude::*, test_runner::Config};

use self::world::{Op, World};

fn op() -> impl Strategy<Value = Op> {
    let sandbox = || (0u8..4, 0u8..2);
    prop_oneof![
        8 => (sandbox(), 1u8..4, prop::option::weighted(0.25, 0u8..8), prop::option::weighted(0.4, 1u8..6))
            .prop_map(|(who, pools, address, port)| Op::Allocate { who, pools, address, port }),
        3 => any::<prop::sample::Index>().prop_map(Op::Confirm),
        2 => (any::<prop::sample::Index>(), 1u8..6).prop_map(|(of, port)| Op::Bind { of, port }),
        5 => any::<prop::sample::Index>().prop_map(Op::Release),
        1 => (0u8..4, prop::option::of(0u8..2))
            .prop_map(|(sandbox, run)| Op::ReleaseOwner { sandbox, run }),
        5 => (1u8..6, 0u8..8, any::<bool>(), any::<bool>())
            .prop_map(|(port, address, six, told)| Op::Claim { port, address, six, told }),
        3 => (0u8..8, any::<bool>(), any::<bool>())
            .prop_map(|(address, six, told)| Op::Silence { address, six, told }),
        2 => (1u8..6).prop_map(Op::PortGone),
        1 => (sandbox(), 0u8..8, any::<bool>())
            .prop_map(|(who, address, told)| Op::Inventory { who, address, told }),
        1 => (0u8..8).prop_map(Op::Host),
        1 => (0u8..8, any::<bool>()).prop_map(|(address, on)| Op::Quarantine { address, on }),
        3 => (0u8..4, 0u8..2, prop::option::weighted(0.4, 0u8..8), any::<bool>())
            .prop_map(|(id, bits, at, six)| Op::Carve { id, bits, at, six }),
        2 => (0u8..4).prop_map(|id| Op::Uncarve { id }),
        1 => (0u8..4, any::<bool>()).prop_map(|(id, tap)| Op::Name { id, tap }),
        1 => (0u8..4, any::<bool>()).prop_map(|(n, tap)| Op::Unname { n, tap }),
        1 => (0u8..4, any::<bool>(), any::<bool>())
            .prop_map(|(n, tap, up)| Op::Link { n, tap, up }),
        5 => (1u8..45).prop_map(Op::Pass),
        1 => Just(Op::RecheckAll),
        2 => Just(Op::Restart),
        1 => Just(Op::Kill),
        1 => Just(Op::Reboot),
        2 => Just(Op::NextCommitFails),
    ]
}

fn cases() -> u32 {
    let wanted = std::env::var("GUARD_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    // Two tests share them, each on a CPU of its own.
    wanted.unwrap_or(10_000_u32).div_ceil(2)
}

fn config() -> Config {
    Config {
        cases: cases(),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_address_is_held_by_two(history in prop::collection::vec(op(), 1..40), bypass in any::<bool>()) {
        let mut world = World::new(bypass);
        for op in history {
            world.step(op);
        }
    }

    #[test]
    fn no_address_is_held_by_two_after_long_histories(history in prop::collection::vec(op(), 20..60)) {
        let mut world = World::new(true);
        for op in history {
            world.step(op);
        }
    }
}
