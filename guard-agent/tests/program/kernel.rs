//! The program in the kernel, with its maps, for tests.

use std::{cell::Cell, path::Path, time::Duration};

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf,
        lpm_trie,
    },
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use guard_agent::datapath::CountedMap;
use guard_ebpf::abi::{
    AddressKey, BridgeCounters, Challenger, ChallengerKey, DropKey, Drops, Event, Live,
    MAP_BOUND_MACS, MAP_CHALLENGERS, MAP_COUNTERS, MAP_DROPS, MAP_EVENTS, MAP_EXCEPTIONS,
    MAP_FRAMES, MAP_LIVE, MAP_LIVE_CHANGES, MAP_MACS, MAP_MODES, MAP_NEAR_PORTS, MAP_OWNED,
    MAP_OWNED_CHANGES, MAP_POLICIES, MAP_PORT_STATES, MAP_PORTS, MAP_PREFIXES, MAP_VLANS,
    MacHolder, MacKey, Mode, Owned, PROGRAM, Policy, Port, PortMac, PortState, Prefix, Vlans,
    near_slot,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use tempfile::TempDir;

use crate::common::{Case, Outcome};

/// What the program returns for a frame that passes: `TCX_NEXT`.
const NEXT: u32 = u32::MAX;
/// And for one that is dropped: `TC_ACT_SHOT`.
const SHOT: u32 = 2;

/// A file system of this thread's own for pins, in a directory that goes with it.
pub(crate) struct Pins(TempDir);

impl Pins {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // The directory cannot go while something is mounted there; what is in use lasts.
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// Pins of this thread's own; none without root.
pub(crate) fn pins() -> Option<Pins> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("passed over: loading a program needs root");
        return None;
    }
    let none = None::<&Path>;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    // No other thread sees the mount.
    let pins = tempfile::tempdir().unwrap();
    mount(none, pins.path(), Some("bpf"), MsFlags::empty(), none).unwrap();
    Some(Pins(pins))
}

/// What is kept for each CPU is kept once then.
pub(crate) fn stay_on_one_cpu() {
    let here = Pid::from_raw(0);
    let cpus = sched_getaffinity(here).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).find(|&cpu| cpus.is_set(cpu).unwrap()).unwrap()).unwrap();
    sched_setaffinity(here, &one).unwrap();
}

/// What the kernel has made of a program's object.
pub(crate) fn load(pins: &Pins, object: &[u8], name: &str) -> Ebpf {
    let mut ebpf = guard_agent::datapath::loader(pins.path()).load(object).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
    program.load().unwrap();
    ebpf
}

/// The program in the kernel, with its maps.
pub(crate) struct Program {
    pub ebpf: Ebpf,
    pub ports: HashMap<MapData, u32, Port>,
    pub near_ports: Array<MapData, Port>,
    pub macs: HashMap<MapData, MacKey, MacHolder>,
    pub bound_macs: HashMap<MapData, PortMac, u32>,
    pub exceptions: LpmTrie<MapData, AddressKey, u32>,
    pub states: Array<MapData, PortState>,
    pub policies: Array<MapData, Policy>,
    pub modes: Array<MapData, Mode>,
    pub drops: PerCpuHashMap<MapData, DropKey, Drops>,
    pub owned: CountedMap<Owned>,
    pub live: CountedMap<Live>,
    pub challengers: HashMap<MapData, ChallengerKey, Challenger>,
    pub prefixes: LpmTrie<MapData, AddressKey, Prefix>,
    pub vlans: HashMap<MapData, u32, Vlans>,
    pub counters: PerCpuArray<MapData, BridgeCounters>,
    pub frames: PerCpuArray<MapData, u64>,
    pub events: RingBuf<MapData>,
    /// Whether the last frame of a test run was dropped.
    pub dropped: Cell<bool>,
}

