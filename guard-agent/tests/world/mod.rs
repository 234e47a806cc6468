//! An engine with its store, and what is true around it.

mod children;
mod truth;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use guard_agent::{
    clock::Now,
    evidence::{Changes, Evidence, EvidenceView},
    lease::{
        Applied, Carry, Contents, Engine, Lease, Owner, Place, Pool, PoolSpec, Pools, Row, State,
        Write,
        command::{Allocate, Command, Reason, Refusal, Reply},
    },
    segment::Segment,
    store::{Boot, Store},
};
use jiff::Timestamp;
use proptest::sample::Index;
use tempfile::TempDir;

use self::truth::{Truth, station};

/// One step of a history. Numbers are indices into small worlds.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Allocate { who: (u8, u8), pools: u8, address: Option<u8>, port: Option<u8> },
    Confirm(Index),
    Bind { of: Index, port: u8 },
    Release(Index),
    ReleaseOwner { sandbox: u8, run: Option<u8> },
    Claim { port: u8, address: u8, six: bool, told: bool },
    Silence { address: u8, six: bool, told: bool },
    PortGone(u8),
    Inventory { who: (u8, u8), address: u8, told: bool },
    Host(u8),
    Quarantine { address: u8, on: bool },
    Carve { id: u8, bits: u8, at: Option<u8>, six: bool },
    Uncarve { id: u8 },
    Name { id: u8, tap: bool },
    Unname { n: u8, tap: bool },
    Link { n: u8, tap: bool, up: bool },
    Pass(u8),
    RecheckAll,
    Restart,
    Kill,
    Reboot,
    NextCommitFails,
}

pub struct World {
    dir: TempDir,
    engine: Engine,
    store: Option<Store>,
    truth: Truth,
    now: Now,
    boot: u32,
    bypass: bool,
    fails: bool,
    /// All generations that were ever told, the last one last.
    told: Vec<u64>,
    /// Active leases that nobody gave back: generation and address.
    kept: Vec<Arc<Lease>>,
}

fn segment() -> Segment {
    Segment::new("br0", 0)
}

/// The n-th address of one of the two pools; some are reserved, some outside.
fn address(n: u8, six: bool) -> IpAddr {
    let text = if six { format!("fd00::{:x}", n % 5) } else { format!("10.0.0.{n}") };
    text.parse().unwrap()
}

fn owner((sandbox, run): (u8, u8)) -> Owner {
    Owner { sandbox: Arc::from(format!("s{sandbox}")), lifecycle: Arc::from(format!("{run}")) }
}

fn pools(bypass: bool) -> Pools {
    let four = PoolSpec {
        cooldown_bypass: bypass,
        ..PoolSpec::new("four", segment(), "10.0.0.0/29".parse().unwrap())
    };
    let six = PoolSpec {
        cooldown_bypass: bypass,
        ..PoolSpec::new("six", segment(), "fd00::/126".parse().unwrap())
    };
    Pools::new(vec![Pool::new(four).unwrap(), Pool::new(six).unwrap()]).unwrap()
}

/// Where commits cost little: what is tested is not the disk.
fn fast_dir() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

