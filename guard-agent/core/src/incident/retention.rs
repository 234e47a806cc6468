//! Which incidents are kept where there is no room for all: one that is open before one that has closed, a
//! worse one before a milder, a newer one before an older. Where a port has more than its share, it is one
//! of its own that goes: nobody pushes the trace of what another did out of the record, nor the worst of
//! what it did itself.

use std::collections::BTreeMap;

use super::{Incident, Role, Severity, Target};

/// So many may be of one port before others would have to go for them.
const SHARE: usize = 64;

/// Incidents by their ids, as many as there is room for.
#[derive(Debug)]
pub struct Kept {
    most: usize,
    of: BTreeMap<u64, (Option<u32>, Worth)>,
    by_port: BTreeMap<Option<u32>, usize>,
}

/// What speaks for keeping one, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    open: bool,
    severity: Severity,
    id: u64,
}

impl Kept {
    /// None yet, and room for so many.
    pub fn new(most: usize) -> Self {
        Self { most, of: BTreeMap::new(), by_port: BTreeMap::new() }
    }

    /// An incident is kept, as it is now. Returns the id of the one that goes for it, which may be its own.
    pub fn keep(&mut self, incident: &Incident) -> Option<u64> {
        let Incident { id, closed_at, .. } = incident;
        self.forget(*id);
        let (port, severity) = (port(incident), incident.severity());
        self.of.insert(*id, (port, Worth { open: closed_at.is_none(), severity, id: *id }));
        *self.by_port.entry(port).or_default() += 1;
        let goes = (self.of.len() > self.most).then(|| self.least()).flatten()?;
        self.forget(goes);
        Some(goes)
    }

    /// An incident is not there any more.
    pub fn forget(&mut self, id: u64) {
        let Some((port, _)) = self.of.remove(&id) else { return };
        if let Some(many) = self.by_port.get_mut(&port) {
            *many -= 1;
            if *many == 0 {
                self.by_port.remove(&port);
            }
        }
    }

    fn least(&self) -> Option<u64> {
        let most = self.by_port.iter().max_by_key(|(_, many)| **many);
        let over = most.filter(|(_, many)| **many > SHARE).map(|(port, _)| *port);
        let may_go = self.of.values().filter(|(port, _)| over.is_none_or(|over| *port == over));
        may_go.map(|(_, worth)| *worth).min().map(|worth| worth.id)
    }
}

/// The port that an incident comes from.
fn port(incident: &Incident) -> Option<u32> {
    if let Target::Port(ifindex) = incident.target {
        return Some(ifindex);
    }
    // The last of those who claim what is not theirs is the one that made it an incident.
    let mut claimants = incident.claimants.iter().rev();
    claimants.find(|one| one.role != Role::Owner)?.ifindex
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::{Claimant, Kind};
    use super::*;
    use crate::{segment::Segment, time::Now};

    const THIEF: u32 = 7;

    fn now() -> Now {
        Now { wall: jiff::Timestamp::UNIX_EPOCH, boot: std::time::Duration::from_secs(9) }
    }

    fn incident(id: u64, kind: Kind, ifindex: u32) -> Incident {
        let target = Target::Address(IpAddr::from([10, 0, 0, 1]));
        let mut incident = Incident::new(id, (Segment::new("rt0", 0), target), kind, now());
        let thief = Claimant { ifindex: Some(ifindex), ..Claimant::new(Role::Impostor, now()) };
        incident.claimants.push(thief);
        incident
    }

    fn closed(mut incident: Incident) -> Incident {
        incident.closed_at = Some(now().wall);
        incident
    }

    #[test]
    fn what_has_closed_goes_before_what_is_open_and_the_milder_before_the_worse() {
        let mut kept = Kept::new(3);
        assert_eq!(kept.keep(&incident(1, Kind::Gateway, 1)), None);
        assert_eq!(kept.keep(&closed(incident(2, Kind::Gateway, 2))), None);
        assert_eq!(kept.keep(&incident(3, Kind::Duplicate, 3)), None);
        assert_eq!(kept.keep(&incident(4, Kind::Unowned, 4)), Some(2));
        assert_eq!(kept.keep(&incident(5, Kind::Duplicate, 5)), Some(4));
        assert_eq!(kept.keep(&incident(6, Kind::Duplicate, 6)), Some(3), "the oldest of its like");
        assert_eq!(kept.keep(&closed(incident(7, Kind::Gateway, 7))), Some(7), "nothing is less");
        // The same once more is no other, and what it is now counts.
        assert_eq!(kept.keep(&closed(incident(1, Kind::Gateway, 1))), None);
        assert_eq!(kept.keep(&incident(8, Kind::Duplicate, 8)), Some(1));
    }

    #[test]
    fn who_has_more_than_a_share_loses_its_own_and_the_worst_of_it_last() {
        let mut kept = Kept::new(100);
        kept.keep(&incident(1, Kind::Gateway, THIEF));
        for id in 2..12 {
            kept.keep(&closed(incident(id, Kind::Unowned, 1)));
        }
        let gone: Vec<_> = (12..20_012)
            .filter_map(|id| kept.keep(&incident(id, Kind::Duplicate, THIEF)))
            .collect();
        assert_eq!(gone.first(), Some(&12), "its oldest");
        assert!(gone.iter().all(|id| *id >= 12), "neither its worst nor anybody else's");
        assert_eq!(kept.of.len(), 100);
    }

    #[test]
    fn a_share_is_not_lost_for_those_who_are_many() {
        let mut kept = Kept::new(10);
        for id in 0..10 {
            assert_eq!(kept.keep(&incident(id, Kind::Duplicate, u32::try_from(id).unwrap())), None);
        }
        assert_eq!(kept.keep(&incident(10, Kind::Duplicate, THIEF)), Some(0));
    }
}
