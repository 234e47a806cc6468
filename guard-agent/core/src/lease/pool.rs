//! The addresses of one prefix on one segment.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{Exclusion, number, ranges::Ranges};
use crate::segment::Segment;

/// What the configuration says of a pool's gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gateway {
    /// It is the first host address. A prefix of one address has none.
    #[default]
    FirstHost,
    /// There is none.
    None,
    /// It is this address.
    Is(IpAddr),
}

/// What the configuration says of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// Its name.
    pub name: Arc<str>,
    /// The bridge and the VLAN.
    pub segment: Segment,
    /// The prefix; host bits do not count.
    pub prefix: IpNet,
    /// The gateway.
    pub gateway: Gateway,
    /// Not handed out.
    pub exclude: Vec<Exclusion>,
    /// How long an address rests after its release.
    pub cooldown: Duration,
    /// Whether the oldest resting address is handed out when no other is left.
    pub cooldown_bypass: bool,
    /// How long a lease may stay unconfirmed.
    pub unconfirmed_ttl: Duration,
    /// How long a quarantined address must be silent.
    pub probation: Duration,
    /// How many live candidates one allocation passes over.
    pub max_attempts: u32,
    /// Whether guests number themselves in it: what they use without a lease is no incident.
    pub slaac: bool,
}

impl PoolSpec {
    /// A pool with the defaults of everything else.
    pub fn new(name: impl Into<Arc<str>>, segment: Segment, prefix: IpNet) -> Self {
        Self {
            name: name.into(),
            segment,
            prefix,
            gateway: Gateway::default(),
            exclude: Vec::new(),
            cooldown: Duration::from_secs(30 * 60),
            cooldown_bypass: true,
            unconfirmed_ttl: Duration::from_secs(10 * 60),
            probation: Duration::from_secs(10 * 60),
            max_attempts: 32,
            slaac: false,
        }
    }
}

/// The specification makes no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Multicast, loopback, link-local, v4-mapped or unspecified.
    #[error("pool {pool:?}: {prefix} is no prefix of unicast addresses that a bridge can carry")]
    NotUnicast {
        /// The pool's name.
        pool: Arc<str>,
        /// The prefix.
        prefix: IpNet,
    },
    /// The gateway is none of the prefix's host addresses.
    #[error("pool {pool:?}: the gateway {gateway} is no host address of {prefix}")]
    Gateway {
        /// The pool's name.
        pool: Arc<str>,
        /// The gateway.
        gateway: IpAddr,
        /// The prefix.
        prefix: IpNet,
    },
    /// An allocation would try no address.
    #[error("pool {pool:?}: max_attempts must be at least 1")]
    NoAttempts {
        /// The pool's name.
        pool: Arc<str>,
    },
    /// Two pools have one name.
    #[error("pool {pool:?} is there twice; give each pool a name of its own")]
    Name {
        /// The name.
        pool: Arc<str>,
    },
    /// Two pools of one segment share addresses.
    #[error("pools {first:?} and {second:?} overlap on {segment}; an address can be in one only")]
    Overlap {
        /// The pool with the lower first address.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
        /// Where both are.
        segment: Segment,
    },
}

/// How an address stands to a pool, whatever its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can be handed out.
    Allocatable,
    /// Network, broadcast, subnet-router anycast or gateway.
    Reserved,
    /// The configuration excludes it.
    Excluded,
    /// It is in a child subnet. The pool alone does not know; its table does.
    Carved,
    /// It is leased on a segment that the pool was on before. The pool alone does not know; its table
    /// does.
    Elsewhere,
    /// It is not in the prefix.
    Outside,
}

/// A pool whose specification holds together.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    spec: PoolSpec,
    allocatable: Ranges,
    reserved: Ranges,
}

