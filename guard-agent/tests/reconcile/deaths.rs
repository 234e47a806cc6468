//! Whatever an index says that lags behind, and whenever the agent starts again: who lives keeps its
//! lease, and who is dead does not keep it for ever (leases.md rules 5 and 6).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::node::{Directory, Node, listed};
use fastrand::Rng;
use guard_api::proto::directory::{Sandbox, State};

const HISTORIES: u64 = 40;
const STEPS: u32 = 40;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What is true, and what has been.
struct World {
    random: Rng,
    directory: Directory,
    node: Node,
    store: PathBuf,
    socket: PathBuf,
    boot: u32,
    /// Runs are told apart, by all but the index.
    lifecycles: bool,
    /// The running lifecycle of each sandbox, and the generation of its lease.
    running: BTreeMap<&'static str, (String, u64)>,
    /// All that ever ran.
    known: BTreeMap<(String, String), State>,
    /// What the index could have been built from, oldest first.
    past: Vec<BTreeMap<(String, String), State>>,
    runs: u32,
}

impl World {
    fn lifecycle(&mut self) -> String {
        self.runs += 1;
        if self.lifecycles { self.runs.to_string() } else { String::new() }
    }

    async fn begin(&mut self, name: &'static str) {
        self.end(name);
        let run = self.lifecycle();
        let lease = self.node.admit(name, &run).await;
        self.known.insert((name.to_owned(), run.clone()), State::Alive);
        self.running.insert(name, (run, lease.generation));
    }

    fn end(&mut self, name: &str) {
        let Some((run, _)) = self.running.remove(name) else { return };
        let ended = (name.to_owned(), run);
        // Its controller keeps a record of it, or does not.
        if self.random.bool() {
            self.known.insert(ended, State::Dead);
        } else {
            self.known.remove(&ended);
        }
    }

    /// Says the truth to who asks by name, and something older, with gaps, in the index.
    fn say(&mut self) {
        self.past.push(self.known.clone());
        let first = self.past.len().saturating_sub(5);
        let mut index: Vec<Sandbox> = Vec::new();
        for ((name, run), state) in &self.past[self.random.usize(first..self.past.len())] {
            let named = self.random.u8(..4) != 0;
            let mut entry = listed(name, if named { run } else { "" }, *state);
            // By a clock that nobody has set.
            let offset = Duration::from_secs(self.random.u64(..200_000));
            entry.since = match self.random.u8(..3) {
                0 => None,
                1 => Some((std::time::SystemTime::now() - offset).into()),
                _ => Some((std::time::SystemTime::now() + offset).into()),
            };
            if self.random.u8(..4) != 0 {
                index.push(entry);
            }
        }
        let found = self.known.clone();
        self.directory.say(|said| (said.listed, said.found) = (index, found));
    }

    async fn start_again(&mut self) {
        self.node.ledger.shutdown().await;
        self.boot += u32::from(self.random.bool());
        self.node = Node::start(self.boot, &self.store, Some(&self.socket));
    }

    async fn step(&mut self) {
        let name = NAMES[self.random.usize(..NAMES.len())];
        match self.random.u8(..8) {
            0 => self.begin(name).await,
            1 => self.end(name),
            2 => self.start_again().await,
            _ => {
                self.say();
                // Long enough for what it does not speak for to be taken back.
                for _ in 0..4 {
                    self.node.pass().await;
                }
            }
        }
    }

    async fn kept(&self) -> Vec<u64> {
        let leases = self.node.ledger.reservations().await.unwrap();
        leases.iter().map(|lease| lease.generation).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_5_who_lives_keeps_its_lease_whatever_the_index_says() {
    for seed in 0..HISTORIES {
        let dir = tempfile::tempdir().unwrap();
        let (store, socket) = (dir.path().join("leases.db"), dir.path().join("directory.sock"));
        let directory = Directory::serve(&socket);
        let mut world = World {
            random: Rng::with_seed(seed),
            directory,
            node: Node::start(0, &store, Some(&socket)),
            store,
            socket,
            boot: 0,
            lifecycles: !seed.is_multiple_of(4),
            running: BTreeMap::new(),
            known: BTreeMap::new(),
            past: Vec::new(),
            runs: 0,
        };
        for step in 0..STEPS {
            world.step().await;
            let kept = world.kept().await;
            for (name, (run, generation)) in &world.running {
                assert!(kept.contains(generation), "seed {seed}, step {step}: {name}/{run}");
            }
        }
        // The index catches up, and what is over goes.
        let mut listed_now = Vec::new();
        for ((name, run), state) in &world.known {
            listed_now.push(listed(name, run, *state));
        }
        let found = world.known.clone();
        world.directory.say(|said| (said.listed, said.found) = (listed_now, found));
        for _ in 0..5 {
            world.node.pass().await;
        }
        let mut alive: Vec<_> = world.running.values().map(|(_, generation)| *generation).collect();
        let mut kept = world.kept().await;
        alive.sort_unstable();
        kept.sort_unstable();
        assert_eq!(kept, alive, "seed {seed}");
        world.node.ledger.shutdown().await;
    }
}
