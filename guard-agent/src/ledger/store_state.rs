//! The ledger with and without a store: what it does when its store is lost, and how it gets one
//! again.
//!
//! A ledger without a store refuses everything; it never takes an empty table for the truth. Where
//! the store was lost while the agent ran, the engine still has all that was acknowledged, and a
//! recovery writes that.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

use guard_core::lease::{
    Contents, Engine, Generation, HighWater, LeaseFilter, Place, Write,
    command::{Change, Command, Reason, Refusal, Reply},
};
use jiff::Timestamp;

use super::{AfterCommit, Writer, trouble::AFTER_FAILURE};
use crate::{
    clock,
    store::{
        Boot, HandedIn, KernelHolder, Known, Recovered, Snapshot, Store, StoreError, epoch_of,
        recover,
    },
};

/// The store, or why there is none.
pub(super) enum StoreState {
    Open(Box<Store>),
    Lost(StoreFault),
}

/// A store that is not there to be written.
#[derive(Clone, Debug, Default)]
pub struct StoreFault {
    /// Where it is, or should be.
    pub path: PathBuf,
    /// The running boot.
    pub boot_id: String,
    /// What is wrong, and what to do.
    pub why: String,
    /// It may be opened once the disk is writable again.
    pub passes: bool,
    /// The engine knows the leases, since the store was lost while it ran.
    pub in_memory: bool,
    /// Above what the store counts of its opens.
    pub epoch: u64,
}

/// What a recovery begins with.
#[derive(Debug, Default)]
pub struct Recovery {
    /// A backup.
    pub from: Option<HandedIn>,
    /// Addresses that the kernel has a holder for.
    pub kernel: Vec<KernelHolder>,
    /// Only say what would come of it.
    pub dry_run: bool,
}

impl StoreFault {
    /// The store could not be opened; an agent can run without it. Nothing where it cannot: the
    /// file is somebody else's, in use, or from a newer agent.
    ///
    /// # Errors
    /// What should end the agent.
    pub fn of(error: StoreError, path: &Path, boot: &Boot) -> Result<Self, StoreError> {
        let passes = match &error {
            StoreError::Locked { .. } | StoreError::NotAStore { .. } | StoreError::Newer { .. } => {
                return Err(error);
            }
            StoreError::Missing { .. } | StoreError::Damaged { .. } | StoreError::Behind { .. } => {
                false
            }
            StoreError::Marker { .. } | StoreError::Unwritable { .. } | StoreError::Io { .. } => {
                true
            }
        };
        Ok(Self {
            path: path.to_owned(),
            boot_id: boot.id.clone(),
            why: error.to_string(),
            passes,
            in_memory: false,
            epoch: epoch_of(path, boot),
        })
    }

    /// The store can be read, and more was handed out than it knows of.
    fn of_the_past(store: Store, has: Generation, highest: Generation) -> Self {
        let why = format!(
            "the lease store {} is an older copy: the last generation that it knows of is {has}, and \
             {highest} was handed out; recover with `guardctl recover`, which keeps what it has and \
             quarantines what the kernel knows besides",
            store.path().display()
        );
        Self::of_open(store, why, false)
    }

    /// The store can be read, and cannot be gone on with.
    fn of_open(store: Store, why: String, passes: bool) -> Self {
        let (path, epoch) = (store.path().to_owned(), store.epoch() + 1);
        if let Err(error) = store.close() {
            tracing::debug!(%error, "closing the lease store");
        }
        let boot_id = clock::boot_id().unwrap_or_default();
        Self { path, boot_id, why, passes, in_memory: false, epoch }
    }

    pub(super) fn refusal(&self) -> Refusal {
        let reason = if self.passes { Reason::StoreUnwritable } else { Reason::StoreDamaged };
        let retry_after = self.passes.then_some(AFTER_FAILURE);
        Refusal { reason, message: self.why.clone(), retry_after }
    }

    fn boot(&self) -> Boot {
        Boot { id: self.boot_id.clone(), now: clock::now() }
    }
}

