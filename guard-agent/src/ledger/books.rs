//! With a store and without one: what the ledger does when its store is lost, and how it gets one
//! again.
//!
//! A ledger without a store refuses everything; it never takes an empty table for the truth. Where
//! the store was lost while the agent ran, the engine still has all that was acknowledged, and a
//! recovery writes that.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use super::{
    Lifecycle, Writer,
    writer::{AFTER_FAILURE, refusal},
};
use crate::{
    clock::{self, Now},
    lease::{
        Contents, Engine, Generation, LeaseFilter, Place, Write,
        command::{Change, Command, Reason, Refusal, Reply},
    },
    store::{
        Boot, CommitError, KernelHolder, Known, Recovered, Store, StoreError, epoch_of, recover,
    },
};

/// The store, or why there is none.
pub(super) enum Books {
    Open(Box<Store>),
    Lost(Loss),
}

/// A store that is not there to be written.
#[derive(Clone, Debug, Default)]
pub struct Loss {
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
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// A backup.
    pub from: Option<PathBuf>,
    /// Addresses that the kernel has a holder for.
    pub kernel: Vec<KernelHolder>,
    /// Only say what would come of it.
    pub dry_run: bool,
}

impl Loss {
    /// The store could not be opened; an agent can run without it. Nothing where it cannot: the
    /// file is somebody else's, in use, or from a newer agent.
    ///
    /// # Errors
    /// What should end the agent.
    pub fn of(error: StoreError, path: &Path, boot: &Boot) -> Result<Self, StoreError> {
        let passes = match error {
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
        let path = store.path().to_owned();
        let epoch = store.epoch() + 1;
        if let Err(error) = store.close() {
            tracing::warn!(%error, "closing the lease store");
        }
        let why = format!(
            "the lease store {} is an older copy: the last generation that it knows of is {has}, and \
             {highest} was handed out; recover with `guardctl recover`, which keeps what it has and \
             quarantines what the kernel knows besides",
            path.display()
        );
        let boot_id = clock::boot_id().unwrap_or_default();
        Self { path, boot_id, why, passes: false, in_memory: false, epoch }
    }

    pub(super) fn refusal(&self) -> Refusal {
        Refusal {
            reason: Reason::StoreDamaged,
            message: self.why.clone(),
            retry_after: self.passes.then_some(AFTER_FAILURE),
        }
    }

    fn boot(&self) -> Boot {
        Boot { id: self.boot_id.clone(), now: Now::read() }
    }
}

/// The highest generation that anyone knows to have been handed out.
fn highest(observers: &[Box<dyn Lifecycle>]) -> Generation {
    observers.iter().map(|observer| observer.highest()).max().unwrap_or(0)
}

impl Writer {
    /// Takes a store over: its rows are the truth from now on, and everyone is told.
    /// Unless it is an old copy: then it is as good as lost.
    pub(super) fn install(&mut self, mut store: Store) -> Result<(), CommitError> {
        let mut restored = store.take_restored();
        let (high, highest) = (&mut restored.high_water, highest(&self.observers));
        if high.generation == high.seed {
            // A new store has given none yet, and starts above what its predecessor gave.
            high.generation = high.generation.max(highest);
        } else if high.generation < highest {
            let has = high.generation;
            self.lose(Loss::of_the_past(store, has, highest));
            return Ok(());
        }
        let carried = restored.carry.is_some();
        self.boot.store(restored.high_water.boot, Ordering::Relaxed);
        let (mut engine, changes, notices) = Engine::restore(self.pools.clone(), restored);
        if carried || !changes.is_empty() {
            store.commit(&changes, engine.high_water(), Now::read())?;
        }
        self.tell(&notices);
        let leases: Vec<_> = engine.leases(&LeaseFilter::default()).cloned().collect();
        for observer in &mut self.observers {
            observer.restored(&leases);
        }
        engine.set_subscribers(&self.subscribers);
        for observer in &mut self.observers {
            observer.handed_out(engine.high_water().generation);
        }
        // What the node has is asked for anew: this engine knows nothing of it.
        self.changes.tell(|changes| (changes.hosts, changes.known) = (true, true));
        self.engine = engine;
        self.books = Books::Open(Box::new(store));
        *self.loss.write() = None;
        Ok(())
    }

    /// There is no store (any more).
    pub(super) fn lose(&mut self, loss: Loss) {
        tracing::error!(why = loss.why, "the lease store is lost: nothing is handed out");
        *self.loss.write() = Some(loss.refusal());
        self.books = Books::Lost(loss);
    }

    /// The open store turned out to be damaged.
    pub(super) fn lose_open(&mut self, what: &str) {
        let Books::Open(store) = &self.books else { return };
        let path = store.path().to_owned();
        let why = format!(
            "the lease store {} is damaged: {what}; the leases are in memory still, \
             `guardctl recover` writes them anew",
            path.display()
        );
        let boot_id = clock::boot_id().unwrap_or_default();
        let epoch = store.epoch() + 1;
        self.lose(Loss { path, boot_id, why, passes: false, in_memory: true, epoch });
    }

