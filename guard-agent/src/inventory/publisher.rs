//! Publishes what a source lists: to the shared evidence, the incidents and the health.

use std::{sync::Arc, time::Duration};

use guard_core::{
    evidence::{Answered, EventStream, Listing, Source},
    segment::Segment,
    time::Now,
};

use super::status::{Known, SourceStatus};
use crate::{clock, events::IncidentReporter, health::Health, live::SharedEvidence};

/// Where what a source lists is published.
#[derive(Clone)]
pub struct Publisher {
    /// Evidence, on which the ledger acts at once.
    pub live: Arc<SharedEvidence>,
    /// What is degraded.
    pub health: Arc<Health>,
    /// Where addresses can be.
    pub segments: Arc<[Segment]>,
    /// What cannot be read, and what several are said to have.
    pub reporter: Arc<IncidentReporter>,
}

impl Publisher {
    /// Evidence first, then those who act on it. Counts what has a label or field that is meant for us.
    pub(super) fn publish(&self, source: Source, listing: &Listing) -> usize {
        let Self { live, segments, reporter, health: _ } = self;
        live.listed(source, listing, segments);
        reporter.unreadable(source, &listing.unreadable, clock::now());
        let disputed = reporter.listed();
        if !disputed.is_empty() {
            // What was said of them before may be over.
            live.changes().tell(|changes| changes.places.extend(disputed));
        }
        listing.entries.iter().filter(|entry| entry.labelled).count()
    }

    /// What a source's answers prove from now on.
    pub(super) fn answered(&self, known: &Known) {
        let SourceStatus { name, complete, ignored, .. } = known.status;
        let stream = known.mark.clone().map(|mark| Arc::new(mark) as Arc<dyn EventStream>);
        let answered = Answered { complete, stream, ignored_until: ignored };
        self.live.set_answered(name, answered);
    }

    /// An operator does without a source until then.
    pub(super) fn ignored(&self, name: &'static str, span: Duration, now: Now) {
        let until = now.wall_at(now.boot.saturating_add(span));
        tracing::warn!(
            source = name, %until,
            "an operator does without a source: what it could keep is not kept for it"
        );
        self.reporter.source(name, Some(until), now);
    }

    /// A source counts again.
    pub(super) fn heeded(&self, name: &'static str) {
        tracing::info!(source = name, "a source that was done without counts again");
        self.reporter.source(name, None, clock::now());
    }
}
