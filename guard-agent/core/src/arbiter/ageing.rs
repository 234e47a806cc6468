//! Claims that age: who has not been heard for the live window is asked for, and one that stays
//! silent is over.

use std::{collections::HashMap, net::IpAddr};

use super::{Arbiter, Effect, Facts, Remark, Seen, given::Given};
use crate::{evidence::Claim, segment::Segment};

/// A claim is asked for so often, a look apart, before it is believed to be over.
pub(super) const PROBES: u32 = 3;

impl Arbiter {
    /// Looks at all claims that count as evidence. No others are remembered from here on.
    pub(super) fn age<F: Facts>(
        &mut self,
        claims: Vec<(Segment, IpAddr, Vec<Claim>)>,
        given: &mut Given<'_, F>,
    ) {
        let mut ageing = HashMap::new();
        for (segment, address, claims) in claims {
            let Some((bridge, mac)) = given.facts.bridge_named(&segment.bridge) else { continue };
            let key = segment.key(bridge, address);
            for claim in claims {
                if given.now.monotonic.saturating_sub(claim.seen) < self.conflict.live_window {
                    continue;
                }
                // Evidence from the leased binding lasts as long as its port.
                let holder = given.facts.holder(&segment, address);
                if holder.is_some_and(|holder| holder.allows(&claim.station)) {
                    continue;
                }
                let counter = (key, claim.station.ifindex);
                let asked = self.ageing.get(&counter).copied().unwrap_or_default();
                let seen = Seen { key, segment: segment.clone(), address, claim };
                if asked < PROBES {
                    ageing.insert(counter, asked + 1);
                    given.probe(mac, seen.claim.station.clone(), &seen);
                } else {
                    given.over(seen);
                }
            }
        }
        self.ageing = ageing;
    }
}

impl<F: Facts> Given<'_, F> {
    fn over(&mut self, seen: Seen) {
        self.remark(Remark::Aged, &seen);
        let Seen { key, segment, address, claim } = seen;
        let ifindex = claim.station.ifindex;
        self.effects.push(Effect::Withdraw(segment, address, ifindex));
        self.effects.push(Effect::ForgetInKernel(key, ifindex));
    }
}