/// What a store that can be read is worth, beside the generations that others know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It knows of all that was handed out.
    Current,
    /// It has given nothing, and this generation was handed out: the right one is missing.
    Missing(Generation),
    /// It is an older copy, and this generation was handed out since.
    OfThePast(Generation),
}

impl Worth {
    /// What can be no generation, at this time, counts only where the store has given nothing.
    pub fn of(high: &HighWater, given: &[Generation], now: Timestamp) -> Self {
        let has = high.generation;
        if high.gave_nothing() {
            // Its own seed may have been told.
            let others = given.iter().copied().filter(|given| *given > 0 && *given != has);
            return others.max().map_or(Self::Current, Self::Missing);
        }
        let limit = high.limit(now);
        let known = given.iter().copied().filter(|given| *given <= limit).max();
        known.filter(|known| *known > has).map_or(Self::Current, Self::OfThePast)
    }
}

/// The generations that anyone knows to have been handed out.
fn given(after_commit: &[Box<dyn AfterCommit>]) -> Vec<Generation> {
    after_commit.iter().flat_map(|hook| hook.given()).collect()
}

/// Opens the store at `path`. Where there is none, it makes one only if nobody knows of leases.
///
/// # Errors
/// As [`Store::open`].
pub fn open(path: &Path, boot: &Boot, given: &[Generation]) -> Result<Store, StoreError> {
    let highest = given.iter().copied().max().unwrap_or(0);
    if highest == 0 {
        return Store::open(path, boot);
    }
    if !Store::left_a_trace(path) {
        return Err(StoreError::missing(path, highest));
    }
    Store::open(path, boot).map_err(StoreError::of_ours)
}

impl Writer {
    /// Takes a store over: its rows are the truth from now on, and everyone is told. Unless it is
    /// an old copy, or cannot be written: then it counts as lost.
    pub(super) fn install(&mut self, mut store: Store) {
        let now = clock::now();
        let mut restored = store.take_restored();
        let carried = restored.carry.is_some();
        let given = given(&self.after_commit);
        let high = &mut restored.high_water;
        let (has, limit) = (high.generation, high.limit(now.wall));
        match Worth::of(high, &given, now.wall) {
            Worth::Current => {}
            Worth::Missing(highest) => {
                let error = StoreError::missing(store.path(), highest);
                return self.lose(StoreFault::of_open(store, error.to_string(), false));
            }
            Worth::OfThePast(highest) => {
                return self.lose(StoreFault::of_the_past(store, has, highest));
            }
        }
        let known = given.iter().any(|given| *given > 0 && *given <= limit);
        self.boot.store(high.boot, Ordering::Relaxed);
        if carried || !known {
            high.go_on_from(now.wall);
        }
        let raised = high.generation > has;
        let (mut engine, changes, notices) = Engine::restore(self.pools.clone(), restored);
        if (carried || raised || !changes.is_empty())
            && let Err(error) = store.commit(&changes, engine.high_water(), now)
        {
            let passes = !error.is_damage();
            return self.lose(StoreFault::of_open(store, error.to_string(), passes));
        }
        self.tell(&notices);
        let leases: Vec<_> = engine.leases(&LeaseFilter::default()).cloned().collect();
        for hook in &mut self.after_commit {
            hook.restored(&leases);
        }
        engine.set_subscribers(&self.subscribers);
        let high = engine.high_water();
        self.correct(&given, limit, high.generation);
        // Of one that has not given any, nobody needs to know once it is gone.
        for hook in self.after_commit.iter_mut().filter(|_| !high.gave_nothing()) {
            hook.handed_out(high.generation);
        }
        // What the node has is asked for anew: this engine knows nothing of it.
        self.changes.tell(|changes| (changes.hosts, changes.known) = (true, true));
        self.engine = engine;
        self.state = StoreState::Open(Box::new(store));
        *self.fault.write() = None;
        self.trouble.over();
    }

