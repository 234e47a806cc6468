//! Frames that an uplink sends back: those of this bridge's own stations, or of the host, that were sent
//! to a group (claims.md L01b, N02). They claim nothing that moves; the port has a loop.

use guard_ebpf::abi::{CLAIM_GROUP, CLAIM_MISMATCH, CLAIM_SPOOF, EVENT_CLONE, Live};

use super::{Arbiter, Facts, Seen, event::challenger_key, given::Given};
use crate::{evidence::Station, incident::Kind, mac::Mac};

impl Arbiter {
    /// Whether a probe is one of a station here that an uplink has sent back.
    pub(super) fn reflects_probe<F: Facts>(&self, seen: &Seen, given: &Given<'_, F>) -> bool {
        let is_here = |ifindex| given.is_access(ifindex);
        given.may_reflect(seen) && self.tentative.has_probed(seen, is_here)
    }
}

impl<F: Facts> Given<'_, F> {
    pub(super) fn is_access(&self, ifindex: u32) -> bool {
        self.facts.port(ifindex).is_some_and(|port| !port.uplink)
    }

    /// Whether a frame came from an uplink, to a group, and in the name of its own Ethernet source.
    pub(super) fn may_reflect(&self, seen: &Seen) -> bool {
        let own = seen.flags & (CLAIM_MISMATCH | CLAIM_SPOOF) == 0;
        let uplink = self.facts.port(seen.claim.station.ifindex).is_some_and(|port| port.uplink);
        own && uplink && seen.flags & CLAIM_GROUP != 0
    }

    /// Whether a claim from an uplink is one of a station here, or of the host, that has come back.
    pub(super) fn reflects(&self, seen: &Seen) -> bool {
        if !self.may_reflect(seen) {
            return false;
        }
        let (facts, Seen { segment, address, claim, .. }) = (self.facts, seen);
        let mac = claim.station.mac;
        if self.is_hosts(seen) {
            return facts.is_host(segment, *address);
        }
        let holder = facts.holder(segment, *address).map(|holder| holder.binding);
        let bound = holder.is_some_and(|binding| {
            binding.mac == Some(mac) && binding.ifindex.is_some_and(|at| self.is_access(at))
        });
        let is_same = |Station { mac: known, ifindex, .. }: &Station| {
            *known == mac && self.is_access(*ifindex)
        };
        bound || facts.claims(segment, *address).iter().any(|claim| is_same(&claim.station))
    }

    /// The same of a claim on what this station is live with.
    pub(super) fn reflects_live(&self, seen: &Seen, live: &Live) -> bool {
        let own = Mac(live.mac) == seen.claim.station.mac && self.is_access(live.ifindex);
        own && self.may_reflect(seen)
    }

    pub(super) fn is_hosts(&self, seen: &Seen) -> bool {
        self.facts.is_host_mac(seen.key.bridge, seen.claim.station.mac)
    }

    /// A port has sent back a frame of this bridge.
    pub(super) fn looped(&mut self, seen: &Seen) {
        let detail = format!("sends back frames of {}", seen.claim.station.mac);
        let counted = challenger_key(&seen.key, &seen.claim.station, EVENT_CLONE);
        self.about_port(seen, Kind::Loop, 1, Some(counted), Some(detail.into()));
    }
}
