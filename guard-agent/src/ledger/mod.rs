//! The ledger: engine and store behind one thread that writes.
//!
//! Whoever wants something sends it to the thread and waits. The thread takes everything that
//! waits, applies it, writes it in one transaction, tells the [`AfterCommit`] hooks, and only
//! then answers: nobody is told of anything that is not on disk and in the kernel. While one
//! transaction waits for the disk, the next batch gathers by itself; there is no timer for it.

mod liveness;
mod store_state;
mod trouble;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use guard_core::{
    evidence::{Evidence, EvidenceView},
    lease::{
        Engine, Generation, InterfaceName, Lease, LeaseFilter, Notice, Place, PoolStatus, Pools,
        Standing, Stretch, StretchOf, Subnet,
        command::{Change, Command, Reason, Refusal, Reply},
    },
    time::Now,
};
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use self::writer::Writer;
pub use self::{
    liveness::writer_answers,
    store_state::{Recovery, StoreFault, Worth, open},
};
pub(crate) use crate::store::{KernelHolder, Recovered};
use crate::{
    failpoint,
    live::ChangeQueue,
    store::{Snapshot, Store, StoreError},
    supervisor::panicked,
};

/// How many calls may wait before the next one has to.
const QUEUE: usize = 1024;

/// What is known of addresses, shared between threads.
pub type View = Arc<dyn EvidenceView + Send + Sync>;

/// Whoever has to know of a change before the caller does: kernel bindings, the event stream,
/// metrics. Called on the ledger's thread, so it must not wait for the ledger.
pub trait AfterCommit: Send {
    /// All leases, before anything else, and once more after a recovery of the store.
    fn restored(&mut self, leases: &[Arc<Lease>]);

    /// What was committed, in order. The callers get their replies afterwards.
    fn committed(&mut self, changes: &[Change], now: Now);

    /// What no lease's state shows.
    fn noticed(&mut self, _notices: &[Notice]) {}

    /// Generations that were handed out, as far as it knows, 0 for none: a store that knows less is
    /// an old copy.
    fn given(&self) -> Vec<Generation> {
        Vec::new()
    }

    /// No generation above this one was handed out. Once for each commit, after
    /// [`Self::committed`].
    fn handed_out(&mut self, _generation: Generation) {}

    /// What it returns from [`Self::given`] is damaged: this is the highest one.
    fn correct(&mut self, _generation: Generation) {}
}

