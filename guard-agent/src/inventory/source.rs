//! One source: asked when something may have changed and when a pass wants to know, and told of.
//!
//! The task that owns the connection lists, publishes what it heard and says whether it was
//! complete. An answer that is cut off, late or not to be read is a failure, never an empty list.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{Listing, SourceError};
use crate::{
    clock::Now,
    evidence::Source,
    health::{self, Health},
    live::{Answered, LiveSet},
    segment::Segment,
};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 10_000 });

/// How soon a source that does not answer completely is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What a source can do.
pub(super) trait Lister: Send + 'static {
    /// Asks for everything, connecting first where that is needed.
    fn list(&mut self) -> impl Future<Output = Result<Listing, SourceError>> + Send;

    /// Waits until there may be something new.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether it tells of every change since before its last list was asked for.
    fn streams(&self) -> bool {
        false
    }

    /// Something went wrong: whatever the connection still brings is not to be trusted.
    fn reset(&mut self);
}

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of it was read.
    Complete,
    /// Some of it could not be read.
    Partial(String),
    /// There was none.
    Failed(String),
}

/// An answer of a source; what it said is in the live set by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What kind of evidence it gives.
    pub source: Source,
    /// Its name in the configuration.
    pub name: &'static str,
    /// When it was asked, on `CLOCK_BOOTTIME`.
    pub asked: Duration,
    /// Whether it answered.
    pub answer: Answer,
    /// How many of the things that it lists have a label or field that is meant for us.
    pub ours: usize,
}

/// How a source is, for people.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// What kind of evidence it gives.
    pub source: Source,
    /// Its name in the configuration.
    pub name: &'static str,
    /// The last answer.
    pub last: Option<Heard>,
    /// The last complete one, on `CLOCK_BOOTTIME`.
    pub complete: Option<Duration>,
}

impl SourceStatus {
    /// Whether its last answer was complete.
    pub fn healthy(&self) -> bool {
        self.last.as_ref().is_some_and(|heard| heard.answer == Answer::Complete)
    }

    /// Why it is not.
    pub fn why(&self) -> Option<String> {
        match &self.last {
            None => Some("it was not asked yet".to_owned()),
            Some(Heard { answer: Answer::Complete, .. }) => None,
            Some(Heard { answer: Answer::Partial(why) | Answer::Failed(why), .. }) => {
                Some(why.clone())
            }
        }
    }
}

/// Who is told of what a source says.
#[derive(Clone)]
pub struct Told {
    /// Evidence.
    pub live: Arc<LiveSet>,
    /// What is degraded.
    pub health: Arc<Health>,
    /// Where addresses can be.
    pub segments: Arc<[Segment]>,
}

/// The way to a running source.
#[derive(Debug)]
pub struct Handle {
    source: Source,
    name: &'static str,
    requests: mpsc::Sender<oneshot::Sender<Heard>>,
    status: Arc<RwLock<SourceStatus>>,
}

impl Handle {
    /// Starts the task that keeps a source. It ends with the handle.
    pub(super) fn start(
        source: Source,
        name: &'static str,
        lister: impl Lister,
        told: Told,
    ) -> Self {
        let (requests, asked) = mpsc::channel(1);
        let status = SourceStatus { source, name, last: None, complete: None };
        let status = Arc::new(RwLock::new(status));
        told.live.set_answered(name, Answered::default());
        let keeper = Keeper { source, name, lister, told, status: Arc::clone(&status) };
        tokio::spawn(keeper.run(asked));
        Self { source, name, requests, status }
    }

    /// What kind of evidence it gives.
    pub fn source(&self) -> Source {
        self.source
    }

    /// How it is.
    pub fn status(&self) -> SourceStatus {
        self.status.read().clone()
    }

    /// Asks it now, and waits for the answer.
    pub async fn ask(&self) -> Heard {
        let asked = Now::read().boot;
        let (answer, answered) = oneshot::channel();
        if self.requests.send(answer).await.is_ok()
            && let Ok(heard) = answered.await
        {
            return heard;
        }
        let answer = Answer::Failed("its task has ended".to_owned());
        Heard { source: self.source, name: self.name, asked, answer, ours: 0 }
    }
}

struct Keeper<L> {
    source: Source,
    name: &'static str,
    lister: L,
    told: Told,
    status: Arc<RwLock<SourceStatus>>,
}

impl<L: Lister> Keeper<L> {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<Heard>>) {
        let mut waiting: Option<oneshot::Sender<Heard>> = None;
        let changes = Arc::clone(self.told.live.changes());
        loop {
            let heard = self.list().await;
            let healthy = heard.answer == Answer::Complete;
            if let Some(waiting) = waiting.take() {
                // Whoever asked may have given up.
                let _ = waiting.send(heard);
            }
            waiting = tokio::select! {
                request = asked.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = self.lister.changed(), if healthy => None,
                () = changes.wanted(self.name) => None,
                () = sleep(RETRY), if !healthy => None,
            };
        }
    }

    async fn list(&mut self) -> Heard {
        let asked = Now::read().boot;
        let listed = match timeout(PATIENCE, self.lister.list()).await {
            Ok(listed) => listed,
            Err(_) => Err(SourceError::Late(PATIENCE)),
        };
        let (answer, ours) = match &listed {
            Ok(listing) => (listing.answer(), self.publish(listing)),
            Err(error) => {
                self.lister.reset();
                (Answer::Failed(error.to_string()), 0)
            }
        };
        let what = health::source(self.name);
        match &answer {
            Answer::Complete => self.told.health.recovered(&what),
            Answer::Partial(why) | Answer::Failed(why) => self.told.health.degraded(&what, why),
        }
        let heard = Heard { source: self.source, name: self.name, asked, answer, ours };
        let mut status = self.status.write();
        if heard.answer == Answer::Complete {
            status.complete = Some(asked);
        }
        status.last = Some(heard.clone());
        self.told.live.set_answered(self.name, self.answered(status.complete, &heard.answer));
        heard
    }

    /// What the answers so far prove.
    fn answered(&self, complete: Option<Duration>, last: &Answer) -> Answered {
        let streaming = *last == Answer::Complete && self.lister.streams();
        Answered { complete, streaming, ignored_until: None }
    }

    /// Evidence first, then those who act on it.
    fn publish(&self, listing: &Listing) -> usize {
        let Told { live, segments, health: _ } = &self.told;
        live.listed(self.source, listing, segments);
        listing.entries.iter().filter(|entry| entry.labelled).count()
    }
}

impl Listing {
    fn answer(&self) -> Answer {
        match self.unreadable.as_slice() {
            [] => Answer::Complete,
            [one] => Answer::Partial(one.clone()),
            [first, more @ ..] => Answer::Partial(format!("{first}, and {} more", more.len())),
        }
    }
}