impl World {
    pub fn new(bypass: bool) -> Self {
        let now = Now {
            boot: Duration::from_secs(100_000),
            wall: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        let mut world = Self {
            dir: fast_dir(),
            engine: Engine::default(),
            store: None,
            truth: Truth::default(),
            now,
            boot: 1,
            bypass,
            fails: false,
            told: Vec::new(),
            kept: Vec::new(),
        };
        world.open();
        world
    }

    fn open(&mut self) -> Option<Carry> {
        let boot = Boot { id: format!("boot-{}", self.boot), now: self.now };
        let mut store = Store::open(&self.dir.path().join("leases.db"), &boot).unwrap();
        let restored = store.take_restored();
        let carry = restored.carry;
        let (engine, changes, notices) = Engine::restore(pools(self.bypass), restored);
        assert!(notices.is_empty());
        store.commit(&changes, engine.high_water(), self.now).unwrap();
        (self.engine, self.store) = (engine, Some(store));
        self.look(|changes| changes.hosts = true).unwrap();
        carry
    }

    fn generation(&self, of: Index) -> u64 {
        if self.told.is_empty() { 7 } else { *of.get(&self.told) }
    }

    pub fn step(&mut self, op: Op) {
        match op {
            Op::Allocate { who, pools, address: wanted, port } => {
                self.allocate(who, pools, wanted.map(|n| address(n, pools == 2)), port);
            }
            Op::Confirm(of) => {
                let generation = self.generation(of);
                self.fenced(generation, Command::Confirm(generation));
            }
            Op::Bind { of, port } => {
                let generation = self.generation(of);
                self.truth.ports.insert(u32::from(port));
                let station = station(port);
                let port = Some((station.interface, station.ifindex));
                self.fenced(generation, Command::Bind { generation, mac: Some(station.mac), port });
            }
            Op::Release(of) => self.release(of),
            Op::ReleaseOwner { sandbox, run } => {
                let Owner { sandbox, lifecycle } = owner((sandbox, run.unwrap_or_default()));
                let lifecycle = run.map(|_| lifecycle);
                self.kept.retain(|l| l.owner.as_ref().is_none_or(|o| o.sandbox != sandbox));
                let _ = self.run(Command::ReleaseOwner { sandbox, lifecycle });
                self.note_active();
            }
            Op::Claim { port, address: n, six, told } => {
                let address = address(n, six);
                self.truth.claim(address, port);
                if told {
                    self.recheck(address, true);
                }
            }
            Op::Silence { address: n, six, told } => {
                self.truth.silence(address(n, six));
                self.recheck(address(n, six), told);
            }
            Op::PortGone(port) => {
                let places = self.truth.port_gone(port);
                let _ = self.look(|changes| {
                    changes.ended.insert(u32::from(port));
                    changes.places.extend(places.into_iter().map(|address| (segment(), address)));
                });
            }
            Op::Inventory { who, address: n, told } => {
                self.truth.contain(address(n, false), owner(who));
                self.recheck(address(n, false), told);
            }
            Op::Host(n) => {
                self.truth.host = (n % 2 == 0).then(|| address(n, false)).into_iter().collect();
                let _ = self.look(|changes| changes.hosts = true);
            }
            Op::Quarantine { address: n, on } => {
                let (segment, address) = (segment(), address(n, false));
                let _ = self.run(match on {
                    true => Command::Quarantine { segment, address },
                    false => Command::Unquarantine { segment, address },
                });
            }
            Op::Carve { id, bits, at, six } => self.carve(id, bits, at, six),
            Op::Uncarve { id } => self.uncarve(id),
            Op::Name { id, tap } => self.name(id, tap),
            Op::Unname { n, tap } => self.unname(n, tap),
            Op::Link { n, tap, up } => self.link(n, tap, up),
            Op::Pass(minutes) => {
                self.now.boot += Duration::from_secs(60 * u64::from(minutes));
                if self.run(Command::Tick).is_ok() {
                    let due = self.engine.next_deadline();
                    assert!(due.is_none_or(|due| due > self.now.boot), "{due:?}");
                }
            }
            Op::RecheckAll => {
                if self.run(Command::RecheckAll).is_ok() {
                    self.nothing_live_is_free();
                }
            }
            Op::Restart => self.restart(true),
            Op::Kill => self.restart(false),
            Op::Reboot => self.reboot(),
            Op::NextCommitFails => self.fails = true,
        }
    }

    fn recheck(&mut self, address: IpAddr, told: bool) {
        if told {
            let _ = self.run(Command::Look(Changes::of(segment(), address)));
        }
    }

    fn look(&mut self, what: impl FnOnce(&mut Changes)) -> Result<Reply, Refusal> {
        let mut changes = Changes::default();
        what(&mut changes);
        self.run(Command::Look(changes))
    }

    /// Applies, commits (or fails to) and checks what must hold after every step.
    fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        let before = self.contents();
        let Applied { result, changes, notices: _ } =
            self.engine.apply(command, &self.truth, self.now);
        for change in &changes {
            let Write::Address(change) = change else { continue };
            truth::assert_legal(change);
            let was = change.old.as_ref().and_then(Row::lease).map(|lease| lease.state);
            let freed = matches!(was, Some(State::Cooling | State::Quarantined))
                && change.new.as_ref().and_then(Row::lease).is_none();
            let Place { segment, address } = &change.place;
            assert!(!freed || self.truth.evidence(segment, *address).is_empty(), "{address}");
        }
        if std::mem::take(&mut self.fails) {
            self.engine.undo(&changes);
            assert_eq!(self.contents(), before, "a failed commit left something behind");
            assert_eq!(self.engine.check(), Vec::<String>::new());
            return Err(Refusal::new(Reason::StoreUnwritable, "as the test says"));
        }
        let store = self.store.as_mut().unwrap();
        store.commit(&changes, self.engine.high_water(), self.now).unwrap();
        assert_eq!(self.engine.check(), Vec::<String>::new());
        let mut on_disk = self.store.as_ref().unwrap().read_again().unwrap();
        on_disk.rows.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(on_disk, self.contents(), "the store has something else");
        for lease in &self.kept {
            assert!(self.engine_has(lease), "{} was taken from its owner", lease.address);
        }
        self.children_are_apart();
        self.note_active();
        result
    }