    /// What cannot be a generation that was handed out is damaged, and is written anew.
    fn correct(&mut self, given: &[Generation], limit: Generation, highest: Generation) {
        let Some(damaged) = given.iter().copied().filter(|given| *given > limit).max() else {
            return;
        };
        tracing::error!(
            severity = "critical",
            damaged,
            highest,
            "the highest generation, as the kernel has it, is damaged; it is written anew from the store"
        );
        for hook in &mut self.after_commit {
            hook.correct(highest);
        }
    }

    /// There is no store (any more).
    pub(super) fn lose(&mut self, fault: StoreFault) {
        if self.trouble.lost(&fault.why, Instant::now()) && !fault.passes {
            tracing::error!(why = fault.why, "the lease store is lost: nothing is handed out");
        }
        *self.fault.write() = Some(fault.refusal());
        self.state = StoreState::Lost(fault);
    }

    /// The open store turned out to be damaged.
    pub(super) fn lose_open(&mut self, what: &str) {
        let StoreState::Open(store) = &self.state else { return };
        let path = store.path().to_owned();
        let why = format!(
            "the lease store {} is damaged: {what}; the leases are in memory still, \
             `guardctl recover` writes them anew",
            path.display()
        );
        let boot_id = clock::boot_id().unwrap_or_default();
        let epoch = store.epoch() + 1;
        self.lose(StoreFault { path, boot_id, why, passes: false, in_memory: true, epoch });
    }

    /// Once a second: opens a store that could not be opened for a fault that passes, or looks
    /// whether one that could not be written can be again.
    pub(super) fn try_again(&mut self) {
        if !self.trouble.try_now(Instant::now()) {
            return;
        }
        let fault = match &self.state {
            StoreState::Lost(fault) if fault.passes => fault.clone(),
            StoreState::Lost(_) => return,
            StoreState::Open(_) => {
                // Its failure is noted where it happens.
                let _ = self.commit(&[], clock::now());
                return;
            }
        };
        let boot = fault.boot();
        let store = match open(&fault.path, &boot, &given(&self.after_commit)) {
            Ok(mut store) => {
                store.raise_epoch(fault.epoch);
                store
            }
            Err(error) => {
                // What would have ended the agent at its start may pass now.
                if let Ok(other) = StoreFault::of(error, &fault.path, &boot)
                    && other.why != fault.why
                {
                    self.lose(other);
                }
                return;
            }
        };
        self.install(store);
        if matches!(self.state, StoreState::Open(_)) {
            tracing::info!("the lease store can be opened again");
            self.recheck();
        }
    }

    /// Whether there is a store.
    fn loss_refusal(&self) -> Result<(), Refusal> {
        match &self.state {
            StoreState::Lost(fault) => Err(fault.refusal()),
            StoreState::Open(_) => Ok(()),
        }
    }

    /// Whether the engine knows the leases.
    pub(super) fn known(&self) -> Result<(), Refusal> {
        match &self.state {
            StoreState::Lost(fault) if !fault.in_memory => Err(fault.refusal()),
            StoreState::Lost(_) | StoreState::Open(_) => Ok(()),
        }
    }

    pub(super) fn preview(&mut self, command: Command) -> Result<Reply, Refusal> {
        match &self.state {
            StoreState::Lost(fault) => Err(fault.refusal()),
            StoreState::Open(_) => self.engine.preview(command, &*self.view, clock::now()),
        }
    }

    /// What is damaged on disk is lost from then on, before anything is written beside it.
    pub(super) fn check_store(&mut self) -> Result<Vec<String>, Refusal> {
        let store = match &self.state {
            StoreState::Lost(fault) => return Err(fault.refusal()),
            StoreState::Open(store) => store,
        };
        let Contents { rows, subnets, interfaces } = match store.read_again() {
            Ok(contents) => contents,
            Err(error) => {
                if let StoreError::Damaged { what, .. } = &error {
                    self.lose_open(what);
                    self.loss_refusal()?;
                }
                return Ok(vec![error.to_string()]);
            }
        };
        let mut on_disk: std::collections::HashMap<_, _> = rows.into_iter().collect();
        let mut wrong = Vec::new();
        if !self.engine.subnets().eq(&subnets) {
            wrong.push("the rows of subnets are others".to_owned());
        }
        if !self.engine.interfaces().eq(&interfaces) {
            wrong.push("the rows of interface names are others".to_owned());
        }
        for (place, row) in self.engine.rows() {
            let Place { segment, address } = &place;
            match on_disk.remove(&place) {
                Some(stored) if stored == *row => {}
                Some(_) => wrong.push(format!("the row of {address} on {segment} is another")),
                None => wrong.push(format!("the row of {address} on {segment} is missing")),
            }
        }
        let strangers = on_disk.keys();
        wrong.extend(strangers.map(|place| {
            format!("there is a row of {} on {} that no lease has", place.address, place.segment)
        }));
        wrong.sort();
        Ok(wrong)
    }

