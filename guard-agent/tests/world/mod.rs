//! An agent among what is true of a machine: whoever runs on it, its links, and those who list what
//! there is. The agent knows of it what it has read since it started.

mod agent;
mod calls;
mod children;
mod node;
mod passes;
mod ports;
mod rules;
mod settle;
mod sources;
mod step;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use guard_agent::{live::LiveSet, store::Store};
use guard_core::{
    evidence::Changes,
    lease::{
        Applied, Engine, Place, Pool, PoolSpec, Pools, Row, Write,
        command::{Allocate, Command, Reason, Refusal, Reply},
    },
    time::Now,
};
use jiff::Timestamp;
use proptest::sample::Index;
use tempfile::TempDir;

use self::{
    agent::{Part, Phase},
    calls::POOLS,
    node::{Node, Serial, segment},
    rules::Given,
    sources::{Asked, DIRECTORY, Outcome, RUNTIME, SOURCES},
};

/// How the agent is configured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub bypass: bool,
    pub runtime: bool,
    pub directory: bool,
    pub subscribers: bool,
    /// `when_degraded = "allow"`, and `boot_timeout` is over at once.
    pub allow: bool,
}

/// One step of a history. Numbers are indices into small worlds.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Allocate {
        who: (u8, u8),
        pools: u8,
        address: Option<u8>,
        port: Option<u8>,
        mac: bool,
    },
    AskAgain(Index),
    Confirm(Index),
    Bind {
        of: Index,
        number: u8,
        mac: bool,
    },
    Release(Index),
    ReleaseOwner {
        sandbox: u8,
        run: Option<u8>,
    },
    Ack {
        of: Index,
        second: bool,
    },
    Force {
        bridge: u8,
        address: u8,
    },
    Quarantine {
        bridge: u8,
        address: u8,
        on: bool,
    },
    Gc,
    Carve {
        id: u8,
        bits: u8,
        at: Option<u8>,
        six: bool,
    },
    Uncarve {
        id: u8,
    },
    Name {
        id: u8,
        tap: bool,
    },
    Unname {
        n: u8,
        tap: bool,
    },
    Link {
        number: u8,
        name: u8,
        bridge: Option<u8>,
    },
    LinkEnds(u8),
    /// It ends, and another has its number, perhaps its name.
    LinkAnew {
        number: u8,
        name: Option<u8>,
        bridge: u8,
    },
    Rename {
        number: u8,
        name: u8,
    },
    Move {
        number: u8,
        bridge: Option<u8>,
    },
    Frame {
        number: u8,
        address: u8,
        six: bool,
        mac: Option<u8>,
    },
    Fade {
        bridge: u8,
        address: u8,
        six: bool,
    },
    Ends(Index),
    Container {
        n: u8,
        who: (u8, u8),
        run: bool,
        address: Option<u8>,
    },
    /// One for somebody who was given an address, with a label or (CNI's way) without.
    ContainerOf {
        n: u8,
        of: Index,
        run: bool,
        label: bool,
    },
    ContainerEnds(u8),
    Register {
        who: (u8, u8),
        any_run: bool,
    },
    Dies {
        who: (u8, u8),
        any_run: bool,
    },
    Index,
    Host {
        bridge: u8,
        address: u8,
    },
    Bridge {
        bridge: u8,
        absent: bool,
    },
    Ask(bool),
    Answer {
        directory: bool,
        outcome: u8,
    },
    StreamBreaks,
    Time(u8),
    WallBack,
    Reconcile {
        runtime: u8,
        directory: u8,
    },
    /// Passes until what is silent is due.
    Passes,
    /// It runs again, and the index knows only of the end of an earlier run, and not of which.
    StartsAgain {
        who: (u8, u8),
    },
    RecheckAll,
    /// The next command comes before the agent has looked at what it was told.
    Lag,
    NextCommitFails,
    Stop {
        in_order: bool,
    },
    Start,
    Restart {
        in_order: bool,
    },
    LoseStore {
        at_once: bool,
    },
    Reboot {
        containers_stay: bool,
    },
    Read(u8),
    BootPass,
}