impl Program {
    /// Loads it with its maps pinned in a file system of this thread's own.
    pub(crate) fn load() -> Option<Self> {
        let pins = pins()?;
        let object = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf"));
        let mut ebpf = load(&pins, object, PROGRAM);
        let owned_changes = ebpf.take_map(MAP_OWNED_CHANGES).unwrap().try_into().unwrap();
        let live_changes = ebpf.take_map(MAP_LIVE_CHANGES).unwrap().try_into().unwrap();
        let mut map = |name: &str| {
            assert!(pins.path().join(name).exists(), "{name} is pinned");
            ebpf.take_map(name).unwrap()
        };
        Some(Self {
            ports: map(MAP_PORTS).try_into().unwrap(),
            near_ports: map(MAP_NEAR_PORTS).try_into().unwrap(),
            macs: map(MAP_MACS).try_into().unwrap(),
            states: map(MAP_PORT_STATES).try_into().unwrap(),
            policies: map(MAP_POLICIES).try_into().unwrap(),
            modes: map(MAP_MODES).try_into().unwrap(),
            drops: map(MAP_DROPS).try_into().unwrap(),
            exceptions: map(MAP_EXCEPTIONS).try_into().unwrap(),
            bound_macs: map(MAP_BOUND_MACS).try_into().unwrap(),
            owned: CountedMap::new(map(MAP_OWNED).try_into().unwrap(), owned_changes).unwrap(),
            live: CountedMap::new(map(MAP_LIVE).try_into().unwrap(), live_changes).unwrap(),
            challengers: map(MAP_CHALLENGERS).try_into().unwrap(),
            prefixes: map(MAP_PREFIXES).try_into().unwrap(),
            vlans: map(MAP_VLANS).try_into().unwrap(),
            counters: map(MAP_COUNTERS).try_into().unwrap(),
            frames: map(MAP_FRAMES).try_into().unwrap(),
            events: map(MAP_EVENTS).try_into().unwrap(),
            dropped: Cell::new(false),
            ebpf,
        })
    }

    /// How many instructions the verifier has walked over, if it says so.
    pub(crate) fn verified(&self) -> Option<u32> {
        let program = self.ebpf.program(PROGRAM).unwrap();
        program.info().unwrap().verified_instruction_count()
    }

    /// Brings the maps into the state before the case.
    pub(crate) fn prepare(&mut self, case: &Case, now_ns: u64) {
        self.clear();
        self.set_policy(case.policy(), Mode::default());
        let key = case.key();
        self.set_port(case.port(), case.port_state(now_ns));
        if let Some(owned) = case.owned(now_ns) {
            self.owned.insert(key, owned).unwrap();
        }
        if let Some(live) = case.live(now_ns) {
            let passed = self.changes();
            self.live.insert(key, Live { passed, ..live }).unwrap();
        }
        if let Some(station) = case.bound_mac() {
            self.bound_macs.insert(station, 1, 0).unwrap();
        }
        if let Some((key, holder)) = case.mac_holder() {
            self.macs.insert(key, holder, 0).unwrap();
        }
        for (key, len, prefix) in case.prefixes() {
            self.prefixes.insert(&lpm_trie::Key::new(len, key), prefix, 0).unwrap();
        }
        if let Some(vlans) = case.vlans() {
            self.vlans.insert(case.port().ifindex, vlans, 0).unwrap();
        }
    }

    /// The count of the agent's changes.
    pub(crate) fn changes(&self) -> u32 {
        u32::try_from(self.owned.changes() & u64::from(u32::MAX)).unwrap()
    }

    pub(crate) fn set_policy(&mut self, policy: Policy, mode: Mode) {
        self.policies.set(0, policy, 0).unwrap();
        self.modes.set(0, mode, 0).unwrap();
    }

    pub(crate) fn set_port(&mut self, port: Port, state: PortState) {
        self.ports.insert(port.ifindex, port, 0).unwrap();
        self.near_ports.set(near_slot(port.ifindex), port, 0).unwrap();
        self.states.set(0, state, 0).unwrap();
    }

