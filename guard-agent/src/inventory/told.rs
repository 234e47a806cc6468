//! Those who are told of what a source says, each in its turn.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{Listing, News};
use crate::{
    alerts::Alerts, clock::Now, evidence::Source, feed::Feed, health::Health,
    lease::command::Command, live::LiveSet, segment::Segment,
};

/// Who is told of what a source says.
#[derive(Clone)]
pub struct Told {
    /// Evidence.
    pub live: Arc<LiveSet>,
    /// The ledger, which acts on it at once.
    pub feed: Feed,
    /// What is degraded.
    pub health: Arc<Health>,
    /// Where addresses can be.
    pub segments: Arc<[Segment]>,
    /// What cannot be read, and what several are said to have.
    pub alerts: Arc<Alerts>,
}

impl Told {
    /// Evidence first, then those who act on it. Counts what has a label or field that is meant for us.
    ///
    /// `answered` says whether the answer before this one was complete as well.
    pub(super) fn publish(&self, source: Source, listing: &Listing, answered: bool) -> usize {
        let Self { live, feed, segments, alerts, health: _ } = self;
        let now = Now::read();
        let News { any, mut addresses } = live.listings().take(source, listing, now);
        alerts.unreadable(source, &listing.unreadable, now);
        if !answered {
            // What was said of them before may be over.
            addresses.extend(alerts.listed());
        }
        if !addresses.is_empty() {
            let everywhere =
                |address: IpAddr| segments.iter().map(move |segment| (segment.clone(), address));
            feed.tell(Command::Recheck(addresses.into_iter().flat_map(everywhere).collect()));
        }
        // An owner that is known by its id has no address here whose change would tell, and what a
        // source did not say while it was not well may have kept leases too.
        if any || !answered {
            feed.tell(Command::RecheckReleasing);
        }
        listing.entries.iter().filter(|entry| entry.labelled).count()
    }

    /// An operator does without a source until then.
    pub(super) fn ignored(&self, name: &'static str, span: Duration, now: Now) {
        let until = now.wall_at(now.boot.saturating_add(span));
        tracing::warn!(
            source = name, %until,
            "an operator does without a source: what it could keep is not kept for it"
        );
        self.alerts.source(name, Some(until), now);
    }

    /// A source counts again.
    pub(super) fn heeded(&self, name: &'static str) {
        tracing::info!(source = name, "a source that was done without counts again");
        self.alerts.source(name, None, Now::read());
    }
}
