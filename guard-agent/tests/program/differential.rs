//! The program in the kernel and the decision function on the host, fed with the same frames by
//! chance: what they count, write and tell is the same.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    hash::Hash,
};

use aya::maps::{self, MapData, lpm_trie};
use guard_ebpf::{
    abi::{
        AddressKey, BridgeCounters, Challenger, ChallengerKey, DropKey, Drops, EVENT_DECLINED,
        EVENT_LIVE, Event, Live, MacHolder, MacKey, Owned, Port, PortState,
    },
    claim::Claim,
    counters::{DropReason, MalformedReason, NoClaim, OpaqueReason},
    frame::parse,
    model::Model,
};

use crate::{
    common::generate::{Chance, FRESH_NS, any, owned, port, state},
    kernel::{Program, coarse_ns, stay_on_one_cpu},
};

/// How many frames, unless the environment says otherwise.
const FRAMES: u64 = 200_000;
const FRAMES_VARIABLE: &str = "GUARD_DIFFERENTIAL_FRAMES";
/// Frames on one state: few enough that no second passes over them.
const BATCH: u64 = 128;

/// Everything but the moment at which it happened.
#[derive(Debug, PartialEq)]
struct Trace {
    counters: BridgeCounters,
    owned: HashMap<AddressKey, Owned>,
    live: HashMap<AddressKey, Live>,
    macs: HashMap<MacKey, MacHolder>,
    challengers: HashMap<ChallengerKey, Challenger>,
    drops: HashMap<DropKey, Drops>,
    state: PortState,
    events: Vec<Event>,
}

/// A stamp of this test run does as well as any other.
fn moment(stamp_ns: u64) -> u64 {
    match stamp_ns {
        0 | 1 | FRESH_NS => stamp_ns,
        _ => 2,
    }
}

impl Trace {
    /// And by `changes` whether a claim has passed since the last of these.
    fn without_time(mut self, changes: u32) -> Self {
        for owned in self.owned.values_mut() {
            owned.seen_ns = moment(owned.seen_ns);
        }
        for live in self.live.values_mut() {
            live.first_ns = moment(live.first_ns);
            live.seen_ns = moment(live.seen_ns);
            live.passed = u32::from(live.passed == changes);
        }
        for challenger in self.challengers.values_mut() {
            challenger.seen_ns = moment(challenger.seen_ns);
            challenger.told_ns = moment(challenger.told_ns);
        }
        for drops in self.drops.values_mut() {
            drops.first_ns = moment(drops.first_ns);
            drops.last_ns = moment(drops.last_ns);
        }
        self.state.window_ns = moment(self.state.window_ns);
        self.state.told_ns = moment(self.state.told_ns);
        self.state.events_ns = moment(self.state.events_ns);
        self.state.probe_ns = moment(self.state.probe_ns);
        for event in &mut self.events {
            event.time_ns = 0;
        }
        self
    }

    fn of_model(model: &Model) -> Self {
        let Model { owned, live, macs, challengers, drops, state, events, counters, .. } =
            model.clone();
        Self { counters, owned, live, macs, challengers, drops, state, events }
            .without_time(model.changes)
    }

    fn of_program(program: &mut Program, events: &[Event]) -> Self {
        fn all<K: aya::Pod + Eq + Hash, V: aya::Pod>(
            map: &maps::HashMap<MapData, K, V>,
        ) -> HashMap<K, V> {
            map.iter().map(Result::unwrap).collect()
        }
        Self {
            counters: program.counted(),
            owned: all(&program.owned),
            live: all(&program.live),
            macs: all(&program.macs),
            challengers: all(&program.challengers),
            drops: program.drops(),
            state: program.states.get(&0, 0).unwrap(),
            events: events.to_vec(),
        }
        .without_time(program.changes())
    }
}

