//! Two masters of one virtual router (claims.md A16b): both send from its MAC, each from its own port, and
//! neither need ever claim its address.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use guard_ebpf::{abi::EVENT_ALLOWED, mac};

use super::{Facts, Seen, given::Given};
use crate::{
    evidence::Claim,
    incident::{Kind, Role},
    mac::Mac,
    segment::Segment,
};

/// A master advertises itself every second (RFC 9568 §5.2.7), and is stamped as often.
const AT_ONCE: Duration = Duration::from_secs(3);

/// The virtual routers that had several masters at the last look.
#[derive(Debug, Default)]
pub(super) struct Masters(HashSet<(Segment, Mac)>);

impl Masters {
    /// Looks at all claims that count as evidence. Who has two masters at one look may be failing over.
    pub(super) fn look<F: Facts>(
        &mut self,
        claims: &[(Segment, IpAddr, Vec<Claim>)],
        given: &mut Given<'_, F>,
    ) {
        let now = given.now.monotonic;
        let mut masters = BTreeMap::<_, BTreeMap<u32, (IpAddr, &Claim)>>::new();
        for (segment, address, claims) in claims {
            for claim in claims {
                let station = &claim.station;
                if mac::is_virtual(station.mac.0)
                    && now.saturating_sub(claim.seen) < AT_ONCE
                    && given.facts.is_virtual_router(segment, &station.interface)
                {
                    let ports = masters.entry((segment.clone(), station.mac)).or_default();
                    ports.entry(station.ifindex).or_insert((*address, claim));
                }
            }
        }
        masters.retain(|_, ports| ports.len() > 1);
        let before = std::mem::take(&mut self.0);
        for (router, ports) in masters {
            if before.contains(&router) {
                given.two_masters(&router.0, ports.into_values());
            }
            self.0.insert(router);
        }
    }
}

impl<F: Facts> Given<'_, F> {
    fn two_masters<'c>(
        &mut self,
        segment: &Segment,
        mut masters: impl Iterator<Item = (IpAddr, &'c Claim)>,
    ) {
        let Some((address, first)) = masters.next() else { return };
        let Some((bridge, _)) = self.facts.bridge_named(&segment.bridge) else { return };
        let behind = self.facts.behind(first.station.ifindex);
        let first = self.now.claimant(Role::Claimant, first, 1, behind);
        for (_, claim) in masters {
            let key = segment.key(bridge, address);
            let claim = claim.clone();
            let seen = Seen { key, segment: segment.clone(), address, claim, flags: 0 };
            let holder = Some(first.clone());
            self.sighted(&seen, Kind::Flap, holder, Role::Claimant, EVENT_ALLOWED);
        }
    }
}