    /// Opens a store that could not be opened for a fault that passes.
    pub(super) fn try_again(&mut self) {
        let Books::Lost(loss) = &self.books else { return };
        if !loss.passes {
            return;
        }
        let opened = Store::open(&loss.path, &loss.boot());
        if let Ok(store) = opened
            && self.install(store).is_ok()
            && matches!(self.books, Books::Open(_))
        {
            tracing::info!("the lease store can be opened again");
            self.recheck();
        }
    }

    /// Whether there is a store.
    fn loss_refusal(&self) -> Result<(), Refusal> {
        match &self.books {
            Books::Lost(loss) => Err(loss.refusal()),
            Books::Open(_) => Ok(()),
        }
    }

    /// Whether the engine knows the leases.
    pub(super) fn known(&self) -> Result<(), Refusal> {
        match &self.books {
            Books::Lost(loss) if !loss.in_memory => Err(loss.refusal()),
            Books::Lost(_) | Books::Open(_) => Ok(()),
        }
    }

    pub(super) fn preview(&mut self, command: Command) -> Result<Reply, Refusal> {
        match &self.books {
            Books::Lost(loss) => Err(loss.refusal()),
            Books::Open(_) => self.engine.preview(command, &*self.view, Now::read()),
        }
    }

    pub(super) fn probe(&mut self) -> Result<(), Refusal> {
        match &mut self.books {
            Books::Lost(loss) => Err(loss.refusal()),
            Books::Open(store) => {
                let high_water = self.engine.high_water();
                store.commit(&[], high_water, Now::read()).map_err(|error| refusal(&error))
            }
        }
    }

    /// What is damaged on disk is lost from then on, before anything is written beside it.
    pub(super) fn check_store(&mut self) -> Result<Vec<String>, Refusal> {
        let store = match &self.books {
            Books::Lost(loss) => return Err(loss.refusal()),
            Books::Open(store) => store,
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

    pub(super) fn backup(&mut self, to: &Path) -> Result<Result<u64, StoreError>, Refusal> {
        match &self.books {
            Books::Lost(loss) => Err(loss.refusal()),
            Books::Open(store) => Ok(store.backup(to).map(|()| store.rows())),
        }
    }

    /// Makes a new store and goes on with it.
    pub(super) fn recover(
        &mut self,
        ask: Recovery,
    ) -> Result<Result<Recovered, StoreError>, Refusal> {
        let Recovery { from, kernel, dry_run } = ask;
        let loss = match &self.books {
            Books::Open(_) if from.is_none() => {
                let message = "the store is well: there is nothing to recover; --from FILE adds \
                               what a backup has and the store does not";
                return Err(Refusal::new(Reason::StoreHealthy, message));
            }
            Books::Open(store) => Loss {
                path: store.path().to_owned(),
                boot_id: clock::boot_id().unwrap_or_default(),
                why: "it is being recovered; ask again".to_owned(),
                passes: true,
                in_memory: true,
                epoch: store.epoch() + 1,
            },
            Books::Lost(loss) => loss.clone(),
        };
        let memory = loss.in_memory.then(|| (self.engine.contents(), self.engine.high_water()));
        let highest = highest(&self.observers);
        let known = Known { memory, kernel, epoch: loss.epoch, highest };
        let (path, boot) = (loss.path.clone(), loss.boot());
        if !dry_run && let Books::Open(_) = &self.books {
            // Whatever comes of the recovery, the next second opens what is there then.
            if let Books::Open(store) = std::mem::replace(&mut self.books, Books::Lost(loss))
                && let Err(error) = store.close()
            {
                tracing::warn!(%error, "closing the lease store");
            }
        }
        let recovered = recover(&path, from.as_deref(), known, &boot, dry_run);
        if dry_run || recovered.is_err() {
            return Ok(recovered);
        }
        let store = match Store::open(&path, &boot) {
            Ok(store) => store,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = self.install(store) {
            return Err(refusal(&error));
        }
        tracing::warn!(report = ?recovered, "the lease store was recovered");
        self.recheck();
        Ok(recovered)
    }

    /// What is live and in no row is quarantined before anything is handed out.
    fn recheck(&mut self) {
        let now = Now::read();
        let applied = self.engine.apply(Command::RecheckAll, &*self.view, now);
        let Books::Open(store) = &mut self.books else { return };
        if let Err(error) = store.commit(&applied.changes, self.engine.high_water(), now) {
            tracing::error!(%error, "a commit failed");
            self.engine.undo(&applied.changes);
            return;
        }
        let told: Vec<Change> = applied.changes.iter().filter_map(Write::change).collect();
        for observer in &mut self.observers {
            observer.committed(&told, now);
        }
        self.tell(&applied.notices);
    }
}
