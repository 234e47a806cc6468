//! Child subnets: prefixes that were carved out of a pool and are somebody else's to hand out.

use std::{collections::BTreeMap, fmt, net::IpAddr, ops::Bound, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::segment::Segment;

/// A prefix that left a pool's allocatable addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Who asked for it; it has one subnet.
    pub id: Arc<str>,
    /// The parent's bridge and VLAN.
    pub segment: Segment,
    /// The prefix, without host bits.
    pub prefix: IpNet,
    /// The parent's name.
    pub pool: Arc<str>,
    /// Since when.
    pub created_at: Timestamp,
    /// The user on whose behalf it was carved out, where that is known.
    pub maker: Option<u32>,
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", self.prefix, &*self.id)
    }
}

/// All child subnets, by identifier and by place. No two share an address of a segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Subnets {
    by_id: BTreeMap<Arc<str>, Arc<Subnet>>,
    by_place: BTreeMap<(Segment, IpAddr), Arc<Subnet>>,
}

impl Subnets {
    pub(super) fn set(&mut self, old: Option<&Arc<Subnet>>, new: Option<&Arc<Subnet>>) {
        let place = |subnet: &Subnet| (subnet.segment.clone(), subnet.prefix.network());
        if let Some(old) = old {
            self.by_id.remove(&old.id);
            self.by_place.remove(&place(old));
        }
        if let Some(new) = new {
            self.by_id.insert(Arc::clone(&new.id), Arc::clone(new));
            self.by_place.insert(place(new), Arc::clone(new));
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Subnet>> {
        self.by_id.get(id)
    }

    /// Those after an identifier, in their order.
    pub(super) fn after(&self, id: Option<&str>) -> impl Iterator<Item = &Arc<Subnet>> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id.range::<str, _>((from, Bound::Unbounded)).map(|(_, subnet)| subnet)
    }

    /// By identifier.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Subnet>> {
        self.by_id.values()
    }

    /// The last subnet of a segment that shares an address with a prefix.
    pub(super) fn touching(&self, segment: &Segment, prefix: IpNet) -> Option<&Arc<Subnet>> {
        let last = (segment.clone(), prefix.broadcast());
        let ((of, _), subnet) = self.by_place.range(..=last).next_back()?;
        // IPv4 addresses are all below those of IPv6.
        (of == segment && subnet.prefix.broadcast() >= prefix.network()).then_some(subnet)
    }

    /// What contradicts itself; empty is good.
    pub(super) fn check(&self) -> Vec<String> {
        let mut anew = Self::default();
        let mut wrong = Vec::new();
        for subnet in self.iter() {
            if let Some(other) = anew.touching(&subnet.segment, subnet.prefix) {
                wrong.push(format!("the subnets {subnet} and {other} overlap"));
            }
            anew.set(None, Some(subnet));
        }
        if anew != *self {
            wrong.push("the index of subnets".to_owned());
        }
        wrong
    }
}
