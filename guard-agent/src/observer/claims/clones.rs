//! One MAC on two ports (claims.md L01), and the bridge's own MAC on one (claims.md L02).

use std::net::Ipv6Addr;

use guard_core::evidence::EvidenceView as _;
use guard_ebpf::abi::{EVENT_BRIDGE_MAC, EVENT_CLONE};

use super::*;
use crate::owners::Holder;

/// A MAC that is on a second port, and may have left the first without our knowing it yet.
pub(super) struct Suspect {
    seen: Seen,
    holder: u32,
    decide_at: Duration,
}

impl Claims {
    /// A frame came from a MAC that lives on another port. Where a binding names that port and the
    /// MAC it is a conflict at once; else a port that ends within the grace was a restart.
    pub(super) fn cloned(&mut self, seen: Seen, holder: u32) {
        let seen = self.about(seen, holder);
        let bound = self.bindings.is_bound(holder, seen.claim.station.mac);
        if bound || self.alerts.is_cloned(&seen.segment, seen.target()) {
            return self.clone_found(&seen, holder, bound);
        }
        let known = self.suspects.iter().any(|suspect| {
            suspect.holder == holder && suspect.seen.claim.station == seen.claim.station
        });
        if !known {
            let decide_at = clock::monotonic() + self.conflict.grace;
            self.suspects.push(Suspect { seen, holder, decide_at });
        }
    }

    /// An address is what a clone is about only where it is that of the MAC's holder. Whatever else a
    /// frame with a stolen MAC claims, it is about the MAC: or else many that are stolen in the name
    /// of one address would be one incident, in which they are not all named.
    fn about(&self, seen: Seen, holder: u32) -> Seen {
        let mac = Some(seen.claim.station.mac);
        let of_lease = |lease: Holder| lease.binding.mac == mac;
        let is_his = self.bindings.holder(&seen.segment, seen.address).is_some_and(of_lease)
            || self
                .live
                .evidence(&seen.segment, seen.address)
                .iter()
                .any(|evidence| evidence.mac == mac && evidence.ifindex == Some(holder));
        if is_his {
            return seen;
        }
        // As a frame that claims nothing is: about the MAC, in all VLANs.
        let segment = Segment::new(seen.segment.bridge.clone(), 0);
        Seen { segment, address: Ipv6Addr::UNSPECIFIED.into(), ..seen }
    }

    fn clone_found(&mut self, seen: &Seen, holder: u32, bound: bool) {
        let Some(port) = self.live.port(holder).filter(|_| exists(holder)) else { return };
        let station =
            Station { mac: seen.claim.station.mac, interface: port.interface, ifindex: holder };
        let role =
            if bound { (Role::Owner, Role::Impostor) } else { (Role::Claimant, Role::Claimant) };
        let there = Claim { station, ..seen.claim.clone() };
        let holder = claimant(role.0, &there, 0, self.bindings.behind(holder));
        self.sighted(seen, Kind::Clone, Some(holder), role.1, EVENT_CLONE);
    }

    /// A port sends as if it were the bridge.
    pub(super) fn bridge_mac(&mut self, seen: &Seen) {
        self.sighted(seen, Kind::Gateway, None, Role::Impostor, EVENT_BRIDGE_MAC);
    }

    /// When the next suspect is due.
    pub(super) fn next_suspect(&self) -> Option<Duration> {
        self.suspects.iter().map(|suspect| suspect.decide_at).min()
    }

    /// Looks at the suspects that are due: both ports are still there, or one was a restart.
    pub(super) fn judge_suspects(&mut self, now: Duration) {
        let (due, later) = std::mem::take(&mut self.suspects)
            .into_iter()
            .partition(|suspect: &Suspect| suspect.decide_at <= now);
        self.suspects = later;
        for Suspect { seen, holder, .. } in due {
            if exists(seen.claim.station.ifindex) {
                self.clone_found(&seen, holder, false);
            }
        }
    }
}
