//! Silences: incidents of which nobody is alerted, until a time.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

use super::{Incident, Kind, Target};
use crate::{segment::Segment, time::Now};

/// The silences that operators have asked for, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Silences(HashMap<(Segment, Target), Silence>);

#[derive(Clone, Copy, Debug)]
struct Silence {
    /// On `CLOCK_BOOTTIME`.
    until: Duration,
    wall: Timestamp,
    /// The worst that the operator knew of.
    kind: Kind,
}

impl Silence {
    fn keep(self, incident: &mut Incident) {
        (incident.silenced_until, incident.silence_ends) = (Some(self.wall), Some(self.until));
    }
}

impl Silences {
    /// Begins a silence, in place of an earlier one, or ends that.
    pub(super) fn set(&mut self, incident: &mut Incident, span: Duration, now: Now) {
        let (key, kind) = ((incident.segment.clone(), incident.target.clone()), incident.kind);
        if span.is_zero() {
            self.0.remove(&key);
            incident.speak();
            return;
        }
        let wall = now.wall.checked_add(span).unwrap_or(Timestamp::MAX);
        let silence = Silence { until: now.boot.saturating_add(span), wall, kind };
        silence.keep(incident);
        self.0.insert(key, silence);
    }

    /// Takes in what an earlier run has written down. Of another boot the time that is left is counted
    /// by the wall clock, once: nothing but an alert rests on it.
    pub(super) fn restore(&mut self, incident: &Incident, now: Now) {
        let Some(wall) = incident.silenced_until else { return };
        let until = incident.silence_ends.or_else(|| {
            let left = Duration::try_from(wall.duration_since(now.wall)).ok()?;
            Some(now.boot.saturating_add(left))
        });
        let Some(until) = until else { return };
        let key = (incident.segment.clone(), incident.target.clone());
        let kind = self.0.get(&key).map_or(incident.kind, |known| known.kind.max(incident.kind));
        self.0.insert(key, Silence { until, wall, kind });
    }

    /// Forgets those that are over.
    pub(super) fn end(&mut self, now: Now) {
        self.0.retain(|_, silence| silence.until > now.boot);
    }

    pub(super) fn covers(&self, key: &(Segment, Target), kind: Kind) -> bool {
        self.0.get(key).is_some_and(|silence| kind <= silence.kind)
    }

    /// Silences a new incident, if it is no worse than what was silenced.
    pub(super) fn begin(&mut self, key: &(Segment, Target), incident: &mut Incident) {
        let Some(silence) = self.0.get(key) else { return };
        if incident.kind <= silence.kind {
            silence.keep(incident);
            incident.told = false;
        } else {
            self.0.remove(key);
        }
    }

    /// An incident is worse than it was: ends its silence if it is worse than what was silenced.
    pub(super) fn break_by(&mut self, key: &(Segment, Target), incident: &mut Incident) {
        if !self.covers(key, incident.kind) {
            self.0.remove(key);
            incident.speak();
        }
    }
}
