//! Conflicts that no frame shows: the host takes an address that is leased, and a binding is written
//! where another is live.

use std::{net::IpAddr, sync::Arc};

use guard_ebpf::abi::{EVENT_CONTEST, EVENT_VIOLATION};

use super::{Arbiter, Effect, Facts, Holder, Seen, Sighted, given::Given};
use crate::{
    evidence::{Claim, Station, Strength},
    incident::{Kind, Role, Sighting, Target},
    lease::model::Binding,
    mac::Mac,
    segment::Segment,
};

/// An address whose binding was written, and what it was before, if it was another's.
pub type Rebound = (Segment, IpAddr, Option<Binding>);

impl Arbiter {
    /// A binding was written: whoever else is live there is an impostor, but for him whom it was
    /// taken from, and for the port's own claim of before.
    pub(super) fn bound<F: Facts>(
        &mut self,
        (segment, address, former): Rebound,
        given: &mut Given<'_, F>,
    ) {
        let Some((bridge, _)) = given.facts.bridge_named(&segment.bridge) else { return };
        let holder = given.facts.holder(&segment, address);
        let Some(holder) = holder.filter(|holder| holder.binding.declared) else { return };
        let key = segment.key(bridge, address);
        let now = given.now.monotonic;
        let live = given.facts.claims(&segment, address).into_iter();
        let is_live = |c: &Claim| now.saturating_sub(c.seen) < self.conflict.live_window;
        // What only the host knows of, it may have known before another had the address.
        let live = live.filter(|c| is_live(c) && c.strength > Strength::Neighbour);
        let live: Vec<_> = live
            .map(|claim| Seen { key, segment: segment.clone(), address, claim, flags: 0 })
            // What was in doubt is decided.
            .chain(self.pending.remove(&key).map(|pending| pending.challenger))
            .collect();
        for seen in live {
            let station = &seen.claim.station;
            let may = holder.allows(station)
                || former.as_ref().is_some_and(|former| {
                    let own = holder.binding.ifindex == Some(station.ifindex);
                    (former.declared || own) && former.allows(station)
                })
                || given.facts.is_allowed(&segment, address, station);
            if !may && given.facts.port(station.ifindex).is_some() {
                self.violation(seen, given);
            }
        }
    }
}

impl<F: Facts> Given<'_, F> {
    /// The host has these addresses, which it did not have before, and those no more.
    pub(super) fn host_addresses(
        &mut self,
        bridge: &Arc<str>,
        new: &[(u16, IpAddr)],
        old: &[(u16, IpAddr)],
    ) {
        let Some((ifindex, mac)) = self.facts.bridge_named(bridge) else { return };
        for (vlan, address) in old {
            let segment = Segment::new(Arc::clone(bridge), *vlan);
            self.gone((segment, Target::Address(*address), Some(mac), Some(ifindex)));
        }
        for (vlan, address) in new {
            let segment = Segment::new(Arc::clone(bridge), *vlan);
            if let Some(holder) = self.facts.holder(&segment, *address) {
                self.taken_by_host(&segment, *address, &holder);
            }
        }
    }

    /// Macvlans over a bridge have these addresses, which they did not have before, and those no more.
    /// One that has what is leased to its own MAC, or to nobody known yet, is right.
    pub(super) fn above(
        &mut self,
        bridge: &Arc<str>,
        new: &[(u16, IpAddr, Mac)],
        old: &[(u16, IpAddr, Mac)],
    ) {
        let Some((ifindex, _)) = self.facts.bridge_named(bridge) else { return };
        for (vlan, address, mac) in old {
            let segment = Segment::new(Arc::clone(bridge), *vlan);
            self.gone((segment, Target::Address(*address), Some(*mac), Some(ifindex)));
        }
        for (vlan, address, mac) in new {
            let segment = Segment::new(Arc::clone(bridge), *vlan);
            let is_of_another = |binding: &Binding| {
                let on_port = binding.ifindex.is_some() || binding.interface.is_some();
                on_port || binding.mac.is_some_and(|bound| bound != *mac)
            };
            let holder = self.facts.holder(&segment, *address);
            if let Some(holder) = holder.filter(|holder| is_of_another(&holder.binding))
                && let Some(host) = self.host_claim(&segment)
            {
                let station = Station { mac: *mac, ..host.station };
                self.taken_by(&segment, *address, &holder, &Claim { station, ..host });
            }
        }
    }

    /// The host has an address that is leased: its owner is the lease's.
    fn taken_by_host(&mut self, segment: &Segment, address: IpAddr, holder: &Holder) {
        if let Some(claim) = self.host_claim(segment) {
            self.taken_by(segment, address, holder, &claim);
        }
    }

    fn taken_by(&mut self, segment: &Segment, address: IpAddr, holder: &Holder, claim: &Claim) {
        let at = claim.seen;
        let sighting = Sighting {
            segment: segment.clone(),
            target: Target::Address(address),
            kind: Kind::Duplicate,
            mild: false,
            critical: false,
            holder: Some(holder.claimant(self.now.now)),
            challenger: self.now.claimant(Role::Claimant, claim, 0, None),
            detail: None,
            unanswered: false,
        };
        self.effects.push(Effect::Sighted(Box::new(Sighted { sighting, counted: None, seen: at })));
    }

    /// A claim on what nobody has leased and the host has on another device, for which it may answer
    /// here as well (claims.md A20).
    pub(super) fn beside_host(&mut self, seen: &Seen) {
        let (facts, Seen { segment, address, claim, .. }) = (self.facts, seen);
        let is_told = facts.is_host(segment, *address)
            && !facts.is_reserved(segment, *address)
            && facts.holder(segment, *address).is_none()
            && !facts.is_allowed(segment, *address, &claim.station)
            && !self.is_of_host_beside(seen);
        if is_told && let Some(host) = self.host_claim(segment) {
            let host = self.now.claimant(Role::Owner, &host, 0, None);
            self.sighted(seen, Kind::Duplicate, Some(host), Role::Claimant, EVENT_CONTEST);
        }
    }

    /// Whether it is the host itself that claims one of its own addresses, by a device beside the bridge
    /// that leads to the segment (claims.md A21).
    pub(super) fn is_of_host_beside(&self, Seen { segment, address, claim, .. }: &Seen) -> bool {
        let Station { mac, ifindex, .. } = claim.station;
        !self.is_access(ifindex)
            && self.facts.is_beside(mac)
            && self.facts.is_host(segment, *address)
    }

    /// What the host says of an address of its own.
    fn host_claim(&self, segment: &Segment) -> Option<Claim> {
        let (ifindex, mac) = self.facts.bridge_named(&segment.bridge)?;
        let at = self.now.monotonic;
        let station = Station { mac, interface: Arc::clone(&segment.bridge), ifindex };
        Some(Claim { station, strength: Strength::Assert, first: at, seen: at })
    }

    /// A claim on an address that the host has, and that is leased to `holder`.
    pub(super) fn against_host(&mut self, seen: Seen, holder: &Holder) {
        self.taken_by_host(&seen.segment, seen.address, holder);
        if holder.allows(&seen.claim.station) {
            self.spoke(&seen);
            self.claimed(seen);
        } else {
            self.sighted(&seen, Kind::Duplicate, None, Role::Impostor, EVENT_VIOLATION);
            self.effects.push(Effect::Contested(seen));
        }
    }
}
