//! Random histories against the engine, a real store and real evidence, in a machine of which the
//! agent knows what it has read since it started. After each step, what was done is checked against
//! what is true of the machine, and the index against one built anew from the store.
//!
//! The histories are the same in each run, so that what is green stays so; `GUARD_MODEL_CASES` is for a
//! search, in as many new ones (or those of `PROPTEST_RNG_SEED`).

#[cfg(test)]
mod world;

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed},
};

use self::world::{Op, Setup, Story, World};

fn who() -> impl Strategy<Value = (u8, u8)> {
    (0u8..3, 0u8..2)
}

fn some(below: u8) -> impl Strategy<Value = Option<u8>> {
    prop::option::weighted(0.4, 0..below)
}

/// What controllers and operators ask for.
fn call() -> impl Strategy<Value = Op> {
    let of = any::<Index>;
    prop_oneof![
        9 => (who(), prop_oneof![4 => Just(1u8), 1 => 1u8..8], some(8), some(4), any::<bool>())
            .prop_map(|(who, pools, address, port, mac)| {
                let address = address.filter(|n| n % 2 == 0);
                Op::Allocate { who, pools, address, port, mac }
            }),
        2 => of().prop_map(Op::AskAgain),
        3 => of().prop_map(Op::Confirm),
        3 => (of(), 1u8..4, any::<bool>()).prop_map(|(of, number, mac)| Op::Bind { of, number, mac }),
        5 => of().prop_map(Op::Release),
        1 => (0u8..3, some(2)).prop_map(|(sandbox, run)| Op::ReleaseOwner { sandbox, run }),
        2 => (of(), any::<bool>()).prop_map(|(of, second)| Op::Ack { of, second }),
        1 => (0u8..2, 2u8..7).prop_map(|(bridge, address)| Op::Force { bridge, address }),
        1 => (0u8..2, 2u8..7, any::<bool>())
            .prop_map(|(bridge, address, on)| Op::Quarantine { bridge, address, on }),
        1 => Just(Op::Gc),
        2 => (0u8..4, 0u8..2, some(8), any::<bool>())
            .prop_map(|(id, bits, at, six)| Op::Carve { id, bits, at, six }),
        1 => (0u8..4).prop_map(|id| Op::Uncarve { id }),
        1 => (0u8..4, any::<bool>()).prop_map(|(id, tap)| Op::Name { id, tap }),
        1 => (0u8..4, any::<bool>()).prop_map(|(n, tap)| Op::Unname { n, tap }),
    ]
}

/// What happens on the machine.
fn event() -> impl Strategy<Value = Op> {
    let six = || prop::bool::weighted(0.2);
    prop_oneof![
        4 => (1u8..4, 0u8..5, prop::option::weighted(0.8, 0u8..2))
            .prop_map(|(number, name, bridge)| Op::Link { number, name, bridge }),
        2 => (1u8..4).prop_map(Op::LinkEnds),
        2 => (1u8..4, prop::option::of(0u8..5), 0u8..2)
            .prop_map(|(number, name, bridge)| Op::LinkAnew { number, name, bridge }),
        3 => (1u8..4, 0u8..5).prop_map(|(number, name)| Op::Rename { number, name }),
        1 => (1u8..4, prop::option::of(0u8..2)).prop_map(|(number, bridge)| Op::Move { number, bridge }),
        5 => (1u8..4, 0u8..8, six(), prop::option::weighted(0.2, 1u8..4))
            .prop_map(|(number, address, six, mac)| Op::Frame { number, address, six, mac }),
        2 => (0u8..2, 0u8..8, six())
            .prop_map(|(bridge, address, six)| Op::Fade { bridge, address, six }),
        1 => any::<Index>().prop_map(Op::Ends),
        1 => (0u8..2, 0u8..8).prop_map(|(bridge, address)| Op::Host { bridge, address }),
        1 => (0u8..2, any::<bool>()).prop_map(|(bridge, absent)| Op::Bridge { bridge, absent }),
        6 => (1u8..45).prop_map(Op::Time),
        1 => Just(Op::WallBack),
    ]
}