impl Pool {
    /// Works out which addresses can be handed out.
    ///
    /// # Errors
    /// The prefix is not for hosts, or the gateway is not in it.
    pub fn new(mut spec: PoolSpec) -> Result<Self, PoolError> {
        spec.prefix = spec.prefix.trunc();
        let prefix = spec.prefix;
        let (first, last) = (number::of(prefix.network()), number::of(prefix.broadcast()));
        if !carries_hosts(prefix) {
            return Err(PoolError::NotUnicast { pool: spec.name, prefix });
        }
        if spec.max_attempts == 0 {
            return Err(PoolError::NoAttempts { pool: spec.name });
        }

        let mut reserved = Ranges::default();
        let host_bits = prefix.max_prefix_len() - prefix.prefix_len();
        if host_bits > 1 {
            // RFC 3021 leaves both addresses of an IPv4 /31 to hosts, RFC 6164 those of an IPv6
            // /127. In a longer IPv6 prefix the all-zero host is the subnet-router anycast address
            // (RFC 4291 §2.6.1); broadcast is an affair of IPv4.
            reserved.insert(first, first);
            if prefix.network().is_ipv4() {
                reserved.insert(last, last);
            }
        }
        let gateway = match spec.gateway {
            Gateway::Is(gateway) => {
                if !prefix.contains(&gateway) || reserved.contains(number::of(gateway)) {
                    return Err(PoolError::Gateway { pool: spec.name, gateway, prefix });
                }
                Some(gateway)
            }
            Gateway::None => None,
            Gateway::FirstHost if host_bits == 0 => None,
            Gateway::FirstHost if host_bits == 1 => Some(prefix.network()),
            Gateway::FirstHost => Some(number::to(first + 1, prefix.network())),
        };
        if let Some(gateway) = gateway {
            reserved.insert(number::of(gateway), number::of(gateway));
        }
        spec.gateway = gateway.map_or(Gateway::None, Gateway::Is);

        let mut allocatable = Ranges::default();
        allocatable.insert(first, last);
        if host_bits > 1 {
            allocatable.remove(first, first);
            if prefix.network().is_ipv4() {
                allocatable.remove(last, last);
            }
        }
        if let Some(gateway) = gateway {
            allocatable.remove(number::of(gateway), number::of(gateway));
        }
        for exclusion in &spec.exclude {
            if exclusion.first().is_ipv4() == prefix.network().is_ipv4() {
                allocatable.remove(number::of(exclusion.first()), number::of(exclusion.last()));
            }
        }
        Ok(Self { spec, allocatable, reserved })
    }

    /// Stands for a pool that the configuration does not have any more, to keep its leases by.
    pub(crate) fn left_over(name: Arc<str>, segment: Segment, address: IpAddr) -> Self {
        let spec = PoolSpec::new(name, segment, IpNet::from(address));
        Self { spec, allocatable: Ranges::default(), reserved: Ranges::default() }
    }

    /// Its addresses rest, and are waited for, as long as another pool's.
    pub(crate) fn set_timers(&mut self, other: &PoolSpec) {
        let PoolSpec { cooldown, unconfirmed_ttl, probation, .. } = *other;
        self.spec = PoolSpec { cooldown, unconfirmed_ttl, probation, ..self.spec.clone() };
    }

    /// What it was made from, the gateway filled in.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    /// Where its addresses live.
    pub fn segment(&self) -> &Segment {
        &self.spec.segment
    }

    /// Its prefix.
    pub fn prefix(&self) -> IpNet {
        self.spec.prefix
    }

    /// Its gateway.
    pub fn gateway(&self) -> Option<IpAddr> {
        if let Gateway::Is(gateway) = self.spec.gateway { Some(gateway) } else { None }
    }

    /// How many addresses can be handed out at all.
    pub fn capacity(&self) -> u128 {
        self.allocatable.len()
    }

    /// How an address stands to the pool.
    pub fn standing(&self, address: IpAddr) -> Standing {
        if !self.spec.prefix.contains(&address) {
            return Standing::Outside;
        }
        match number::of(address) {
            number if self.allocatable.contains(number) => Standing::Allocatable,
            number if self.reserved.contains(number) => Standing::Reserved,
            _ => Standing::Excluded,
        }
    }

    /// All addresses that can be handed out.
    pub(crate) fn allocatable(&self) -> &Ranges {
        &self.allocatable
    }

    pub(crate) fn address(&self, number: u128) -> IpAddr {
        number::to(number, self.spec.prefix.network())
    }
}

fn carries_hosts(prefix: IpNet) -> bool {
    match prefix {
        IpNet::V4(v4) => {
            let first = v4.network();
            v4.prefix_len() > 0
                && !first.is_multicast()
                && !first.is_loopback()
                && first.octets()[0] != 0
                && first.octets()[0] < 240
        }
        IpNet::V6(v6) => {
            let first = v6.network();
            v6.prefix_len() > 0
                && !first.is_multicast()
                && !first.is_unicast_link_local()
                && first != Ipv6Addr::LOCALHOST
                && !first.is_unspecified()
                && first.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
