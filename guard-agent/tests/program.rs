//! Loads the program into the kernel, and runs the cases through it under `BPF_PROG_TEST_RUN`.
//! Needs root and a kernel with BPF; without root the tests say so and pass over it.

#[path = "../../guard-ebpf/tests/common/mod.rs"]
#[expect(dead_code, reason = "the twins of the cases are checked by the runner on the host")]
#[cfg(test)]
mod common;

use std::{path::Path, time::Duration};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, RingBuf, lpm_trie},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use common::{Case, HERE, Outcome};
use guard_ebpf::abi::{
    AddressKey, BridgeCounters, Challenger, ChallengerKey, EVENT_VIOLATION, Event, Live,
    MAP_CHALLENGERS, MAP_COUNTERS, MAP_EVENTS, MAP_FRAMES, MAP_LIVE, MAP_MACS, MAP_NEAR_PORTS,
    MAP_OWNED, MAP_PORT_STATES, MAP_PORTS, MAP_PREFIXES, MacHolder, MacKey, Owned, PROGRAM, Port,
    PortState, STRENGTH_ASSERT, near_slot,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};

/// What the program returns for every frame: `TCX_NEXT`.
const NEXT: u32 = u32::MAX;

/// The program in the kernel, with its maps.
struct Program {
    ebpf: Ebpf,
    ports: HashMap<MapData, u32, Port>,
    near_ports: Array<MapData, Port>,
    macs: HashMap<MapData, MacKey, MacHolder>,
    states: Array<MapData, PortState>,
    owned: HashMap<MapData, AddressKey, Owned>,
    live: HashMap<MapData, AddressKey, Live>,
    challengers: HashMap<MapData, ChallengerKey, Challenger>,
    prefixes: LpmTrie<MapData, AddressKey, u32>,
    counters: PerCpuArray<MapData, BridgeCounters>,
    frames: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
}