/// What others list, and how they answer.
fn listed() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0u8..3, who(), any::<bool>(), some(8))
            .prop_map(|(n, who, run, address)| Op::Container { n, who, run, address }),
        3 => (0u8..3, any::<Index>(), any::<bool>(), any::<bool>())
            .prop_map(|(n, of, run, label)| Op::ContainerOf { n, of, run, label }),
        2 => (0u8..3).prop_map(Op::ContainerEnds),
        2 => (who(), prop::bool::weighted(0.2)).prop_map(|(who, any_run)| Op::Register { who, any_run }),
        1 => (who(), prop::bool::weighted(0.2)).prop_map(|(who, any_run)| Op::Dies { who, any_run }),
        2 => Just(Op::Index),
        2 => who().prop_map(|who| Op::StartsAgain { who }),
        3 => any::<bool>().prop_map(Op::Ask),
        3 => (any::<bool>(), 0u8..11)
            .prop_map(|(directory, outcome)| Op::Answer { directory, outcome }),
        1 => Just(Op::StreamBreaks),
    ]
}

/// What the agent does by itself, and what is done to it.
fn agent() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..12, 0u8..12)
            .prop_map(|(runtime, directory)| Op::Reconcile { runtime, directory }),
        2 => Just(Op::Passes),
        1 => Just(Op::RecheckAll),
        1 => Just(Op::Lag),
        1 => Just(Op::NextCommitFails),
        2 => any::<bool>().prop_map(|in_order| Op::Stop { in_order }),
        4 => Just(Op::Start),
        1 => any::<bool>().prop_map(|in_order| Op::Restart { in_order }),
        2 => any::<bool>().prop_map(|at_once| Op::LoseStore { at_once }),
        1 => any::<bool>().prop_map(|containers_stay| Op::Reboot { containers_stay }),
        3 => any::<u8>().prop_map(Op::Read),
        4 => Just(Op::BootPass),
    ]
}

/// What takes several of these in order.
fn story() -> impl Strategy<Value = Op> {
    let story = prop_oneof![
        2 => (who(), 1u8..4, 0u8..5)
            .prop_map(|(who, number, name)| Story::Renamed { who, number, name }),
        2 => (who(), 1u8..4, some(5))
            .prop_map(|(who, number, name)| Story::EndsMeanwhile { who, number, name }),
        2 => (1u8..4, 1u8..4)
            .prop_map(|(number, address)| Story::HostHadIt { number, address }),
        3 => who().prop_map(|who| Story::RunsSilently { who }),
        3 => who().prop_map(|who| Story::DiesAtLast { who }),
        3 => (who(), any::<bool>())
            .prop_map(|(who, in_order)| Story::MovesVlan { who, in_order }),
        2 => any::<[bool; 3]>().prop_map(|[used_again, by_asking, restart]| {
            Story::ListIsLost { used_again, by_asking, restart }
        }),
    ];
    story.prop_map(Op::Story)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![28 => call(), 24 => event(), 16 => listed(), 16 => agent(), 2 => story()]
}

fn setup() -> impl Strategy<Value = Setup> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2))
        .prop_map(|(bypass, runtime, directory, subscribers, allow)| Setup {
            bypass,
            runtime,
            directory,
            subscribers,
            allow,
        })
}

fn config() -> Config {
    let wanted = std::env::var("GUARD_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = match wanted {
        None => RngSeed::Fixed(14),
        Some(_) => Config::default().rng_seed,
    };
    Config {
        // Two tests share them, each on a CPU of its own.
        cases: wanted.unwrap_or(3_000_u32).div_ceil(2),
        rng_seed,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_address_is_held_by_two(setup in setup(), history in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(setup);
        for op in history {
            world.step(op);
        }
        world.settle();
    }

    #[test]
    fn no_address_is_held_by_two_after_long_histories(
        setup in setup(),
        history in prop::collection::vec(op(), 20..80),
    ) {
        let mut world = World::new(setup);
        for op in history {
            world.step(op);
        }
        world.settle();
    }
}
