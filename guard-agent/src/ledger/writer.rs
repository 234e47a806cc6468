//! The thread that owns the engine and the store.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use guard_core::{
    evidence::Changes,
    lease::{
        Engine, HighWater, Notice, Place, Pools, Write,
        command::{Change, Command, Reason, Refusal, Reply},
    },
    time::Now,
};
use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

use super::{
    AfterCommit, Request, StoreFault, View,
    store_state::StoreState,
    trouble::{AFTER_FAILURE, Trouble},
};
use crate::{
    clock,
    failpoint::{self, Moment},
    live::ChangeQueue,
    store::CommitError,
};

/// How many places are looked at in one transaction at most, so that callers do not wait for ever.
const MOST_PLACES: usize = 4096;

/// How many requests make up a batch at most, so that its first caller does not wait for ever.
const MOST: usize = 1024;

/// Waits no longer than this at once: a timer that runs while the machine sleeps is not
/// `CLOCK_BOOTTIME`, on which the deadlines are.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) struct Writer {
    pub(super) engine: Engine,
    pub(super) pools: Pools,
    pub(super) state: StoreState,
    /// Why there is no store, for those who do not want to wait for the thread.
    pub(super) fault: Arc<RwLock<Option<Refusal>>>,
    pub(super) trouble: Trouble,
    /// Why the store cannot be written, for those who watch it.
    pub(super) told: watch::Receiver<Option<String>>,
    pub(super) subscribers: Vec<(Arc<str>, Duration)>,
    /// The number of the running boot, for those who do not want to wait for the thread.
    pub(super) boot: Arc<AtomicU64>,
    pub(super) view: View,
    /// What the view has learned, and the engine has not looked at yet.
    pub(super) changes: Arc<ChangeQueue>,
    pub(super) after_commit: Vec<Box<dyn AfterCommit>>,
    inbox: mpsc::Receiver<Request>,
}

/// A call that was applied and waits for the commit.
type Waiting = (oneshot::Sender<Result<Reply, Refusal>>, Result<Reply, Refusal>);

#[derive(Default)]
struct Batch {
    /// What the engine has looked at with it.
    looked_at: Changes,
    waiting: Vec<Waiting>,
    changes: Vec<Write>,
    notices: Vec<Notice>,
    /// Questions about the state, answered after the commit.
    questions: Vec<Request>,
    stop: bool,
}

impl Writer {
    /// Without a store yet.
    pub(super) fn new(
        pools: Pools,
        view: View,
        changes: Arc<ChangeQueue>,
        after_commit: Vec<Box<dyn AfterCommit>>,
    ) -> (Self, mpsc::Sender<Request>) {
        let (requests, inbox) = mpsc::channel(super::QUEUE);
        let engine = Engine::new(pools.clone(), HighWater::default());
        let (state, fault) = (StoreState::Lost(StoreFault::default()), Arc::default());
        let boot = Arc::default();
        let subscribers = Vec::new();
        let (trouble, told) = Trouble::new();
        let writer = Self {
            engine,
            pools,
            state,
            fault,
            trouble,
            told,
            subscribers,
            boot,
            view,
            changes,
            after_commit,
            inbox,
        };
        (writer, requests)
    }

    pub(super) async fn run(mut self) {
        loop {
            let mut batch = Batch::default();
            let rests = self.trouble.rests(Instant::now());
            let (wait, changes) = (self.wait(), Arc::clone(&self.changes));
            tokio::select! {
                request = self.inbox.recv() => match request {
                    Some(first) => {
                        self.look(&mut batch);
                        self.take(first, &mut batch);
                        // Everything that waits goes into one transaction.
                        for _ in 1..MOST {
                            let Ok(next) = self.inbox.try_recv() else { break };
                            self.look(&mut batch);
                            self.take(next, &mut batch);
                        }
                    }
                    // All handles are gone.
                    None => batch.stop = true,
                },
                () = changes.changed(), if !rests => {}
                () = sleep(wait) => {}
            }
            self.try_again();
            self.look(&mut batch);
            let now = clock::now();
            let open =
                matches!(self.state, StoreState::Open(_)) && !self.trouble.rests(Instant::now());
            if open && self.engine.next_deadline().is_some_and(|due| due <= now.boot) {
                // Nobody asked, so there is nobody to reply to.
                let _ = self.apply(Command::Tick, now, &mut batch);
            }
            let stop = batch.stop;
            self.finish(batch, now);
            if stop {
                break;
            }
        }
        let Self { state, mut inbox, .. } = self;
        // Whoever asks from here on is told that the ledger has ended.
        inbox.close();
        if let StoreState::Open(store) = state
            && let Err(error) = store.close()
        {
            tracing::error!(%error, "closing the lease store");
        }
    }

