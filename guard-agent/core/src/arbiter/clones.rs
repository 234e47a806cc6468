//! One MAC on two ports (claims.md L01, L01b).

use guard_ebpf::abi::EVENT_CLONE;

use super::{Arbiter, Effect, Facts, Question, Remark, Seen, given::Given};
use crate::{
    evidence::{Claim, Station},
    incident::{Kind, Role},
    mac::Mac,
};

/// A MAC that is on a second port, and may have left the first without our knowing it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSuspect {
    /// Its frame on the second port.
    pub seen: Seen,
    /// The first port.
    pub holder: u32,
    /// A binding names the MAC on the first port, or it is the gateway's there.
    pub bound: bool,
}

/// The first port, the second one, and the MAC.
pub(super) type CloneKey = (u32, u32, Mac);

impl Arbiter {
    /// A frame came from a MAC that lives on another port. Where a binding names that port and the
    /// MAC, or it is the gateway's there, it is a conflict at once; else a port that ends within the grace was a restart.
    pub(super) fn cloned<F: Facts>(
        &mut self,
        seen: Seen,
        holder: u32,
        may_move: bool,
        given: &mut Given<'_, F>,
    ) {
        let mac = seen.claim.station.mac;
        if may_move {
            return given.effects.push(Effect::ForgetMac(seen.key, mac, holder));
        }
        let ifindex = seen.claim.station.ifindex;
        let Some(port) = given.facts.port(ifindex) else { return };
        let bound = given.facts.is_bound(holder, mac);
        // claims.md A18: one host behind two uplinks. If it is the gateway, its own claim moves its MAC.
        if !bound && port.uplink && given.facts.port(holder).is_some_and(|port| port.uplink) {
            return;
        }
        let bound = bound || given.facts.is_gateway(&port.bridge, holder, mac);
        let seen = given.about(seen, holder);
        let known = given.facts.incident(&seen.segment, seen.target()) == Some(Kind::Clone);
        let suspect = CloneSuspect { seen, holder, bound };
        if bound || known {
            return given.ask(Question::Ports { suspect: Box::new(suspect), both: false });
        }
        let key = (holder, ifindex, mac);
        if self.suspects.contains(&key) {
            return;
        }
        let decide_at = given.now.monotonic + self.conflict.grace;
        let left_out = suspect.seen.clone();
        if !self.suspects.insert(key, (ifindex, &port), decide_at, suspect) {
            given.remark(Remark::LeftOut, &left_out);
        }
    }

    /// The grace of these is over: both ports are still there, or one was a restart.
    pub(super) fn suspects_due<F: Facts>(&mut self, given: &mut Given<'_, F>) {
        for key in self.suspects.due(given.now.monotonic) {
            if let Some(suspect) = self.suspects.remove(&key) {
                given.ask(Question::Ports { suspect: Box::new(suspect), both: true });
            }
        }
    }
}

impl<F: Facts> Given<'_, F> {
    /// An address is what a clone is about only where it is that of the MAC's holder. Whatever else a
    /// frame with a stolen MAC claims, it is about the MAC: or else many that are stolen in the name
    /// of one address would be one incident, in which they are not all named.
    fn about(&self, seen: Seen, holder: u32) -> Seen {
        let Seen { segment, address, claim, .. } = &seen;
        let mac = claim.station.mac;
        let lease = self.facts.holder(segment, *address);
        let is_his = lease.is_some_and(|lease| lease.binding.mac == Some(mac))
            || self.facts.lives(segment, *address, mac, holder);
        if is_his { seen } else { self.about_mac(seen) }
    }

    /// A MAC is on two ports, and both exist.
    pub(super) fn clone_found(&mut self, CloneSuspect { seen, holder, bound }: CloneSuspect) {
        let Some(port) = self.facts.port(holder) else { return };
        let mac = seen.claim.station.mac;
        // Where it was bound to its second port since, it has moved there (claims.md A18).
        if self.facts.is_bound(seen.claim.station.ifindex, mac) {
            return;
        }
        let station = Station { mac, interface: port.interface.clone(), ifindex: holder };
        let (of_holder, of_challenger) =
            if bound { (Role::Owner, Role::Impostor) } else { (Role::Claimant, Role::Claimant) };
        let there = Claim { station, ..seen.claim.clone() };
        let there = self.now.claimant(of_holder, &there, 0, self.facts.behind(holder));
        let critical = self.facts.is_gateway(&port.bridge, holder, mac);
        self.sighting(&seen, Kind::Clone, of_challenger, EVENT_CLONE, |sighting| {
            (sighting.holder, sighting.critical) = (Some(there), critical);
        });
    }
}