    /// Takes everything out of the maps.
    pub(crate) fn clear(&mut self) {
        fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>) {
            let keys: Vec<K> = map.keys().map(Result::unwrap).collect();
            keys.iter().for_each(|key| map.remove(key).unwrap());
        }
        fn empty<V: aya::Pod>(table: &mut CountedMap<V>) {
            let keys: Vec<_> = table.keys().map(Result::unwrap).collect();
            keys.iter().for_each(|key| table.remove(key).unwrap());
        }
        empty(&mut self.owned);
        empty(&mut self.live);
        clear(&mut self.macs);
        clear(&mut self.bound_macs);
        clear(&mut self.challengers);
        clear(&mut self.vlans);
        let prefixes: Vec<_> = self.prefixes.keys().map(Result::unwrap).collect();
        prefixes.iter().for_each(|key| self.prefixes.remove(key).unwrap());
        let exceptions: Vec<_> = self.exceptions.keys().map(Result::unwrap).collect();
        exceptions.iter().for_each(|key| self.exceptions.remove(key).unwrap());
        let zeroes = vec![BridgeCounters::zeroed(); nr_cpus().unwrap()];
        self.counters.set(0, PerCpuValues::try_from(zeroes).unwrap(), 0).unwrap();
        let drops: Vec<_> = self.drops.keys().map(Result::unwrap).collect();
        drops.iter().for_each(|key| self.drops.remove(key).unwrap());
        while self.event().is_some() {}
    }

    /// Runs the program over a frame, `repeat` times, and gives the mean time of a run.
    pub(crate) fn run(&self, bytes: &[u8], repeat: u32) -> Duration {
        let program: &SchedClassifier = self.ebpf.program(PROGRAM).unwrap().try_into().unwrap();
        let mut options = TestRunOptions::new();
        options.data_in = Some(bytes);
        options.repeat = repeat;
        let result = program.test_run(options).unwrap_or_else(|e| panic!("{bytes:02x?}: {e}"));
        assert!([NEXT, SHOT].contains(&result.return_value), "{}", result.return_value);
        self.dropped.set(result.return_value == SHOT);
        result.duration
    }

    /// What was dropped, or would have been, over all CPUs, without its moment.
    pub(crate) fn drops(&self) -> std::collections::HashMap<DropKey, Drops> {
        let mut all = std::collections::HashMap::new();
        for entry in self.drops.iter() {
            let (key, values) = entry.unwrap();
            for value in values.iter().filter(|value| value.first_ns != 0) {
                let sum = all.entry(key).or_insert(Drops { dropped: 0, would_drop: 0, ..*value });
                sum.dropped += value.dropped;
                sum.would_drop += value.would_drop;
            }
        }
        all
    }

    pub(crate) fn event(&mut self) -> Option<Event> {
        self.events.next().map(|record| bytemuck::pod_read_unaligned(&record))
    }

    /// The challenger with this MAC.
    pub(crate) fn challenger(&self, mac: [u8; 6]) -> (ChallengerKey, Challenger) {
        self.challengers.iter().map(Result::unwrap).find(|(key, _)| key.mac == mac).unwrap()
    }

    pub(crate) fn counted(&self) -> BridgeCounters {
        let mut sum = BridgeCounters::zeroed();
        for cpu in self.counters.get(&0, 0).unwrap().iter() {
            let sums: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut sum));
            let cpu: &[u64] = bytemuck::cast_slice(std::slice::from_ref(cpu));
            sums.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    /// The frames counted for the port of the test runs.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.get(&0, 0).unwrap().iter().sum()
    }

    /// What comes of the case's frame.
    pub(crate) fn outcome(&mut self, case: &Case, enforce: bool) -> Outcome {
        let now_ns = coarse_ns();
        self.prepare(case, now_ns);
        self.set_policy(case.policy(), Mode { enforce: enforce.into(), braked: 0 });
        let frames = self.frames();
        self.run(&case.frame.bytes(), 1);
        assert_eq!(self.frames(), frames + 1);
        let outcome = self.what_came(case, now_ns);
        assert_eq!(self.dropped.get(), outcome.dropped.is_some());
        outcome
    }

    /// What the maps and the ring say of the one frame that has come since they were prepared.
    pub(crate) fn what_came(&mut self, case: &Case, now_ns: u64) -> Outcome {
        let key = case.key();
        let events: Vec<Event> = std::iter::from_fn(|| self.event()).collect();
        assert!(events.iter().all(|event| event.time_ns >= now_ns));
        let mut outcome = Outcome::default();
        outcome.told(&events, case);
        outcome.counted(&self.counted());
        let counted = outcome.drop.as_ref().or(outcome.dropped.as_ref()).is_some();
        assert_eq!(self.drops().len(), usize::from(counted));
        let (live, owned) = (self.live.get(&key, 0).ok(), self.owned.get(&key, 0).ok());
        let state = self.states.get(&0, 0).unwrap();
        outcome.written(case, now_ns, live, owned, state);
        let macs = self.macs.keys().map(Result::unwrap).count();
        outcome.learnt = Some(macs > usize::from(case.mac_holder().is_some()));
        outcome
    }
}

/// `CLOCK_MONOTONIC`, coarse, as the program reads it.
pub(crate) fn coarse_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}