    fn engine_has(&self, lease: &Lease) -> bool {
        self.engine.lease_at(&lease.segment, lease.address).is_some_and(|now| {
            now.state == State::Active
                && now.generation == lease.generation
                && now.owner == lease.owner
        })
    }

    fn note_active(&mut self) {
        let rows = self.engine.rows().filter_map(|(_, row)| row.lease().cloned());
        self.kept = rows.filter(|lease| lease.state == State::Active).collect();
    }

    fn contents(&self) -> Contents {
        Contents { rows: self.rows(), ..self.engine.contents() }
    }

    fn rows(&self) -> Vec<(Place, Row)> {
        let mut rows: Vec<_> =
            self.engine.rows().map(|(place, row)| (place, row.clone())).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }

    fn state(&self, address: IpAddr) -> Option<Arc<Lease>> {
        self.engine.lease_at(&segment(), address).cloned()
    }

    fn allocate(&mut self, who: (u8, u8), mask: u8, wanted: Option<IpAddr>, port: Option<u8>) {
        let owner = owner(who);
        let names = [(1, "four"), (2, "six")];
        let names: Vec<Arc<str>> =
            names.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, n)| Arc::from(*n)).collect();
        let ask = Allocate {
            pools: names.clone(),
            sandbox: Arc::clone(&owner.sandbox),
            lifecycle: Arc::clone(&owner.lifecycle),
            address: wanted,
            interface: port.map(|port| station(port).interface),
            ..Allocate::default()
        };
        let before: Vec<_> = self.rows();
        let free: Vec<_> = self.engine.pools().iter().map(|pool| pool.free).collect();
        let result = self.run(Command::Allocate(ask.clone()));
        let was = |address: IpAddr| {
            let row = before.iter().find(|(place, _)| place.address == address);
            row.and_then(|(_, row)| row.lease().cloned())
        };
        match result {
            Ok(Reply::Leases(leases)) => {
                assert_eq!(leases.len(), names.len());
                for lease in leases {
                    assert_eq!(lease.owner.as_ref(), Some(&owner));
                    if self.told.contains(&lease.generation) {
                        let same = was(lease.address).expect("told before");
                        assert_eq!(same.generation, lease.generation);
                        continue;
                    }
                    let adopted = was(lease.address).is_some_and(|l| l.state == State::Active);
                    if !adopted {
                        let pool = usize::from(lease.address.is_ipv6());
                        self.handed_out(&lease, was(lease.address), free[pool], &ask);
                    }
                    self.told.push(lease.generation);
                }
                // Whoever asks again gets the same.
                let again = self.run(Command::Allocate(Allocate { address: None, ..ask }));
                let Ok(Reply::Leases(again)) = again else { return };
                for lease in again {
                    assert!(self.told.contains(&lease.generation), "not the same lease");
                }
            }
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => self.refused(&refusal, &names),
        }
    }

    fn handed_out(&self, lease: &Lease, was: Option<Arc<Lease>>, free: u128, ask: &Allocate) {
        let Lease { address, generation, .. } = *lease;
        assert!(self.told.iter().all(|told| *told < generation), "a generation came twice");
        let stands = |e: &Evidence| e.owner != lease.owner;
        assert!(
            !self.truth.evidence(&segment(), address).iter().any(stands),
            "{address} is live and was handed out"
        );
        assert!(self.engine.subnet_of(&segment(), address).is_none(), "{address} is a subnet's");
        assert!(truth::can_be_handed_out(address) && !self.truth.host.contains(&address));
        if let Some(was) = was {
            assert_eq!(was.state, State::Cooling, "{address}");
            if ask.address == Some(address) {
                assert_eq!(was.owner, lease.owner);
            } else {
                assert!(self.bypass && lease.cooldown_bypassed);
                assert!(free == 0 || self.no_free_left(address), "{address} before a free one");
            }
        }
    }

    /// Free addresses that were passed over turned out to be live.
    fn no_free_left(&self, given: IpAddr) -> bool {
        let pools = self.engine.pools();
        pools.iter().find(|pool| pool.prefix.contains(&given)).is_some_and(|pool| pool.free == 0)
    }

    fn refused(&self, refusal: &Refusal, names: &[Arc<str>]) {
        let exhausted =
            matches!(refusal.reason, Reason::PoolExhausted | Reason::NoConflictFreeAddress);
        if !exhausted {
            return;
        }
        // One of the pools has nothing that could be given, and the reason says why.
        let dry = self.engine.pools().into_iter().any(|pool| {
            let cooling = self.bypass && pool.count(State::Cooling) > usable_cooling(self, &pool);
            names.contains(&pool.name) && pool.free == 0 && !cooling
        });
        assert!(dry, "{refusal}, and there was one");
    }

    fn fenced(&mut self, generation: u64, command: Command) {
        let before = self.rows();
        let owned = before.iter().any(|(_, row)| {
            row.lease().is_some_and(|l| l.generation == generation && l.state.is_owned())
        });
        match self.run(command) {
            Ok(Reply::Leases(leases)) => {
                assert!(owned && leases[0].state == State::Active);
            }
            Ok(Reply::Stale | Reply::NotFound) => {
                assert!(!owned);
                assert_eq!(self.rows(), before);
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    }

    fn release(&mut self, of: Index) {
        let generation = self.generation(of);
        let rows = self.rows();
        let lease = rows.iter().find_map(|(_, row)| {
            row.lease().filter(|l| l.generation == generation && l.state.is_owned())
        });
        let live = lease.is_some_and(|l| !Engine::evidence_of(l, &self.truth).is_empty());
        self.kept.retain(|kept| kept.generation != generation);
        match self.run(Command::Release(generation)) {
            Ok(Reply::Released(state, leases)) => {
                assert_eq!(leases.len(), 1);
                if lease.is_some() {
                    let want = if live { State::Releasing } else { State::Cooling };
                    assert_eq!(state, want);
                } else {
                    assert_eq!(self.rows(), rows, "released twice");
                }
            }
            Ok(Reply::Stale | Reply::NotFound) => {
                assert!(lease.is_none());
                assert_eq!(self.rows(), rows);
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => self.note_active(),
        }
    }

    fn nothing_live_is_free(&self) {
        for address in self.truth.addresses(&segment()) {
            let given = truth::can_be_handed_out(address) && !self.truth.host.contains(&address);
            if given && self.engine.subnet_of(&segment(), address).is_none() {
                let state = self.state(address).map(|lease| lease.state);
                let taken = state.is_some_and(|state| state != State::Cooling);
                assert!(taken, "{address} is live and {state:?}");
            }
        }
    }

    fn restart(&mut self, in_order: bool) {
        self.fails = false;
        let before = self.contents();
        let store = self.store.take().unwrap();
        if in_order {
            store.close().unwrap();
        } else {
            drop(store);
        }
        assert_eq!(self.open(), None);
        assert_eq!(self.contents(), before);
    }

    fn reboot(&mut self) {
        let left = |world: &Self| -> Vec<_> {
            let rows = world.rows().into_iter();
            let left = rows.filter_map(|(place, row)| Some((place, row.lease()?.until?)));
            left.map(|(place, until)| (place, until.saturating_sub(world.now.boot))).collect()
        };
        // The time of the last write is what counts.
        self.fails = false;
        let store = self.store.as_mut().unwrap();
        store.commit([], self.engine.high_water(), self.now).unwrap();
        let before = left(self);
        drop(self.store.take());
        self.boot += 1;
        self.now.boot = Duration::from_secs(10);
        self.truth.reboot();
        assert!(self.open().is_some());
        assert_eq!(left(self), before);
    }
}

/// Cooling addresses that could not be given although the bypass is on: the host has them now.
fn usable_cooling(world: &World, pool: &guard_agent::lease::PoolStatus) -> u64 {
    let of_host = world.truth.host.iter().filter(|address| {
        pool.prefix.contains(*address)
            && world.state(**address).is_some_and(|lease| lease.state == State::Cooling)
    });
    of_host.count() as u64
}
