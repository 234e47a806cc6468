//! Claims that age: who has not been heard for the live window is asked for, and one that stays
//! silent is over.

use std::{collections::HashMap, mem::take, net::IpAddr, time::Duration};

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
        let (mut ageing, mut unasked) = (HashMap::new(), Vec::new());
        for (segment, address, claims) in claims {
            let Some((bridge, _)) = given.facts.bridge_named(&segment.bridge) else { continue };
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
                let seen = Seen { key, segment: segment.clone(), address, claim, flags: 0 };
                if asked < PROBES {
                    ageing.insert(counter, asked);
                    unasked.push(seen);
                } else {
                    given.over(seen, self.conflict.live_window);
                }
            }
        }
        (self.ageing, self.unasked) = (ageing, unasked);
        self.ask_ageing(given);
    }

    /// Asks for as many as may be asked for now. The others are live meanwhile.
    pub(super) fn ask_ageing<F: Facts>(&mut self, given: &mut Given<'_, F>) {
        let mut unasked = take(&mut self.unasked);
        unasked.retain(|Seen { key, segment, address, claim, .. }| {
            let Some(asked) = self.ageing.get_mut(&(*key, claim.station.ifindex)) else {
                return false; // With its port.
            };
            let sent = self.questions.ask(&claim.station, (*key, segment, *address), given);
            *asked += u32::from(sent);
            !sent
        });
        self.unasked = unasked;
    }
}

impl<F: Facts> Given<'_, F> {
    fn over(&mut self, seen: Seen, live_window: Duration) {
        self.remark(Remark::Aged, &seen);
        let Seen { key, segment, address, claim, .. } = seen;
        let ifindex = claim.station.ifindex;
        self.effects.push(Effect::Withdraw(segment.clone(), address, ifindex));
        // Others may be over at the same look.
        let (facts, now) = (self.facts, self.now.monotonic);
        let is_live = |claim: &Claim| now.saturating_sub(claim.seen) < live_window;
        if facts.claims(&segment, address).iter().any(is_live) {
            self.left(key, &segment, address, ifindex);
        } else {
            self.effects.push(Effect::ForgetInKernel(key, ifindex));
        }
    }
}
