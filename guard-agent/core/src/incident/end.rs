//! How incidents end, and when one that has ended goes on.

use std::{net::IpAddr, sync::Arc};

use super::{Claimant, Incident, Incidents, Kind, Role, Silent, Target};
use crate::{lease::model::Binding, mac::Mac, segment::Segment, time::Now};

type Key = (Segment, Target);

impl Incidents {
    /// A port has ended, and with it the claimants behind it.
    pub fn port_gone(&mut self, ifindex: u32, now: Now) -> Vec<Incident> {
        self.behind(ifindex, now, |_| true)
    }

    /// A port has left its bridge. Who has declared it stays an owner as long as it exists.
    pub fn port_left(&mut self, ifindex: u32, now: Now) -> Vec<Incident> {
        self.behind(ifindex, now, |claimant| claimant.role != Role::Owner)
    }

    fn behind(&mut self, ifindex: u32, now: Now, goes: fn(&Claimant) -> bool) -> Vec<Incident> {
        for incident in self.open.values_mut() {
            for claimant in &mut incident.claimants {
                claimant.gone |= claimant.ifindex == Some(ifindex) && goes(claimant);
            }
        }
        self.close(now)
    }

    /// The holder of an address moved to the challenger, or the lease ended: no dispute is left.
    pub fn settled(&mut self, segment: &Segment, target: Target, now: Now) -> Option<Incident> {
        let incident = self.open.remove(&(segment.clone(), target))?;
        Some(self.remember(incident, now))
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
        let incident = incident.is_over(now).then(|| self.open.remove(&key)).flatten()?;
        Some(self.remember(incident, now))
    }

    /// A lease binds an address to `owner`, whoever it bound it to before (claims.md A18): what that
    /// station was taken for is over, and so is the owner that was.
    pub fn bound(
        &mut self,
        segment: &Segment,
        address: IpAddr,
        (binding, owner): (&Binding, &Claimant),
        now: Now,
    ) -> Vec<Incident> {
        let bridge = Segment::new(Arc::clone(&segment.bridge), 0);
        let mac = owner.mac.map(|mac| (bridge, Target::Mac(mac)));
        let mut over = Vec::new();
        for key in [(segment.clone(), Target::Address(address))].into_iter().chain(mac) {
            let Some(incident) = self.open.get_mut(&key) else { continue };
            incident.owned_by(binding, owner);
            if incident.is_over(now) {
                let over_now = self.open.remove(&key);
                over.extend(over_now.map(|incident| self.remember(incident, now)));
            }
        }
        over
    }

    /// Claimants that were silent for `quiet`.
    pub fn silent(&self, now: Now) -> Vec<Silent> {
        let open = self.open.values();
        open.flat_map(|incident| incident.silent(self.quiet, now)).collect()
    }

    /// A claimant does not answer, or has given the address up.
    pub fn gone(
        &mut self,
        key: &Key,
        (mac, ifindex): (Option<Mac>, Option<u32>),
        now: Now,
    ) -> Option<Incident> {
        let incident = self.open.get_mut(key)?;
        for known in &mut incident.claimants {
            known.gone |= known.mac == mac && known.ifindex == ifindex;
        }
        let over = incident.is_over(now).then(|| self.open.remove(key)).flatten()?;
        Some(self.remember(over, now))
    }

    /// Closes what is over.
    pub fn close(&mut self, now: Now) -> Vec<Incident> {
        self.flaps.forget_old(now.boot);
        for incident in self.open.values_mut() {
            incident.give_up(self.quiet, now);
        }
        let is_over =
            |(key, incident): (&Key, &Incident)| incident.is_over(now).then(|| key.clone());
        let over: Vec<_> = self.open.iter().filter_map(is_over).collect();
        let over: Vec<_> = over.iter().filter_map(|key| self.open.remove(key)).collect();
        over.into_iter().map(|incident| self.remember(incident, now)).collect()
    }

    pub(super) fn remember(&mut self, mut incident: Incident, now: Now) -> Incident {
        (incident.closed_at, incident.closed) = (Some(now.wall), Some(now.boot));
        self.keep(incident.clone());
        incident
    }

    /// One more that has closed, and another that is remembered no more.
    pub(super) fn keep(&mut self, incident: Incident) {
        let goes = self.kept.keep(&incident);
        self.closed.push_back(incident);
        if let Some(at) = self.closed.iter().position(|one| Some(one.id) == goes) {
            self.closed.remove(at);
        }
    }

    fn last_closed(&self, (segment, target): &Key) -> Option<usize> {
        self.closed.iter().rposition(|one| (&one.segment, &one.target) == (segment, target))
    }

    /// One that closed a moment ago goes on when one of its claimants comes back, and does the same or
    /// what is no worse. With anybody else it is another incident.
    pub(super) fn take_up_again(
        &mut self,
        key: &Key,
        kind: Kind,
        claimants: &[Claimant],
        now: Now,
    ) -> Option<Incident> {
        let at = self.last_closed(key)?;
        let incident = self.closed.get(at)?;
        let recent = now.boot.saturating_sub(incident.closed?) <= self.flaps.window();
        let mut sides = claimants.iter().filter(|one| one.role != Role::Owner).peekable();
        let back = sides.peek().is_some() && sides.all(|one| incident.knows(one));
        let dispute = |kind| matches!(kind, Kind::Flap | Kind::Duplicate | Kind::Clone);
        let disputes = dispute(kind) && dispute(incident.kind);
        let same = kind == incident.kind || disputes && kind < incident.kind;
        let incident = (recent && back && same).then(|| self.closed.remove(at)).flatten()?;
        self.kept.forget(incident.id);
        Some(incident)
    }

    /// Frames count within one incident, and the kernel's count of them goes on.
    pub(super) fn count_from_here(&self, key: &Key, claimants: &mut [Claimant]) {
        let before = self.last_closed(key).and_then(|at| self.closed.get(at));
        for one in claimants {
            let known = before.and_then(|before| before.claimants.iter().find(|k| k.is(one)));
            let known = known.map_or(0, |known| known.counter);
            one.counter = one.frames;
            one.frames = if one.frames > known { one.frames - known } else { one.frames };
        }
    }
}

impl Incident {
    /// A declared binding names the owner now: whoever else is on the wire is an impostor.
    fn owned_by(&mut self, binding: &Binding, owner: &Claimant) {
        let bridge = &self.segment.bridge;
        // The host is one by right, and sources tell of owners by name.
        let on_the_wire = |known: &&mut Claimant| {
            !known.is_listed() && known.interface.as_ref() != Some(bridge) && !known.gone
        };
        for known in self.claimants.iter_mut().filter(on_the_wire) {
            if known.station().is_some_and(|station| binding.allows(&station)) {
                (known.role, known.owner) = (Role::Owner, owner.owner.clone());
            } else if known.role == Role::Owner {
                known.gone = !known.is(owner);
            } else {
                known.role = Role::Impostor;
            }
        }
        let there = |known: &Claimant| known.role == Role::Owner && !known.gone;
        if !self.claimants.iter().any(there) {
            match self.claimants.iter_mut().find(|known| known.is(owner)) {
                Some(known) => *known = owner.clone(),
                None => self.claimants.insert(0, owner.clone()),
            }
        }
    }
}