    /// How long there is nothing to do, unless someone asks.
    fn wait(&self) -> Duration {
        if self.trouble.is_on() {
            return AFTER_FAILURE;
        }
        let due = self.engine.next_deadline();
        due.map_or(LONGEST_WAIT, |due| due.saturating_sub(clock::now().boot).min(LONGEST_WAIT))
    }

    /// Looks at what has changed, as far as it can be stored: what could not be is looked at again no
    /// sooner than [`AFTER_FAILURE`] later.
    fn look(&mut self, batch: &mut Batch) {
        if self.trouble.rests(Instant::now()) || matches!(self.state, StoreState::Lost(_)) {
            return;
        }
        let changes = self.changes.take(MOST_PLACES);
        if changes.is_empty() {
            return;
        }
        // Nobody asked, so there is nobody to reply to.
        let _ = self.apply(Command::Look(changes.clone()), clock::now(), batch);
        batch.looked_at.add(changes);
    }

    fn take(&mut self, request: Request, batch: &mut Batch) {
        match request {
            Request::Call(command, answer) => {
                let result = self.apply(command, clock::now(), batch);
                batch.waiting.push((answer, result));
            }
            Request::Stop => batch.stop = true,
            question => batch.questions.push(question),
        }
    }

    fn apply(&mut self, command: Command, now: Now, batch: &mut Batch) -> Result<Reply, Refusal> {
        if let Command::Subscribers(subscribers) = &command {
            // For the engine of a store that is recovered later, too.
            self.subscribers.clone_from(subscribers);
            self.engine.set_subscribers(subscribers);
            return Ok(Reply::Done);
        }
        if let Command::Pools(pools) = &command {
            self.pools.clone_from(pools);
            self.engine.set_pools(pools);
            return Ok(Reply::Done);
        }
        if let StoreState::Lost(fault) = &self.state {
            return Err(fault.refusal());
        }
        let applied = self.engine.apply(command, &*self.view, now);
        batch.changes.extend(applied.changes);
        batch.notices.extend(applied.notices);
        for source in self.engine.take_wanted() {
            self.changes.want(source);
        }
        applied.result
    }

    /// Commits, calls the hooks, replies to the callers.
    fn finish(&mut self, batch: Batch, now: Now) {
        let Batch { looked_at, waiting, changes, notices, questions, stop: _ } = batch;
        let committed = if changes.is_empty() { Ok(()) } else { self.commit(&changes, now) };
        let refusal = match committed {
            Ok(()) => {
                let told: Vec<Change> = changes.iter().filter_map(Write::change).collect();
                if !told.is_empty() {
                    let high = self.engine.high_water();
                    for hook in &mut self.after_commit {
                        hook.committed(&told, now);
                        // Of a store that has not given any, nobody needs to know once it is gone.
                        if !high.gave_nothing() {
                            hook.handed_out(high.generation);
                        }
                    }
                    failpoint::reach(Moment::BeforeReply);
                }
                self.tell(&notices);
                None
            }
            Err(error) => {
                self.engine.undo(&changes);
                self.engine.look_again(&changes);
                self.changes.put_back(Changes { known: true, ..looked_at });
                Some(refusal(&error))
            }
        };
        for (answer, result) in waiting {
            // Whoever has gone away does not wait for the reply.
            let _ = answer.send(refusal.clone().map_or(result, Err));
        }
        for question in questions {
            self.answer(question);
        }
    }

