//! One source: listed when something may have changed and when a pass asks.
//!
//! The task that owns the connection lists, publishes what it heard and says whether it was
//! complete. An answer that is cut off or late is a failure, never an empty list.

use std::{future::Future, sync::Arc, time::Duration};

use guard_core::evidence::{Listing, PollOutcome, PollResult, Source};
use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{
    SourceError,
    events::Mark,
    pace::{self, Backoff, HELD},
    publisher::Publisher,
    status::{Known, SourceStatus},
};
use crate::{
    clock,
    health::{self, Health},
    supervisor::Supervisor,
};

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 10_000 });

/// How soon a source that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// And where somebody waits for it.
const HURRIED_RETRY: Duration = Duration::from_millis(200);

/// What a source can do.
pub(super) trait Lister: Send + 'static {
    /// Asks for everything, connecting first where that is needed.
    fn list(&mut self) -> impl Future<Output = Result<Listing, SourceError>> + Send;

    /// What the event stream had told when the last list was asked for, if one had begun by then.
    fn mark(&self) -> Option<Mark>;

    /// Waits until it should be asked again.
    fn changed(&mut self) -> impl Future<Output = Changed> + Send;

    /// Something went wrong: whatever the connection still brings is not to be trusted.
    fn reset(&mut self);
}

/// Why a source should be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// Something has changed, or may have.
    News,
    /// The event stream has ended at this age: nothing tells of changes any more.
    Ended(Arc<str>, Duration),
}

/// Handle to a running source.
#[derive(Debug)]
pub struct Handle {
    source: Source,
    name: &'static str,
    requests: mpsc::Sender<oneshot::Sender<PollResult>>,
    known: Arc<RwLock<Known>>,
}

impl Handle {
    /// Starts the task that keeps a source. It ends with the handle.
    pub(super) fn start(
        source: Source,
        name: &'static str,
        lister: impl Lister,
        publisher: Publisher,
        supervisor: &Supervisor,
    ) -> Self {
        let (requests, asked) = mpsc::channel(1);
        let known = Known::new(source, name, clock::now().boot);
        publisher.answered(&known);
        let known = Arc::new(RwLock::new(known));
        let task = SourceTask {
            source,
            name,
            lister,
            publisher,
            known: Arc::clone(&known),
            backoff: Backoff::default(),
        };
        supervisor.spawn(name, task.run(asked));
        Self { source, name, requests, known }
    }

    /// What kind of evidence it gives.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is meant by this name: that of the configuration, or that of its evidence.
    pub(super) fn is_called(&self, name: &str) -> bool {
        [self.name, self.source.name()].contains(&name)
    }

    /// How it is.
    pub fn status(&self) -> SourceStatus {
        self.known.read().now()
    }

    pub(super) fn known(&self) -> &RwLock<Known> {
        &self.known
    }

    /// Asks it now, and waits for the answer.
    pub async fn ask(&self) -> PollResult {
        let asked = clock::now().boot;
        let (outcome, answered) = oneshot::channel();
        if self.requests.send(outcome).await.is_ok()
            && let Ok(heard) = answered.await
        {
            return heard;
        }
        let outcome = PollOutcome::Failed("its task has ended".to_owned());
        PollResult { source: self.source, name: self.name, asked, outcome, ours: 0 }
    }
}

struct SourceTask<L> {
    source: Source,
    name: &'static str,
    lister: L,
    publisher: Publisher,
    known: Arc<RwLock<Known>>,
    backoff: Backoff,
}

impl<L: Lister> SourceTask<L> {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<PollResult>>) {
        let mut waiting: Option<oneshot::Sender<PollResult>> = None;
        loop {
            let began = Instant::now();
            let heard = self.list().await;
            let pause = sleep(pace::pause(began.elapsed()));
            if let Some(waiting) = waiting.take() {
                // Whoever asked may have given up.
                let _ = waiting.send(heard);
            }
            waiting = tokio::select! {
                request = asked.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = self.next(pause) => None,
            };
        }
    }

    /// Waits until it is to be asked by itself.
    async fn next(&mut self, pause: impl Future<Output = ()>) {
        let changes = Arc::clone(self.publisher.live.changes());
        let wanted = || changes.wanted(self.name);
        if !self.answers() {
            let hurried = async { tokio::join!(wanted(), pause, sleep(HURRIED_RETRY)) };
            tokio::select! {
                () = sleep(RETRY) => {}
                _ = hurried => {}
            }
            return;
        }
        // A stream that has ended before counts as held once it has lasted for so long.
        let faulty = self.known.read().status.stream_fault.is_some();
        let changed = tokio::select! {
            changed = self.lister.changed() => changed,
            () = changes.wanted(self.name) => Changed::News,
            () = sleep(HELD), if faulty => Changed::News,
        };
        match changed {
            Changed::News => pause.await,
            Changed::Ended(why, age) => {
                self.stream_ended(&why);
                tokio::select! {
                    () = sleep(self.backoff.ended(age)) => {}
                    () = changes.wanted(self.name) => {}
                }
                pause.await;
            }
        }
    }

    fn answers(&self) -> bool {
        self.known
            .read()
            .status
            .last
            .as_ref()
            .is_some_and(|last| last.outcome == PollOutcome::Complete)
    }

    fn stream_ended(&self, why: &str) {
        let why: Arc<str> = Arc::from(format!(
            "its event stream has ended ({why}); until one lasts, changes are noticed only when it \
             is asked anyway"
        ));
        self.health().degraded(&health::source(self.name), &why);
        self.known.write().status.stream_fault = Some(why);
    }

    fn health(&self) -> &Health {
        &self.publisher.health
    }

    async fn list(&mut self) -> PollResult {
        let asked = clock::now().boot;
        let listed = match timeout(ANSWER_TIMEOUT, self.lister.list()).await {
            Ok(listed) => listed,
            Err(_) => Err(SourceError::Late(ANSWER_TIMEOUT)),
        };
        let (outcome, ours) = match &listed {
            Ok(listing) => (PollOutcome::Complete, self.publisher.publish(self.source, listing)),
            Err(error) => {
                self.lister.reset();
                self.backoff.reset();
                (PollOutcome::Failed(error.to_string()), 0)
            }
        };
        let heard = PollResult { source: self.source, name: self.name, asked, outcome, ours };
        self.note(&heard, listed.ok());
        heard
    }

    /// Keeps what came of an answer, and tells whether the source is well.
    fn note(&self, heard: &PollResult, listing: Option<Listing>) {
        let mut known = self.known.write();
        let Known { status, mark } = &mut *known;
        status.last = Some(heard.clone());
        let over = |until: Duration| listing.is_some() || until <= heard.asked;
        let heeded = status.ignored.take_if(|until| over(*until)).is_some();
        match listing {
            Some(listing) => {
                *mark = self.lister.mark();
                status.complete = Some(heard.asked);
                status.failing = None;
                status.unreadable = listing.unreadable.into();
                if mark.as_ref().is_some_and(|mark| self.backoff.is_held(mark.age())) {
                    status.stream_fault = None;
                }
            }
            None => {
                *mark = None;
                status.failing = status.failing.or(Some(heard.asked));
            }
        }
        let why = status.why();
        self.publisher.answered(&known);
        drop(known);
        if heeded {
            self.publisher.heeded(self.name);
        }
        let what = health::source(self.name);
        match why {
            None => self.health().recovered(&what),
            Some(why) => self.health().degraded(&what, &why),
        }
    }
}
