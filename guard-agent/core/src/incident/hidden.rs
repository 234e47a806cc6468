//! Incidents of ports whose frames guard may not see: another program is before its own, or its own was
//! taken off.

use std::sync::Arc;

use super::{Claimant, Incident, Incidents, Kind, Phase, Sighting, Target};
use crate::segment::Segment;
use crate::time::Now;

impl Incidents {
    /// Another program is before ours on a port, and may keep frames from it; or ours was taken off it.
    pub fn hidden(
        &mut self,
        segment: &Segment,
        port: Claimant,
        by: &str,
        now: Now,
    ) -> Option<(Phase, Incident)> {
        let target = Target::Port(port.ifindex?);
        let key = (segment.clone(), target.clone());
        let known = self.open.get(&key);
        let other = known.is_some_and(|incident| *incident.detail != *by);
        let sighting = Sighting {
            segment: segment.clone(),
            target,
            kind: Kind::Coverage,
            holder: None,
            challenger: port,
            detail: Some(Arc::from(by)),
            mild: false,
            critical: false,
            unanswered: false,
        };
        let told = self.sighted(sighting, now);
        let changed = || Some((Phase::Changed, self.open.get(&key)?.clone()));
        told.or_else(|| other.then(changed).flatten())
    }
}