/// The ledger's thread did not come up.
#[derive(Debug, thiserror::Error)]
#[error("starting the ledger's thread: {0}")]
pub struct LedgerError(#[from] std::io::Error);

/// A handle; clones are the same ledger.
#[derive(Clone)]
pub struct Ledger {
    requests: mpsc::Sender<Request>,
    view: View,
    epoch: u64,
    fault: Arc<RwLock<Option<Refusal>>>,
    trouble: watch::Receiver<Option<String>>,
    boot: Arc<AtomicU64>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the thread is asked.
enum Request {
    Call(Command, oneshot::Sender<Result<Reply, Refusal>>),
    /// What a command would return.
    Preview(Command, oneshot::Sender<Result<Reply, Refusal>>),
    /// Leases that somebody has.
    Reservations(oneshot::Sender<Result<Vec<Arc<Lease>>, Refusal>>),
    Leases(LeaseFilter, oneshot::Sender<Result<Vec<Arc<Lease>>, Refusal>>),
    Stretch(StretchOf, oneshot::Sender<Result<Stretch, Refusal>>),
    Pools(oneshot::Sender<Result<Vec<PoolStatus>, Refusal>>),
    /// How an address stands to its pool.
    Standing(Place, oneshot::Sender<Result<Standing, Refusal>>),
    /// Those after an identifier, at most so many.
    Subnets(Option<Arc<str>>, usize, oneshot::Sender<Result<Vec<Arc<Subnet>>, Refusal>>),
    /// Those after a name, at most so many.
    Interfaces(Option<Arc<str>>, usize, oneshot::Sender<Result<Vec<Arc<InterfaceName>>, Refusal>>),
    /// Looks for contradictions within the engine.
    Check(oneshot::Sender<Vec<String>>),
    /// Compares the store with the engine.
    CheckStore(oneshot::Sender<Result<Vec<String>, Refusal>>),
    Snapshot(oneshot::Sender<Result<Result<Snapshot, StoreError>, Refusal>>),
    Recover(Recovery, oneshot::Sender<Result<Result<Recovered, StoreError>, Refusal>>),
    Stop,
}

impl Ledger {
    /// Restores the engine from the store and starts the thread that owns both. When it returns,
    /// the hooks know all leases, and what had to be carried over is on disk; where that could
    /// not be written, it has no store yet, as after [`Ledger::start_without`].
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        pools: Pools,
        store: Store,
        view: View,
        changes: Arc<ChangeQueue>,
        after_commit: Vec<Box<dyn AfterCommit>>,
    ) -> Result<Self, LedgerError> {
        let epoch = store.epoch();
        let (mut writer, requests) = Writer::new(pools, Arc::clone(&view), changes, after_commit);
        writer.install(store);
        Self::spawn(writer, requests, view, epoch)
    }

    /// Starts the thread without a store: it refuses everything, until a recovery makes a store or
    /// the fault that keeps it from being opened has ended.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start_without(
        pools: Pools,
        fault: StoreFault,
        view: View,
        changes: Arc<ChangeQueue>,
        after_commit: Vec<Box<dyn AfterCommit>>,
    ) -> Result<Self, LedgerError> {
        let epoch = fault.epoch;
        let (mut writer, requests) = Writer::new(pools, Arc::clone(&view), changes, after_commit);
        writer.lose(fault);
        Self::spawn(writer, requests, view, epoch)
    }

    fn spawn(
        writer: Writer,
        requests: mpsc::Sender<Request>,
        view: View,
        epoch: u64,
    ) -> Result<Self, LedgerError> {
        let (fault, trouble) = (Arc::clone(&writer.fault), writer.told.clone());
        let boot = Arc::clone(&writer.boot);
        // Built here, where its failure can be told.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || runtime.block_on(failpoint::with_panic("ledger", writer.run())))?;
        Ok(Self {
            requests,
            view,
            epoch,
            fault,
            trouble,
            boot,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Carries out a command. When it returns, what it changed is on disk and the hooks know.
    ///
    /// # Errors
    /// The engine refuses, or the store cannot be written; then nothing has changed.
    pub async fn call(&self, command: Command) -> Result<Reply, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Call(command, answer), answered).await?
    }

    /// The leases that match, with the evidence for each as it is now.
    ///
    /// # Errors
    /// The ledger has ended.
    pub async fn leases(
        &self,
        filter: LeaseFilter,
    ) -> Result<Vec<(Arc<Lease>, Vec<Evidence>)>, Refusal> {
        let (answer, answered) = oneshot::channel();
        let leases = self.ask(Request::Leases(filter, answer), answered).await??;
        let with_evidence = |lease: Arc<Lease>| {
            let evidence = Engine::evidence_of(&lease, &*self.view);
            (lease, evidence)
        };
        Ok(leases.into_iter().map(with_evidence).collect())
    }

    /// The next leases in an order. Other requests have their turns between two of these, however
    /// many leases there are.
    ///
    /// # Errors
    /// The ledger has ended, or does not know the leases.
    pub async fn stretch(&self, of: StretchOf) -> Result<Stretch, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Stretch(of, answer), answered).await?
    }

    /// The leases that somebody has.
    ///
    /// # Errors
    /// The ledger has ended, or does not know the leases.
    pub async fn reservations(&self) -> Result<Vec<Arc<Lease>>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Reservations(answer), answered).await?
    }

    /// All pools.
    ///
    /// # Errors
    /// The ledger has ended.
    pub async fn pools(&self) -> Result<Vec<PoolStatus>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Pools(answer), answered).await?
    }

    /// How an address stands to its pool, the host's addresses, child subnets and what is held back
    /// being taken out of it.
    ///
    /// # Errors
    /// The ledger has ended, or does not know the leases.
    pub async fn standing(&self, place: Place) -> Result<Standing, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Standing(place, answer), answered).await?
    }

    /// The child subnets after an identifier, in the order of these, at most so many.
    ///
    /// # Errors
    /// The ledger has ended, or does not know the leases.
    pub async fn subnets(
        &self,
        after: Option<Arc<str>>,
        most: usize,
    ) -> Result<Vec<Arc<Subnet>>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Subnets(after, most, answer), answered).await?
    }

    /// The reserved interface names after a name, in their order, at most so many.
    ///
    /// # Errors
    /// As [`Ledger::subnets`].
    pub async fn interfaces(
        &self,
        after: Option<Arc<str>>,
        most: usize,
    ) -> Result<Vec<Arc<InterfaceName>>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Interfaces(after, most, answer), answered).await?
    }

    /// What a command would return. Nothing is changed.
    ///
    /// # Errors
    /// As [`Ledger::call`].
    pub async fn preview(&self, command: Command) -> Result<Reply, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Preview(command, answer), answered).await?
    }

    /// Reads the store again and compares it with the engine. Empty is good.
    ///
    /// # Errors
    /// The ledger has ended, or has no store.
    pub async fn check_store(&self) -> Result<Vec<String>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::CheckStore(answer), answered).await?
    }

    /// The store as it is now.
    ///
    /// # Errors
    /// The ledger has ended or has no store; the store cannot be read.
    pub async fn snapshot(&self) -> Result<Result<Snapshot, StoreError>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Snapshot(answer), answered).await?
    }

    /// Makes a new store from what is left, and goes on with it.
    ///
    /// # Errors
    /// The ledger has ended, or the store is well; the backup is none, or the new store cannot be
    /// written.
    pub async fn recover(&self, ask: Recovery) -> Result<Result<Recovered, StoreError>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Recover(ask, answer), answered).await?
    }

    /// Why there is no store, if there is none.
    pub fn fault(&self) -> Option<Refusal> {
        self.fault.read().clone()
    }

    /// Why the store cannot be written, or is not there; nothing while all is well.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// What within the engine contradicts itself; empty is good.
    ///
    /// # Errors
    /// The ledger has ended.
    pub async fn check(&self) -> Result<Vec<String>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Check(answer), answered).await
    }

    /// Counts the opens of the store: with a counter of one's own it makes numbers that grow over
    /// restarts.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the running boot: leases with a lower one are of an earlier boot.
    pub fn boot(&self) -> u64 {
        self.boot.load(Ordering::Relaxed)
    }

    /// Whether the thread still answers.
    pub fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Replies to what was asked before, closes the store and ends the thread.
    pub async fn shutdown(&self) {
        let _ = self.requests.send(Request::Stop).await;
        if let Err(why) = self.ended().await {
            tracing::error!(why, "the ledger's thread did not stop well");
        }
    }

    /// Waits until the thread has ended, whatever ended it.
    ///
    /// # Errors
    /// What it said in its panic, to the first that asks.
    pub async fn ended(&self) -> Result<(), String> {
        self.requests.closed().await;
        // Held while it is waited for: what has closed its inbox may not have closed the store yet.
        let mut thread = self.thread.lock().await;
        let Some(handle) = thread.take() else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || handle.join()).await;
        joined.map_err(|error| error.to_string())?.map_err(|panic| panicked(&*panic))
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<T>) -> Result<T, Refusal> {
        let ended =
            || Refusal::new(Reason::Stopping, "the lease ledger has ended; see the agent's log");
        self.requests.send(request).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

#[cfg(test)]
mod tests;
