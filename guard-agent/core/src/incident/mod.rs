//! Incidents: two claimants of one address, told once.
//!
//! An incident is keyed by segment and address. It opens with one alert, further claimants join it,
//! and it closes when all claimants but one have been silent for `quiet` or are gone. Pure: what
//! was seen and the time come in, what changed goes out.

mod flap;
mod hidden;
mod listed;
mod mild;
mod model;
mod open;
mod silence;
mod target;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

pub use flap::Flaps;
pub use listed::Named;
use mild::MildAlerts;
pub use model::{Claimant, Incident, Kind, Role, Severity, Sighting};
use open::Open;
use silence::Silences;
pub use target::Target;

use crate::{segment::Segment, time::Now};

/// Closed incidents that are remembered.
const HISTORY: usize = 1024;

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is new: the one alert.
    Opened,
    /// Another claimant joined, or the kind is worse than before.
    Changed,
    /// It is over.
    Closed,
}

/// All incidents that are open, and the last that were.
#[derive(Debug)]
pub struct Incidents {
    quiet: Duration,
    flaps: Flaps,
    next_id: u64,
    open: Open,
    closed: VecDeque<Incident>,
    silences: Silences,
    mild: MildAlerts,
    /// The inventory has been read: whom it does not name is not named.
    listed: bool,
}

impl Incidents {
    /// None yet. Ids count from `first_id`.
    pub fn new(quiet: Duration, flaps: Flaps, first_id: u64) -> Self {
        Self {
            quiet,
            flaps,
            next_id: first_id,
            open: Open::default(),
            closed: VecDeque::new(),
            silences: Silences::default(),
            mild: MildAlerts::default(),
            listed: false,
        }
    }

    /// Takes in what an earlier run of the agent has written down, the oldest first.
    pub fn restore(&mut self, incidents: Vec<Incident>, now: Now) {
        for incident in incidents {
            self.next_id = self.next_id.max(incident.id + 1);
            self.silences.restore(&incident, now);
            if incident.closed_at.is_none() {
                self.open.insert((incident.segment.clone(), incident.target.clone()), incident);
            } else {
                self.closed.push_back(incident);
            }
        }
        let excess = self.closed.len().saturating_sub(HISTORY);
        self.closed.drain(..excess);
    }

    /// Keeps an incident, and those to come about its address, from alerting anyone, unless they are
    /// worse than it is now. A span of zero ends that. None if there is no such incident.
    pub fn silence(&mut self, id: u64, span: Duration, now: Now) -> Option<Incident> {
        let all = self.open.values_mut().chain(&mut self.closed);
        let incident = all.into_iter().find(|incident| incident.id == id)?;
        self.silences.set(incident, span, now);
        Some(incident.clone())
    }

    /// The open incidents that are silenced no more, and of which nobody has been notified: their alert is
    /// due now.
    pub fn end_silences(&mut self, now: Now) -> Vec<Incident> {
        self.silences.end(now);
        self.mild.forget_old(now);
        let mut due = Vec::new();
        for (key, incident) in self.open.iter_mut() {
            if !self.silences.covers(key, incident.kind) {
                incident.speak();
                if !incident.told && (!incident.mild || self.mild.take(key, now)) {
                    incident.told = true;
                    due.push(incident.clone());
                }
            }
        }
        due
    }

    /// A frame was seen that claims what another has.
    pub fn sighted(&mut self, sighting: Sighting, now: Now) -> Option<(Phase, Incident)> {
        let Sighting { segment, target, kind, mild, holder, challenger, detail } = sighting;
        let flapped = match target {
            Target::Address(address) if kind == Kind::Duplicate => {
                let key = (segment.clone(), address);
                if let Some(holder) = &holder {
                    self.flaps.begin(&key, holder, &challenger);
                }
                self.flaps.turn(&key, &challenger)
            }
            _ => false,
        };
        let key = (segment, target);
        if let Some(incident) = self.open.get_mut(&key) {
            // The kernel tells of a clone while the MAC is on the other port.
            if let Some(holder) = holder.filter(|_| kind == Kind::Clone) {
                incident.spoke(&holder);
            }
            incident.flaps += u32::from(flapped);
            // Its numbers grow with each frame: that by itself is no news.
            incident.detail = detail.unwrap_or_else(|| incident.detail.clone());
            let joined = incident.join(challenger, now);
            let worse = incident.worsen(kind, mild);
            if worse {
                self.silences.break_by(&key, incident);
            }
            return (joined || worse).then(|| (Phase::Changed, incident.clone()));
        }
        let claimants = holder.into_iter().chain([challenger]);
        let (phase, mut incident) = self.open(key.clone(), kind, claimants, now);
        if let Some(detail) = detail {
            incident.detail = detail;
            self.open.insert(key, incident.clone());
        }
        Some(if mild { self.soften((phase, incident), now) } else { (phase, incident) })
    }

    fn open(
        &mut self,
        key: (Segment, Target),
        kind: Kind,
        claimants: impl IntoIterator<Item = Claimant>,
        now: Now,
    ) -> (Phase, Incident) {
        let mut incident = Incident::new(self.next_id, key.clone(), kind, now);
        self.next_id += 1;
        self.silences.end(now);
        self.silences.begin(&key, &mut incident);
        for claimant in claimants {
            incident.join(claimant, now);
        }
        self.open.insert(key, incident.clone());
        (Phase::Opened, incident)
    }

