//! Incidents of ports whose frames guard may not see: another program is before its own.

use std::sync::Arc;

use super::{Claimant, Incident, Incidents, Kind, Phase, Sighting, Target};
use crate::segment::Segment;
use crate::time::Now;

impl Incidents {
    /// Another program is before ours on a port, and may keep frames from it.
    pub fn hidden(
        &mut self,
        segment: &Segment,
        port: Claimant,
        by: &str,
        now: Now,
    ) -> Option<(Phase, Incident)> {
        let target = Target::Port(port.ifindex?);
        let key = (segment.clone(), target.clone());
        let sighting = Sighting {
            segment: segment.clone(),
            target,
            kind: Kind::Coverage,
            holder: None,
            challenger: port,
        };
        let told = self.sighted(sighting, now).map(|(phase, _)| phase);
        let incident = self.open.get_mut(&key)?;
        let other = *incident.detail != *by;
        if other {
            incident.detail = Arc::from(by);
        }
        let phase = told.or(other.then_some(Phase::Changed))?;
        Some((phase, incident.clone()))
    }
}