#[cfg(test)]
impl Program {
    /// Loads it with its maps pinned in a file system of this thread's own.
    fn load() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("passed over: loading a program needs root");
            return None;
        }
        let none = None::<&Path>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        // Gone with the thread: no other one sees the mount, and the directory below it is empty.
        let pins = tempfile::tempdir().unwrap();
        mount(none, pins.path(), Some("bpf"), MsFlags::empty(), none).unwrap();

        let object = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf"));
        let mut ebpf = guard_agent::observer::loader(pins.path()).load(object).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut(PROGRAM).unwrap().try_into().unwrap();
        program.load().unwrap();
        let mut map = |name: &str| {
            assert!(pins.path().join(name).exists(), "{name} is pinned");
            ebpf.take_map(name).unwrap()
        };
        Some(Self {
            ports: map(MAP_PORTS).try_into().unwrap(),
            near_ports: map(MAP_NEAR_PORTS).try_into().unwrap(),
            macs: map(MAP_MACS).try_into().unwrap(),
            states: map(MAP_PORT_STATES).try_into().unwrap(),
            owned: map(MAP_OWNED).try_into().unwrap(),
            live: map(MAP_LIVE).try_into().unwrap(),
            challengers: map(MAP_CHALLENGERS).try_into().unwrap(),
            prefixes: map(MAP_PREFIXES).try_into().unwrap(),
            counters: map(MAP_COUNTERS).try_into().unwrap(),
            frames: map(MAP_FRAMES).try_into().unwrap(),
            events: map(MAP_EVENTS).try_into().unwrap(),
            ebpf,
        })
    }

    /// Brings the maps into the state before the case.
    fn prepare(&mut self, case: &Case, now_ns: u64) {
        self.clear();
        let key = case.key();
        self.set_port(case.port(), case.port_state(now_ns));
        if let Some(owned) = case.owned(now_ns) {
            self.owned.insert(key, owned, 0).unwrap();
        }
        if let Some(live) = case.live(now_ns) {
            self.live.insert(key, live, 0).unwrap();
        }
        if let Some((key, holder)) = case.mac_holder() {
            self.macs.insert(key, holder, 0).unwrap();
        }
        for (key, len) in case.prefix_keys() {
            self.prefixes.insert(&lpm_trie::Key::new(len, key), 0, 0).unwrap();
        }
    }

    fn set_port(&mut self, port: Port, state: PortState) {
        self.ports.insert(HERE, port, 0).unwrap();
        self.near_ports.set(near_slot(HERE), port, 0).unwrap();
        self.states.set(0, state, 0).unwrap();
    }

    /// Takes everything out of the maps.
    fn clear(&mut self) {
        fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>) {
            let keys: Vec<K> = map.keys().map(Result::unwrap).collect();
            keys.iter().for_each(|key| map.remove(key).unwrap());
        }
        clear(&mut self.owned);
        clear(&mut self.live);
        clear(&mut self.macs);
        clear(&mut self.challengers);
        let prefixes: Vec<_> = self.prefixes.keys().map(Result::unwrap).collect();
        prefixes.iter().for_each(|key| self.prefixes.remove(key).unwrap());
        let zeroes = vec![BridgeCounters::zeroed(); nr_cpus().unwrap()];
        self.counters.set(0, PerCpuValues::try_from(zeroes).unwrap(), 0).unwrap();
        while self.event().is_some() {}
    }

    /// Runs the program over a frame, `repeat` times, and gives the mean time of a run.
    fn run(&self, bytes: &[u8], repeat: u32) -> Duration {
        let program: &SchedClassifier = self.ebpf.program(PROGRAM).unwrap().try_into().unwrap();
        let mut options = TestRunOptions::new();
        options.data_in = Some(bytes);
        options.repeat = repeat;
        let result = program.test_run(options).unwrap_or_else(|e| panic!("{bytes:02x?}: {e}"));
        assert_eq!(result.return_value, NEXT, "the program observes");
        result.duration
    }

    fn event(&mut self) -> Option<Event> {
        self.events.next().map(|record| bytemuck::pod_read_unaligned(&record))
    }

    fn counted(&self) -> BridgeCounters {
        let mut sum = BridgeCounters::zeroed();
        for cpu in self.counters.get(&0, 0).unwrap().iter() {
            let sums: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut sum));
            let cpu: &[u64] = bytemuck::cast_slice(std::slice::from_ref(cpu));
            sums.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    /// The frames counted for the port of the test runs.
    fn frames(&self) -> u64 {
        self.frames.get(&0, 0).unwrap().iter().sum()
    }

    /// What comes of the case's frame.
    fn outcome(&mut self, case: &Case) -> Outcome {
        let now_ns = coarse_ns();
        self.prepare(case, now_ns);
        let frames = self.frames();
        let (key, bytes) = (case.key(), case.frame.bytes());
        self.run(&bytes, 1);
        assert_eq!(self.frames(), frames + 1);

        let events: Vec<Event> = std::iter::from_fn(|| self.event()).collect();
        assert!(events.iter().all(|event| event.time_ns >= now_ns));
        let mut outcome = Outcome::default();
        outcome.told(&events, case);
        outcome.counted(&self.counted());
        let (live, owned) = (self.live.get(&key, 0).ok(), self.owned.get(&key, 0).ok());
        let state = self.states.get(&0, 0).unwrap();
        outcome.written(case, now_ns, live, owned, state);
        let macs = self.macs.keys().map(Result::unwrap).count();
        outcome.learnt = Some(macs > usize::from(case.mac_holder().is_some()));
        outcome
    }
}

#[cfg(test)]
fn coarse_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

#[cfg(test)]
fn case(file: &str, name: &str) -> Case {
    let cases = Case::all().into_iter();
    cases.filter(|(f, _)| f == file).find(|(_, case)| case.name == name).unwrap().1
}

#[test]
fn the_program_agrees_with_the_cases() {
    let Some(mut program) = Program::load() else { return };
    for (file, case) in Case::all() {
        if let Some(reason) = &case.skip_test_run {
            eprintln!("passed over: {file}: {} {}: {reason}", case.row, case.name);
            continue;
        }
        let outcome = program.outcome(&case).cut_to(&case.expect);
        assert_eq!(outcome, case.expect, "{file}: {} {}", case.row, case.name);
    }
}