    /// Writes changes. The one place that says that they cannot be written.
    pub(super) fn commit(&mut self, changes: &[Write], now: Now) -> Result<(), CommitError> {
        let StoreState::Open(store) = &mut self.state else { return Ok(()) };
        let committed = store.commit(changes, self.engine.high_water(), now);
        match &committed {
            Ok(()) => self.trouble.wrote(Instant::now()),
            Err(error) if error.is_damage() => self.lose_open(&error.to_string()),
            Err(error) => {
                tracing::debug!(%error, changes = changes.len(), "a commit failed");
                self.trouble.failed(&error.to_string(), Instant::now());
            }
        }
        committed
    }

    /// What no lease's state shows goes to the log, and to those who count.
    pub(super) fn tell(&mut self, notices: &[Notice]) {
        report(notices);
        for hook in self.after_commit.iter_mut().filter(|_| !notices.is_empty()) {
            hook.noticed(notices);
        }
    }

    fn answer(&mut self, question: Request) {
        // Whoever has gone away does not wait for the reply.
        match question {
            Request::Preview(command, answer) => {
                let _ = answer.send(self.preview(command));
            }
            Request::Reservations(answer) => {
                let _ = answer.send(self.known().map(|()| self.engine.reservations()));
            }
            Request::Leases(filter, answer) => {
                let leases = || self.engine.leases(&filter).cloned().collect();
                let _ = answer.send(self.known().map(|()| leases()));
            }
            Request::Stretch(of, answer) => {
                let _ = answer.send(self.known().map(|()| self.engine.stretch(&of)));
            }
            Request::Subnets(after, most, answer) => {
                let after = after.as_deref();
                let subnets = || self.engine.subnets_after(after, most).cloned().collect();
                let _ = answer.send(self.known().map(|()| subnets()));
            }
            Request::Interfaces(after, most, answer) => {
                let after = after.as_deref();
                let names = || self.engine.interfaces_after(after, most).cloned().collect();
                let _ = answer.send(self.known().map(|()| names()));
            }
            Request::Pools(answer) => {
                let _ = answer.send(self.known().map(|()| self.engine.pools()));
            }
            Request::Standing(Place { segment, address }, answer) => {
                let standing = || self.engine.standing(&segment, address);
                let _ = answer.send(self.known().map(|()| standing()));
            }
            Request::Check(answer) => {
                let _ = answer.send(self.engine.check());
            }
            Request::CheckStore(answer) => {
                let _ = answer.send(self.check_store());
            }
            Request::Snapshot(answer) => {
                let _ = answer.send(self.snapshot());
            }
            Request::Recover(ask, answer) => {
                let _ = answer.send(self.recover(ask));
            }
            Request::Call(..) | Request::Stop => {}
        }
    }
}

pub(super) fn refusal(error: &CommitError) -> Refusal {
    if error.is_damage() {
        let message = format!("{error}; run `guardctl check`");
        return Refusal::new(Reason::StoreDamaged, message);
    }
    Refusal {
        reason: Reason::StoreUnwritable,
        message: error.to_string(),
        retry_after: Some(AFTER_FAILURE),
    }
}

fn report(notices: &[Notice]) {
    for notice in notices {
        match notice {
            Notice::HostAddress(lease) => tracing::warn!(
                address = %lease.address, segment = %lease.segment, state = lease.state.name(),
                generation = lease.generation, "the host has an address that is not free"
            ),
            // Its incident says so, if it is one.
            Notice::Named { .. } => {}
            Notice::HoldExpired(lease, late) => tracing::warn!(
                address = %lease.address, segment = %lease.segment,
                generation = lease.generation, subscribers = ?late,
                "subscribers did not acknowledge a release in time"
            ),
            Notice::Stray(subnet) => tracing::warn!(
                prefix = %subnet.prefix, segment = %subnet.segment, pool = &*subnet.pool,
                id = &*subnet.id, "no configured pool has this child subnet"
            ),
            Notice::Draining(lease) => tracing::warn!(
                address = %lease.address, segment = %lease.segment, pool = &*lease.pool,
                generation = lease.generation, "no configured pool has this lease's address on its segment; a pool of its name hands it out \
                 on no other segment until the lease has ended"
            ),
        }
    }
}
