//! Addresses that are in use without a lease: an incident each, and where guests number themselves one
//! for a port and a prefix (claims.md N17).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use guard_core::{
    incident::{Claimant, Kind, Role, Sighting, Target},
    lease::{Binding, Lease, reason},
    segment::Segment,
    time::Now,
};
use ipnet::IpNet;

/// The addresses in use that nobody has.
pub(super) struct Unowned {
    /// Prefixes of pools in which guests number themselves by right.
    slaac: Vec<(Segment, IpNet)>,
    /// What is one incident.
    groups: BTreeMap<(Segment, Target), BTreeSet<IpAddr>>,
}

impl Unowned {
    pub(super) fn new(slaac: Vec<(Segment, IpNet)>) -> Self {
        Self { slaac, groups: BTreeMap::new() }
    }

    /// An address that is in use, and that nobody has.
    pub(super) fn found(&mut self, lease: &Lease, now: Now) -> Option<Sighting> {
        if ![reason::LIVE, reason::UNCONFIRMED_LIVE].contains(&&*lease.reason) {
            return None;
        }
        let by_right = |(segment, prefix): &(Segment, IpNet)| {
            *segment == lease.segment && prefix.contains(&lease.address)
        };
        if self.slaac.iter().any(by_right) {
            return None;
        }
        let Binding { mac, interface, ifindex, .. } = lease.binding.clone();
        let (segment, mut detail) = (lease.segment.clone(), None);
        let target = match (lease.address, ifindex) {
            (IpAddr::V6(address), Some(port)) => {
                let network = network(address);
                let target = Target::Subnet(port, network);
                let group = self.groups.entry((segment.clone(), target.clone())).or_default();
                group.insert(lease.address);
                detail = Some(format!("{} addresses of {network}/64", group.len()).into());
                target
            }
            (address, _) => Target::Address(address),
        };
        let challenger = Claimant {
            mac,
            interface,
            ifindex,
            first_seen: lease.created_at,
            frames: 1,
            ..Claimant::new(Role::Claimant, now)
        };
        let (kind, mild, holder) = (Kind::Unowned, false, None);
        let (critical, unanswered) = (false, false);
        Some(Sighting {
            segment,
            target,
            kind,
            mild,
            critical,
            holder,
            challenger,
            detail,
            unanswered,
        })
    }

    /// An address has an owner, or is not in use any more. Returns what is over with it.
    pub(super) fn gone(&mut self, segment: &Segment, address: IpAddr) -> Option<Target> {
        let mut groups = self.groups.iter_mut();
        let (key, group) =
            groups.find(|((of, _), group)| of == segment && group.contains(&address))?;
        group.remove(&address);
        let key = group.is_empty().then(|| key.clone())?;
        self.groups.remove(&key);
        Some(key.1)
    }

    /// Whether an address is one of a group.
    pub(super) fn has(&self, segment: &Segment, address: IpAddr) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|((of, _), group)| of == segment && group.contains(&address))
    }
}

/// The prefix that the addresses of one interface share (RFC 4291 §2.5.1).
fn network(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use guard_core::{lease::State, mac::Mac};
    use jiff::Timestamp;

    use super::*;
    use crate::clock;

    fn lease(address: &str) -> Lease {
        let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        let binding =
            Binding { mac, interface: Some("v".into()), ifindex: Some(7), ..<_>::default() };
        Lease {
            segment: Segment::new("rt0", 0),
            address: address.parse().unwrap(),
            pool: "p".into(),
            state: State::Quarantined,
            owner: None,
            key: "".into(),
            generation: 0,
            binding,
            reason: reason::LIVE.into(),
            holds: Vec::new(),
            misses: 0,
            missed_at: None,
            boot: 0,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            until: None,
            cooldown_bypassed: false,
            release_order: 0,
            maker: None,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn n17_privacy_addresses_of_a_port_are_one() {
        let mut unowned = Unowned::new(Vec::new());
        let mut found = |address: &str| unowned.found(&lease(address), clock::now()).unwrap();
        let subnet = Target::Subnet(7, "2001:db8::".parse().unwrap());
        assert_eq!(found("2001:db8::a").target, subnet);
        let second = found("2001:db8::b");
        assert_eq!(
            (second.target, &*second.detail.unwrap()),
            (subnet.clone(), "2 addresses of 2001:db8::/64")
        );
        assert_ne!(found("2001:db8:1::a").target, subnet);
        assert_eq!(found("10.8.64.2").target, Target::Address([10, 8, 64, 2].into()));

        let segment = Segment::new("rt0", 0);
        let mut gone = |address: &str| unowned.gone(&segment, address.parse().unwrap());
        assert_eq!(gone("2001:db8::a"), None);
        assert_eq!(gone("2001:db8::b"), Some(subnet), "the last of them");
        assert_eq!(gone("2001:db8::b"), None);
    }

    #[test]
    fn n17_guests_number_themselves_by_right_in_a_slaac_pool() {
        let slaac = (Segment::new("rt0", 0), "2001:db8::/64".parse().unwrap());
        let mut unowned = Unowned::new(vec![slaac]);
        assert_eq!(unowned.found(&lease("2001:db8::a"), clock::now()), None);
        assert!(unowned.found(&lease("2001:db8:1::a"), clock::now()).is_some());
    }
}