    pub(super) fn snapshot(&self) -> Result<Result<Snapshot, StoreError>, Refusal> {
        match &self.state {
            StoreState::Lost(fault) => Err(fault.refusal()),
            StoreState::Open(store) => Ok(store.snapshot()),
        }
    }

    /// Makes a new store and goes on with it.
    pub(super) fn recover(
        &mut self,
        ask: Recovery,
    ) -> Result<Result<Recovered, StoreError>, Refusal> {
        let Recovery { from, mut kernel, dry_run } = ask;
        for KernelHolder { binding, .. } in &mut kernel {
            // The link that has the number now is the one that the holder was written for.
            binding.device = binding.ifindex.and_then(|ifindex| self.view.device(ifindex));
        }
        let fault = match &self.state {
            StoreState::Open(_) if from.is_none() => {
                let message = "the store is well: there is nothing to recover; --from FILE adds \
                               what a backup has and the store does not";
                return Err(Refusal::new(Reason::StoreHealthy, message));
            }
            StoreState::Open(store) => StoreFault {
                path: store.path().to_owned(),
                boot_id: clock::boot_id().unwrap_or_default(),
                why: "it is being recovered; ask again".to_owned(),
                passes: true,
                in_memory: true,
                epoch: store.epoch() + 1,
            },
            StoreState::Lost(fault) => fault.clone(),
        };
        let memory = fault.in_memory.then(|| (self.engine.contents(), self.engine.high_water()));
        let given = given(&self.after_commit);
        let known = Known { memory, kernel, epoch: fault.epoch, given };
        let (path, boot) = (fault.path.clone(), fault.boot());
        if !dry_run && let StoreState::Open(_) = &self.state {
            // Whatever comes of the recovery, the next second opens what is there then.
            let lost = StoreState::Lost(fault.clone());
            if let StoreState::Open(store) = std::mem::replace(&mut self.state, lost)
                && let Err(error) = store.close()
            {
                tracing::warn!(%error, "closing the lease store");
            }
        }
        let recovered = recover(&path, from.as_ref(), known, &boot, dry_run);
        if dry_run || recovered.is_err() {
            if let StoreState::Lost(fault) = &self.state {
                self.trouble.lost(&fault.why, Instant::now());
            }
            return Ok(recovered);
        }
        let store = match Store::open(&path, &boot) {
            Ok(store) => store,
            Err(error) => {
                // It is there, and is opened as soon as that can be.
                self.lose(StoreFault { why: error.to_string(), passes: true, ..fault });
                return Ok(Err(error));
            }
        };
        self.install(store);
        self.loss_refusal()?;
        tracing::warn!(report = ?recovered, "the lease store was recovered");
        self.recheck();
        Ok(recovered)
    }

    /// What is live and in no row is quarantined before anything is handed out.
    fn recheck(&mut self) {
        let now = clock::now();
        let applied = self.engine.apply(Command::RecheckAll, &*self.view, now);
        if self.commit(&applied.changes, now).is_err() {
            self.engine.undo(&applied.changes);
            return;
        }
        let told: Vec<Change> = applied.changes.iter().filter_map(Write::change).collect();
        for hook in &mut self.after_commit {
            hook.committed(&told, now);
        }
        self.tell(&applied.notices);
    }
}
