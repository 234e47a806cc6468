//! The sources: each answer is begun at one time and ends at a later one, completely, in part or not
//! at all.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use guard_core::{
    evidence::{Answered, Entry, EventStream, Listing, Source, Unread},
    owner::Owner,
    segment::Segment,
};

use super::{World, agent::Phase, node::segment};

/// What is asked, with its name in the configuration.
pub(super) const SOURCES: [(&str, Source); 2] =
    [("containerd", Source::Inventory), ("directory", Source::Controller)];

/// Their places among the sources.
pub(super) const RUNTIME: usize = 0;
pub(super) const DIRECTORY: usize = 1;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Complete,
    /// From now on it tells of each change. The directory cannot.
    Streaming,
    /// Nothing can be read of those of its entries that it has listed before.
    Unreadable,
    Failed,
}

/// A stream that lasts; what it tells ends the answer that it belongs to.
#[derive(Debug)]
struct Lasts;

impl EventStream for Lasts {
    fn is_current(&self) -> bool {
        true
    }
}

/// What the agent knows from a source.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub configured: bool,
    /// The answer that is on its way: since when, and what it lists.
    begun: Option<(Duration, Vec<Entry>)>,
    /// What it has listed last.
    shown: BTreeSet<Arc<str>>,
    pub complete: Option<Duration>,
    pub streaming: bool,
}

impl Asked {
    pub(super) fn new(configured: bool) -> Self {
        Self { configured, ..Self::default() }
    }

    /// The agent has ended.
    pub(super) fn ended(&mut self) {
        *self = Self::new(self.configured);
    }

    /// It has not answered completely since the agent started.
    pub(super) fn waits(&self) -> bool {
        self.configured && self.complete.is_none()
    }
}

impl World {
    fn listed_now(&self, which: usize) -> Vec<Entry> {
        if which == RUNTIME { self.node.containers_listed() } else { self.node.index_listed() }
    }

    /// The agent asks a source.
    pub(super) fn begin_answer(&mut self, which: usize) {
        self.later();
        let listed = self.listed_now(which);
        let source = &mut self.sources[which];
        if self.phase != Phase::Down && source.configured && source.begun.is_none() {
            source.begun = Some((self.now.boot, listed));
        }
    }

    /// Whatever is on its way is not waited for.
    pub(super) fn forget_answer(&mut self, which: usize) {
        self.sources[which].begun = None;
    }

    /// The answer ends. Returns whether it was complete.
    pub(super) fn end_answer(&mut self, which: usize, outcome: Outcome) -> bool {
        let there = self.listed_now(which);
        let source = &mut self.sources[which];
        let Some((begun, mut entries)) = source.begun.take() else { return false };
        // What its stream has told since it was asked, and no list has shown yet, is not known yet.
        let is_current = entries == there;
        let complete = outcome != Outcome::Failed;
        if complete {
            source.complete = Some(begun);
        }
        let shown = entries.iter().map(|entry| Arc::clone(&entry.id)).collect();
        if outcome == Outcome::Unreadable && which == RUNTIME {
            for entry in entries.iter_mut().filter(|entry| source.shown.contains(&entry.id)) {
                entry.owner = Owner { sandbox: Arc::clone(&entry.id), lifecycle: Arc::from("") };
                (entry.named, entry.addresses) = (false, Vec::new());
                entry.unread = Unread { owner: true, addresses: true };
            }
        }
        if complete {
            source.shown = shown;
        }
        source.streaming = which == RUNTIME && outcome == Outcome::Streaming && is_current;
        if outcome != Outcome::Failed {
            let listing = Listing { entries, unreadable: Vec::new() };
            let west = Segment { vlan: self.vlan, ..segment(1) };
            self.live.listed(SOURCES[which].1, &listing, &[segment(0), west]);
        }
        self.tell_answered(which);
        complete
    }

    /// What the answers so far prove.
    pub(super) fn tell_answered(&self, which: usize) {
        let Asked { configured, begun: _, shown: _, complete, streaming } = self.sources[which];
        if configured {
            let stream = streaming.then(|| Arc::new(Lasts) as Arc<dyn EventStream>);
            let answered = Answered { complete, stream, ignored_until: None };
            self.live.set_answered(SOURCES[which].0, answered);
        }
    }

    pub(super) fn answer_completely(&mut self, which: usize) {
        let outcome =
            if self.sources[which].streaming { Outcome::Streaming } else { Outcome::Complete };
        self.forget_answer(which);
        self.begin_answer(which);
        self.end_answer(which, outcome);
    }

    /// Something else is to be listed. A stream tells of it, and the source is asked at once.
    pub(super) fn containers_changed(&mut self) {
        if self.sources[RUNTIME].streaming {
            self.answer_completely(RUNTIME);
        }
    }

    pub(super) fn stream_breaks(&mut self) {
        self.sources[RUNTIME].streaming = false;
        if self.phase != Phase::Down {
            self.tell_answered(RUNTIME);
        }
    }
}
