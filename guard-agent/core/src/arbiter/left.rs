//! Who else is known to have an address: the next one to have it when its live claimant leaves, and
//! the one against whom a claim is judged that the program takes for the first.

use std::{net::IpAddr, time::Duration};

use guard_ebpf::abi::{AddressKey, EVENT_CONTEST, Live, STRENGTH_USE};

use super::{Arbiter, Effect, Facts, Seen, event::challenger_key, given::Given};
use crate::{evidence::Claim, segment::Segment};

impl<F: Facts> Given<'_, F> {
    /// Whoever else was heard last with an address that nobody has by right, from another port that is
    /// on its bridge.
    fn other(&self, segment: &Segment, address: IpAddr, ifindex: u32) -> Option<Claim> {
        let facts = self.facts;
        let is_declared = || {
            let holder = facts.holder(segment, address);
            holder.is_some_and(|holder| holder.binding.declared)
                || facts.is_host(segment, address)
                || facts.rule(segment, address).is_some()
        };
        let is_there = |claim: &Claim| {
            let port = facts.port(claim.station.ifindex);
            claim.station.ifindex != ifindex
                && port.is_some_and(|port| port.bridge == segment.bridge)
                && !facts.is_allowed(segment, address, &claim.station)
        };
        let claims = facts.claims(segment, address).into_iter().filter(is_there);
        let last = claims.max_by_key(|claim| (claim.seen, claim.station.ifindex))?;
        (!is_declared()).then_some(last)
    }

    /// A port has no claim on an address any more. The program goes on with another who has one, or
    /// else the next to claim it would be the first.
    pub(super) fn left(&mut self, key: AddressKey, segment: &Segment, address: IpAddr, port: u32) {
        let Some(claim) = self.other(segment, address, port) else {
            return self.effects.push(Effect::ForgetInKernel(key, port));
        };
        let challenger = challenger_key(&key, &claim.station, EVENT_CONTEST);
        self.effects.push(Effect::HoldInstead(key, port, live(&claim)));
        self.effects.push(Effect::ForgetChallenger(challenger));
    }
}

impl Arbiter {
    /// The program has no other claimant of an address that was heard just now. Where another is known
    /// whose port is there, it is judged against that one. False if there is none.
    pub(super) fn contest_known<F: Facts>(
        &mut self,
        seen: &Seen,
        given: &mut Given<'_, F>,
    ) -> bool {
        let Seen { key, segment, address, claim, .. } = seen;
        if given.facts.is_allowed(segment, *address, &claim.station) {
            return false;
        }
        let Some(other) = given.other(segment, *address, claim.station.ifindex) else {
            return false;
        };
        let live = live(&other);
        given.effects.push(Effect::HoldInKernel(*key, live));
        let told = (other.station.ifindex, other.station.mac);
        self.contest(seen.clone(), told, Some(live), given);
        true
    }
}

/// What the program is to know of a claim.
pub(super) fn live(Claim { station, first, seen, .. }: &Claim) -> Live {
    let nanos = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Live {
        first_ns: nanos(first),
        seen_ns: nanos(seen),
        ifindex: station.ifindex,
        mac: station.mac.0,
        strength: STRENGTH_USE,
        reserved: 0,
        passed: 0,
    }
}
