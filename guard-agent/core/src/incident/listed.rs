//! Incidents that sources report, and no frame: an entry that cannot be read, and an address that
//! several are said to have. They last as long as the source says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Claimant, Incident, Incidents, Kind, Phase, Role, Target};
use crate::{
    evidence::{Source, Unreadable},
    owner::Owner,
    segment::Segment,
    time::Now,
};

/// As many entries of one source as have an incident at a time: a source that cannot be read at all is
/// one trouble, and `status` counts the rest.
const MOST: usize = 64;

/// One of those who are said to have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The owner.
    pub owner: Owner,
    /// What it is to the address.
    pub role: Role,
}

impl Incidents {
    /// A source lists these entries that cannot be read, and no others.
    pub fn unreadable(
        &mut self,
        source: Source,
        all: &[Unreadable],
        now: Now,
    ) -> Vec<(Phase, Incident)> {
        self.listed |= source == Source::Inventory;
        let shown: BTreeMap<_, _> = all.iter().map(|one| (&one.entry, one)).collect();
        let of_source = |target: &Target| match target {
            Target::Entry(of, entry) if *of == source => Some(Arc::clone(entry)),
            _ => None,
        };
        let open: BTreeSet<_> =
            self.open.keys().filter_map(|(_, target)| of_source(target)).collect();
        let mut told = Vec::new();
        for entry in open.iter().filter(|entry| !shown.contains_key(entry)) {
            let key = (Segment::none(), Target::Entry(source, Arc::clone(entry)));
            let over = self.open.remove(&key).map(|incident| self.remember(incident, now));
            told.extend(over.map(|incident| (Phase::Closed, incident)));
        }
        let (known, new): (Vec<_>, Vec<_>) =
            shown.into_iter().partition(|(entry, _)| open.contains(*entry));
        let room = MOST.saturating_sub(known.len());
        for (entry, Unreadable { owner, why, .. }) in
            known.into_iter().chain(new.into_iter().take(room))
        {
            let key = (Segment::none(), Target::Entry(source, Arc::clone(entry)));
            match self.open.get_mut(&key) {
                Some(incident) if incident.detail == *why => {}
                Some(incident) => {
                    incident.detail = Arc::clone(why);
                    incident.last_seen = now.wall;
                    told.push((Phase::Changed, incident.clone()));
                }
                None => {
                    let owner = owner.iter().map(|owner| listed(owner, Role::Claimant, now));
                    let (phase, mut incident) = self.open(key.clone(), Kind::Inventory, owner, now);
                    incident.detail = Arc::clone(why);
                    self.open.insert(key, incident.clone());
                    told.push((phase, incident));
                }
            }
        }
        told
    }

    /// These are said to have an address: its holder first, where there is one. Two of them are a
    /// dispute, until there is one; one that an earlier run has written down is not over before the
    /// inventory has been read.
    pub fn disputed(
        &mut self,
        segment: &Segment,
        address: IpAddr,
        named: &[Named],
        now: Now,
    ) -> Option<(Phase, Incident)> {
        let key = (segment.clone(), Target::Address(address));
        let claimants = || named.iter().map(|Named { owner, role }| listed(owner, *role, now));
        let Some(incident) = self.open.get_mut(&key) else {
            return (named.len() > 1).then(|| self.open(key, Kind::Duplicate, claimants(), now));
        };
        if named.len() < 2 && !self.listed {
            return None;
        }
        let was_told = incident.claimants.iter().any(Claimant::is_listed);
        for known in incident.claimants.iter_mut().filter(|known| known.is_listed()) {
            known.gone = !named.iter().any(|named| known.owner.as_ref() == Some(&named.owner));
        }
        if named.len() < 2 {
            let over = was_told && incident.is_over(now);
            let incident = over.then(|| self.open.remove(&key)).flatten()?;
            return Some((Phase::Closed, self.remember(incident, now)));
        }
        if incident.claimants.len() + named.len() > Incident::MAX_MACS {
            // Those that are over make room.
            incident.claimants.retain(|known| !(known.is_listed() && known.gone));
        }
        let mut changed = false;
        for claimant in claimants() {
            changed |= incident.join(claimant, now);
        }
        if incident.worsen(Kind::Duplicate, false, false) {
            self.silences.break_by(&key, incident);
            changed = true;
        }
        changed.then(|| (Phase::Changed, incident.clone()))
    }

    /// The addresses that several were said to have, as far as that is not over.
    pub fn listed(&self) -> Vec<(Segment, IpAddr)> {
        let listed = |incident: &&Incident| incident.claimants.iter().any(Claimant::is_listed);
        let place = |incident: &Incident| {
            incident.target.address().map(|address| (incident.segment.clone(), address))
        };
        self.open.values().filter(listed).filter_map(place).collect()
    }
}

fn listed(owner: &Owner, role: Role, now: Now) -> Claimant {
    Claimant { owner: Some(owner.clone()), ..Claimant::new(role, now) }
}