pub struct World {
    setup: Setup,
    dir: TempDir,
    engine: Engine,
    store: Option<Store>,
    live: LiveSet,
    phase: Phase,
    unread: Vec<Part>,
    /// The links that the agent has seen, or had when it ended.
    known_ports: BTreeMap<u32, Serial>,
    sources: [Asked; 2],
    node: Node,
    now: Now,
    boot: u32,
    opened: bool,
    fails: bool,
    lag: bool,
    drained: bool,
    frames: u64,
    /// All generations that were ever told, the last one last.
    told: Vec<u64>,
    /// Requests that were granted.
    asked: Vec<Allocate>,
    given: BTreeMap<u64, Given>,
    /// Whose release ended the last lease of a place.
    gave_back: BTreeMap<Place, guard_core::owner::Owner>,
    /// The rows as they were after the last change.
    shadow: BTreeMap<Place, Row>,
}

impl Setup {
    fn pools(self) -> Pools {
        let pool = |(name, bridge): (&str, u8)| {
            let prefix = if name == "six" { "fd00::/126" } else { "10.0.0.0/29" };
            let spec = PoolSpec::new(name, segment(bridge), prefix.parse().unwrap());
            Pool::new(PoolSpec { cooldown_bypass: self.bypass, ..spec }).unwrap()
        };
        Pools::new(POOLS.map(pool).to_vec()).unwrap()
    }

    /// Who has to acknowledge a release, and for how long it is waited for.
    fn subscribers(self) -> Vec<(Arc<str>, Duration)> {
        let all = [("proxy", 300), ("firewall", 1200)].into_iter().filter(|_| self.subscribers);
        all.map(|(name, seconds)| (Arc::from(name), Duration::from_secs(seconds))).collect()
    }
}

/// Where commits cost little: what is tested is not the disk.
fn fast_dir() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let now = Now {
            boot: Duration::from_secs(100_000),
            wall: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        let mut world = Self {
            setup,
            dir: fast_dir(),
            engine: Engine::default(),
            store: None,
            live: LiveSet::default(),
            phase: Phase::Down,
            unread: Vec::new(),
            known_ports: BTreeMap::new(),
            sources: [Asked::new(setup.runtime), Asked::new(setup.directory)],
            node: Node::default(),
            now,
            boot: 1,
            opened: false,
            fails: false,
            lag: false,
            drained: true,
            frames: 0,
            told: Vec::new(),
            asked: Vec::new(),
            given: BTreeMap::new(),
            gave_back: BTreeMap::new(),
            shadow: BTreeMap::new(),
        };
        world.start();
        world.end_boot_pass();
        world
    }

    /// The ledger looks at what it was told, as it does before each call.
    fn drain(&mut self) {
        if self.phase == Phase::Down {
            return;
        }
        loop {
            let changes = self.live.changes().take(2);
            if changes.is_empty() {
                break;
            }
            let again = changes.clone();
            if self.apply(&Command::Look(changes)).is_err() {
                self.live.changes().put_back(Changes { known: true, ..again });
            }
        }
        self.drained = true;
        self.ports_are_right();
    }

    /// The ledger looks before it takes a call, unless what happened came in between.
    fn before_call(&mut self) {
        if !std::mem::take(&mut self.lag) {
            self.drain();
        }
        self.lag = false;
    }

    /// No two things happen at one moment.
    fn later(&mut self) {
        self.now.boot += Duration::from_millis(1);
    }

    /// Asks the agent, if it runs.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this call")]
    fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        if self.phase == Phase::Down {
            return Err(Refusal::new(Reason::Stopping, "it does not run"));
        }
        self.before_call();
        self.apply(&command)
    }

    /// Applies, commits (or fails to) and checks what must hold after every step.
    fn apply(&mut self, command: &Command) -> Result<Reply, Refusal> {
        self.later();
        let before = self.contents();
        let Applied { result, changes, notices: _ } =
            self.engine.apply(command.clone(), &self.live, self.now);
        if std::mem::take(&mut self.fails) {
            self.engine.undo(&changes);
            assert_eq!(self.contents(), before, "a failed commit left something behind");
            assert_eq!(self.engine.check(), Vec::<String>::new());
            self.engine.look_again(&changes);
            self.live.changes().tell(|changes| changes.known = true);
            return Err(Refusal::new(Reason::StoreUnwritable, "as the test says"));
        }
        let store = self.store.as_mut().unwrap();
        store.commit(&changes, self.engine.high_water(), self.now).unwrap();
        for change in &changes {
            if let Write::Address(change) = change {
                self.takes_port(change, command);
            }
        }
        for change in &changes {
            if let Write::Address(change) = change {
                self.judge(change, command);
            }
        }
        assert_eq!(self.engine.check(), Vec::<String>::new());
        let mut on_disk = self.store.as_ref().unwrap().read_again().unwrap();
        on_disk.rows.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(on_disk, self.contents(), "the store has something else");
        self.children_are_apart();
        result
    }
}