#[test]
fn a_frame_of_an_unknown_port_leaves_no_trace() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    program.ports.remove(&HERE).unwrap();
    program.near_ports.set(near_slot(HERE), Port::zeroed(), 0).unwrap();
    program.run(&case.frame.bytes(), 1);
    assert_eq!((program.event(), program.counted()), (None, BridgeCounters::zeroed()));
}

#[test]
fn a_challenger_is_told_once_and_counted() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    program.run(&case.frame.bytes(), 100);
    assert_eq!(program.event().map(|event| event.kind), Some(EVENT_VIOLATION));
    assert_eq!(program.event(), None);
    let (key, challenger) = program.challengers.iter().next().unwrap().unwrap();
    assert_eq!((key.key, key.mac, key.kind), (case.key(), case.frame.mac(), EVENT_VIOLATION));
    assert_eq!((challenger.frames, challenger.strength), (100, STRENGTH_ASSERT));
}

#[test]
fn a_challenger_is_told_again_after_a_second() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    program.run(&case.frame.bytes(), 1);
    assert!(program.event().is_some());
    let (key, mut challenger) = program.challengers.iter().next().unwrap().unwrap();
    challenger.told_ns -= 1_000_000_000;
    program.challengers.insert(key, challenger, 0).unwrap();
    program.run(&case.frame.bytes(), 1);
    assert!(program.event().is_some());
}

#[test]
fn a_probe_does_not_silence_the_claim_that_follows() {
    let Some(mut program) = Program::load() else { return };
    let probe = case("arp", "probe_for_an_owned_address_is_told_and_passes");
    let claim = case("arp", "announcement_after_a_probe");
    program.prepare(&probe, coarse_ns());
    program.run(&probe.frame.bytes(), 3);
    program.run(&claim.frame.bytes(), 3);
    assert!(program.event().is_some());
    assert_eq!(program.event().map(|event| event.kind), Some(EVENT_VIOLATION));
    assert_eq!(program.event(), None);
}

#[test]
fn an_event_that_finds_no_room_is_counted_and_told_later() {
    let Some(mut program) = Program::load() else { return };
    let case = case("arp", "request_for_a_declared_owners_address");
    program.prepare(&case, coarse_ns());
    let mut bytes = case.frame.bytes();
    // Challengers by the Ethernet and the ARP sender, until the ring is full.
    let mut sender = 0_u32;
    while program.counted().events_lost == 0 {
        sender += 1;
        let [_, high, middle, low] = sender.to_be_bytes();
        bytes[6..12].copy_from_slice(&[2, 0, 1, high, middle, low]);
        bytes[22..28].copy_from_slice(&[2, 0, 1, high, middle, low]);
        program.run(&bytes, 1);
    }
    while program.event().is_some() {}
    program.run(&bytes, 1);
    assert_eq!(program.event().map(|event| event.mac[..] == bytes[6..12]), Some(true));
}

/// Nanoseconds per path, for people: `cargo test --test program -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(mut program) = Program::load() else { return };
    for (file, name) in [
        ("arp", "request_by_the_owner_seen_just_now"),
        ("arp", "same_claim_within_the_second_stores_nothing"),
        ("ipv4", "packet_by_the_owner_seen_just_now"),
        ("ipv4", "packet_by_the_live_claimant_seen_just_now"),
        ("ipv4", "routed_source_on_an_uplink"),
        ("layer2", "ipv6_from_a_host"),
        ("arp", "request_for_a_declared_owners_address"),
    ] {
        let case = case(file, name);
        let bytes = case.frame.bytes();
        program.prepare(&case, coarse_ns());
        let best = (0..500).map(|_| program.run(&bytes, 10_000)).min().unwrap();
        println!("{name}: {} ns", best.as_nanos());
    }
    program.ports.remove(&HERE).unwrap();
    program.near_ports.set(near_slot(HERE), Port::zeroed(), 0).unwrap();
    let bytes = case("arp", "request_by_the_owner_seen_just_now").frame.bytes();
    let best = (0..500).map(|_| program.run(&bytes, 10_000)).min().unwrap();
    println!("port unknown: {} ns", best.as_nanos());
}
