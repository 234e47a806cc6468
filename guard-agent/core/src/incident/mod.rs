//! Incidents: two claimants of one address, told once.
//!
//! An incident is keyed by segment and address. It opens with one alert, further claimants join it,
//! and it closes when all claimants but one are gone. Who was silent for `quiet` is listed, so that it
//! can be asked whether it is still there. Pure: what was seen and the time come in, what changed goes
//! out.

mod end;
mod flap;
mod hidden;
mod kind;
mod listed;
mod mild;
mod model;
mod open;
mod retention;
mod silence;
mod target;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

pub use flap::Flaps;
pub use kind::{Kind, Severity};
pub use listed::Named;
use mild::MildAlerts;
pub use model::{Claimant, Incident, Role, Sighting, Silent};
use open::Open;
pub use retention::Kept;
use silence::Silences;
pub use target::Target;

use crate::{mac::Mac, segment::Segment, time::Now};

/// Closed incidents that are remembered.
const HISTORY: usize = 1024;

/// What is said of an incident whose first claimant was asked, and has not answered.
const UNANSWERED: &str = "the former holder does not answer; it has probably moved";

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is new: the one alert.
    Opened,
    /// Another claimant joined, the kind or the severity is worse than before, or it goes on shortly
    /// after it closed.
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
    kept: Kept,
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
            kept: Kept::new(HISTORY),
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
                self.keep(incident);
            }
        }
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
        let Sighting {
            segment,
            target,
            kind,
            mild,
            critical,
            holder,
            challenger,
            detail,
            unanswered,
        } = sighting;
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
        let mut challenger = challenger;
        if self.open.get(&key).is_some_and(|incident| !incident.knows(&challenger)) {
            self.count_from_here(&key, std::slice::from_mut(&mut challenger));
        }
        if let Some(incident) = self.open.get_mut(&key) {
            // The kernel tells of a clone while the MAC is on the other port.
            if let Some(holder) = holder.filter(|_| kind == Kind::Clone) {
                incident.spoke(&holder);
            }
            incident.flaps += u32::from(flapped);
            // Its numbers grow with each frame: that by itself is no news.
            incident.detail = detail.unwrap_or_else(|| incident.detail.clone());
            let was = incident.severity();
            let joined = incident.join(challenger, now);
            let worse = incident.worsen(kind, mild, critical);
            if worse {
                self.silences.break_by(&key, incident);
            }
            let told = joined || worse || incident.severity() != was;
            return told.then(|| (Phase::Changed, incident.clone()));
        }
        let claimants = holder.into_iter().chain([challenger]);
        let (phase, mut incident) = self.open(key.clone(), kind, claimants, now);
        if detail.is_some() || critical {
            incident.detail = detail.unwrap_or_else(|| incident.detail.clone());
            incident.critical |= critical;
            self.open.insert(key.clone(), incident.clone());
        }
        // One that goes on is in no more doubt than it was.
        let unanswered = unanswered && (phase == Phase::Opened || incident.unanswered);
        if unanswered != incident.unanswered {
            incident.unanswered = unanswered;
            incident.detail = Arc::from(if unanswered { UNANSWERED } else { "" });
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
        let mut claimants: Vec<_> = claimants.into_iter().collect();
        self.silences.end(now);
        if let Some(mut incident) = self.take_up_again(&key, kind, &claimants, now) {
            incident.reopen(claimants, now);
            self.open.insert(key, incident.clone());
            return (Phase::Changed, incident);
        }
        let mut incident = Incident::new(self.next_id, key.clone(), kind, now);
        self.next_id += 1;
        self.silences.begin(&key, &mut incident);
        self.count_from_here(&key, &mut claimants);
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
            let worse = incident.worsen(Kind::Flap, mild, false);
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

    /// Who has an address speaks. Where nobody has it by right that is a side of what is disputed, though
    /// it was not when the incident opened.
    pub fn holder_spoke(
        &mut self,
        segment: &Segment,
        address: IpAddr,
        holder: &Claimant,
        now: Now,
    ) -> Option<(Phase, Incident)> {
        let incident = self.open.get_mut(&(segment.clone(), Target::Address(address)))?;
        if incident.knows(holder) || !incident.is_open_to(holder) {
            return self.spoke(segment, address, holder);
        }
        let joined = incident.join(holder.clone(), now);
        incident.flaps += u32::from(self.flaps.turn(&(segment.clone(), address), holder));
        joined.then(|| (Phase::Changed, incident.clone()))
    }

    /// A claimant that the kernel does not report by itself still speaks.
    pub fn spoke(
        &mut self,
        segment: &Segment,
        address: IpAddr,
        claimant: &Claimant,
    ) -> Option<(Phase, Incident)> {
        let incident = self.open.get_mut(&(segment.clone(), Target::Address(address)))?;
        let worse = incident.spoke(claimant) == Some(true);
        incident.flaps += u32::from(self.flaps.turn(&(segment.clone(), address), claimant));
        worse.then(|| (Phase::Changed, incident.clone()))
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

    /// Whether an incident has counted so many frames of a station by the kernel's count.
    pub fn has_counted(
        &self,
        (segment, target): &(Segment, Target),
        (mac, ifindex): (Mac, u32),
        frames: u64,
    ) -> bool {
        let all = self.open.values().chain(&self.closed);
        let mut about = all.filter(|one| (&one.segment, &one.target) == (segment, target));
        about.any(|incident| {
            let mut claimants = incident.claimants.iter();
            let is = |one: &&Claimant| (one.mac, one.ifindex) == (Some(mac), Some(ifindex));
            claimants.any(|one| is(&one) && one.counter >= frames)
        })
    }

    /// The kind of the open incident about an address or a MAC.
    pub fn kind(&self, segment: &Segment, target: Target) -> Option<Kind> {
        self.open.get(&(segment.clone(), target)).map(|incident| incident.kind)
    }
}

#[cfg(test)]
mod tests;