    /// An address went by right from one claimant to another (claims.md A31 to A34): that it did so
    /// to and fro is an incident (claims.md A35).
    pub fn moved(
        &mut self,
        segment: &Segment,
        address: IpAddr,
        sides: (Option<&Claimant>, &Claimant),
        mild: bool,
        now: Now,
    ) -> Option<(Phase, Incident)> {
        let (key, (from, to)) = ((segment.clone(), address), sides);
        if let Some(from) = from {
            self.flaps.begin(&key, from, to);
        }
        if !self.flaps.turn(&key, to) {
            return None;
        }
        let target = (segment.clone(), Target::Address(address));
        if let Some(incident) = self.open.get_mut(&target) {
            incident.flaps += 1;
            incident.join(to.clone(), now);
            let worse = incident.worsen(Kind::Flap, mild);
            if worse {
                self.silences.break_by(&target, incident);
            }
            return worse.then(|| (Phase::Changed, incident.clone()));
        }
        let (flaps, holders) = self.flaps.found(&key)?;
        let (phase, mut incident) = self.open(target.clone(), Kind::Flap, holders, now);
        incident.flaps = flaps;
        self.open.insert(target, incident.clone());
        Some(if mild { self.soften((phase, incident), now) } else { (phase, incident) })
    }

    /// What has just opened hurts nobody.
    fn soften(&mut self, opened: (Phase, Incident), now: Now) -> (Phase, Incident) {
        let (phase, mut incident) = opened;
        let key = (incident.segment.clone(), incident.target.clone());
        self.mild.forget_old(now);
        incident.mild = true;
        incident.told = incident.told && self.mild.take(&key, now);
        self.open.insert(key, incident.clone());
        (phase, incident)
    }

    /// A claimant that the kernel does not report by itself still speaks.
    pub fn spoke(&mut self, segment: &Segment, address: IpAddr, claimant: &Claimant) {
        if let Some(incident) = self.open.get_mut(&(segment.clone(), Target::Address(address))) {
            incident.spoke(claimant);
            incident.flaps += u32::from(self.flaps.turn(&(segment.clone(), address), claimant));
        }
    }

    /// What a port claims of an address is part of an incident about the port from now on: closes
    /// the one about the address if nobody else claims it.
    pub fn folded(
        &mut self,
        segment: &Segment,
        address: IpAddr,
        ifindex: u32,
        now: Now,
    ) -> Option<Incident> {
        let key = (segment.clone(), Target::Address(address));
        let incident = self.open.get_mut(&key).filter(|open| open.kind <= Kind::Duplicate)?;
        for claimant in &mut incident.claimants {
            claimant.gone |= claimant.role != Role::Owner && claimant.ifindex == Some(ifindex);
        }
        let over = incident.disputants(self.quiet, now) < 2;
        let incident = over.then(|| self.open.remove(&key)).flatten()?;
        Some(self.remember(incident, now))
    }

    /// A port is gone and so are the claimants behind it.
    pub fn port_gone(&mut self, ifindex: u32, now: Now) -> Vec<Incident> {
        for incident in self.open.values_mut() {
            for claimant in &mut incident.claimants {
                claimant.gone |= claimant.ifindex == Some(ifindex);
            }
        }
        self.close(now)
    }

    /// The holder of an address moved to the challenger, or the lease ended: no dispute is left.
    pub fn settled(&mut self, segment: &Segment, target: Target, now: Now) -> Option<Incident> {
        let incident = self.open.remove(&(segment.clone(), target))?;
        Some(self.remember(incident, now))
    }

    /// Closes what has been quiet for long enough.
    pub fn close(&mut self, now: Now) -> Vec<Incident> {
        let quiet = self.quiet;
        self.flaps.forget_old(now.boot);
        let over: Vec<_> = self
            .open
            .iter()
            .filter(|(_, incident)| incident.disputants(quiet, now) < 2)
            .map(|(key, _)| key.clone())
            .collect();
        over.iter()
            .filter_map(|key| self.open.remove(key))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|incident| self.remember(incident, now))
            .collect()
    }

    fn remember(&mut self, mut incident: Incident, now: Now) -> Incident {
        incident.closed_at = Some(now.wall);
        self.closed.push_back(incident.clone());
        if self.closed.len() > HISTORY {
            self.closed.pop_front();
        }
        incident
    }

    /// The open incidents, and with `all` those that are remembered, the oldest first.
    pub fn list(&self, all: bool) -> Vec<Incident> {
        let closed = self.closed.iter().filter(|_| all);
        let mut list: Vec<_> = closed.chain(self.open.values()).cloned().collect();
        list.sort_by_key(|incident| incident.id);
        list
    }

    /// Those of [`Self::list`] that come after an id, at most so many.
    pub fn list_after(&self, all: bool, id: u64, most: usize) -> Vec<Incident> {
        let open = self.open.after(id).take(most);
        let closed = self.closed.iter().filter(|incident| all && incident.id > id);
        let mut some: Vec<_> = open.chain(closed).collect();
        some.sort_by_key(|incident| incident.id);
        some.into_iter().take(most).cloned().collect()
    }

    /// How many are open, by bridge, kind and severity.
    pub fn count(&self) -> BTreeMap<(&str, Kind, Severity), usize> {
        let mut count = BTreeMap::new();
        for incident in self.open.values() {
            let of = (&*incident.segment.bridge, incident.kind, incident.severity());
            *count.entry(of).or_default() += 1;
        }
        count
    }

    /// The kind of the open incident about an address or a MAC.
    pub fn kind(&self, segment: &Segment, target: Target) -> Option<Kind> {
        self.open.get(&(segment.clone(), target)).map(|incident| incident.kind)
    }
}

#[cfg(test)]
mod tests;