/// Runs one batch, and returns what the model saw, if the program saw the same. If `closely`,
/// compares after each frame, to name the one that differs.
fn batch(program: &mut Program, seed: u64, closely: bool) -> Option<Model> {
    let mut chance = Chance::new(seed);
    let port = port(&mut chance);
    let mut model = Model::new(0);
    state(&mut chance, &mut model);
    program.clear();
    program.set_port(port, model.state);
    program.set_policy(model.policy, model.mode);
    for (key, owned) in &model.owned {
        program.owned.insert(*key, *owned).unwrap();
    }
    for (station, how) in &model.bound_macs {
        program.bound_macs.insert(station, how, 0).unwrap();
    }
    for ((key, len), bits) in &model.exceptions {
        program.exceptions.insert(&lpm_trie::Key::new(*len, *key), bits, 0).unwrap();
    }
    let changes = program.changes();
    for (key, live) in &model.live {
        let passed = if live.passed == model.changes { changes } else { 0 };
        program.live.insert(*key, Live { passed, ..*live }).unwrap();
    }
    for (key, holder) in &model.macs {
        program.macs.insert(key, holder, 0).unwrap();
    }
    for ((key, len), prefix) in &model.prefixes {
        program.prefixes.insert(&lpm_trie::Key::new(*len, *key), prefix, 0).unwrap();
    }
    for (ifindex, vlans) in &model.vlans {
        program.vlans.insert(ifindex, vlans, 0).unwrap();
    }
    let mut told = Vec::new();
    let mut frame = any(&mut chance);
    for _ in 0..BATCH {
        // Some come again: whom the program knew it remembers, until the agent changes something.
        if !chance.once_in(4) {
            frame = any(&mut chance);
        } else if chance.once_in(2) {
            change(program, &mut model, &mut chance, &frame, &port);
        }
        model.now_ns = coarse_ns();
        let dropped = model.watch(&frame[..], &port);
        program.run(&frame, 1);
        assert_eq!(program.dropped.get(), dropped, "{seed:#x}: {frame:02x?} on {port:?}");
        if closely {
            told.extend(std::iter::from_fn(|| program.event()));
            let trace = Trace::of_program(program, &told);
            assert_eq!(trace, Trace::of_model(&model), "{seed:#x}: {frame:02x?} on {port:?}");
        }
    }
    told.extend(std::iter::from_fn(|| program.event()));
    (Trace::of_program(program, &told) == Trace::of_model(&model)).then_some(model)
}

/// The agent has another owner for what a frame claims, or withdraws who lives there.
fn change(
    program: &mut Program,
    model: &mut Model,
    chance: &mut Chance,
    frame: &[u8],
    port: &Port,
) {
    let parsed = parse(frame, port);
    let Some(Claim { key, .. }) = parsed.claim() else { return };
    if chance.once_in(2) {
        let owned = owned(chance);
        model.owned.insert(*key, owned);
        model.changes += 1;
        program.owned.insert(*key, owned).unwrap();
    } else if model.live.remove(key).is_some() {
        program.live.remove(key).unwrap();
    }
}

#[test]
fn the_program_does_what_the_decision_function_does() {
    let Some(mut program) = Program::load() else { return };
    stay_on_one_cpu();
    let frames = env::var(FRAMES_VARIABLE).map_or(FRAMES, |frames| frames.parse().unwrap());
    let mut met = Met::default();
    for seed in 0..frames.div_ceil(BATCH) {
        let model = batch(&mut program, seed, false).or_else(|| {
            batch(&mut program, seed, true);
            // Too slow a machine may let a second pass, once.
            batch(&mut program, seed, false)
        });
        met.add(&model.unwrap_or_else(|| panic!("batch {seed:#x} differs")));
    }
    // Fewer need not meet everything.
    if frames >= FRAMES {
        met.check();
    }
}

/// What the frames have met: chance must not leave out a path.
#[derive(Default)]
struct Met {
    counters: Vec<u64>,
    kinds: BTreeSet<u8>,
}

impl Met {
    fn add(&mut self, model: &Model) {
        let counters = bytemuck::cast_slice::<_, u64>(std::slice::from_ref(&model.counters));
        self.counters.resize(counters.len(), 0);
        self.counters.iter_mut().zip(counters).for_each(|(sum, count)| *sum += count);
        self.kinds.extend(model.events.iter().map(|event| event.kind));
    }

    fn check(&self) {
        assert_eq!(self.kinds, (EVENT_LIVE..=EVENT_DECLINED).collect());
        let counters: &BridgeCounters = bytemuck::from_bytes(bytemuck::cast_slice(&self.counters));
        // A test run carries no such frame.
        let never = [MalformedReason::EthernetTruncated, MalformedReason::Ipv4Truncated];
        for reason in MalformedReason::ALL.iter().filter(|reason| !never.contains(reason)) {
            assert_ne!(counters.malformed[*reason as usize], 0, "{}", reason.name());
        }
        for reason in NoClaim::ALL {
            assert_ne!(counters.no_claim[*reason as usize], 0, "{}", reason.name());
        }
        for reason in OpaqueReason::ALL {
            assert_ne!(counters.opaque[*reason as usize], 0, "{}", reason.name());
        }
        for reason in DropReason::ALL {
            assert_ne!(counters.would_drop[*reason as usize], 0, "{}", reason.name());
            assert_ne!(counters.dropped[*reason as usize], 0, "{}", reason.name());
        }
    }
}
