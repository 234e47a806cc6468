//! All configured pools.

use std::{collections::HashSet, sync::Arc};

use super::{Pool, PoolError, number};

/// Pools with names of their own, none of which shares an address of a segment with another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pools(Vec<Pool>);

impl Pools {
    /// Checks the pools against each other.
    ///
    /// # Errors
    /// Two have one name, or two overlap on one segment.
    pub fn new(pools: Vec<Pool>) -> Result<Self, PoolError> {
        let mut names = HashSet::new();
        for pool in &pools {
            if !names.insert(Arc::clone(pool.name())) {
                return Err(PoolError::Name { pool: Arc::clone(pool.name()) });
            }
        }
        let mut sorted: Vec<_> = pools
            .iter()
            .map(|pool| {
                let (first, last) = (pool.prefix().network(), pool.prefix().broadcast());
                (pool.segment(), first.is_ipv6(), number::of(first), number::of(last), pool.name())
            })
            .collect();
        sorted.sort();
        for pair in sorted.windows(2) {
            let [(segment, v6, _, last, first_name), (other, other_v6, first, _, name)] = pair
            else {
                continue;
            };
            if (segment, v6) == (other, other_v6) && first <= last {
                return Err(PoolError::Overlap {
                    first: Arc::clone(first_name),
                    second: Arc::clone(name),
                    segment: (*segment).clone(),
                });
            }
        }
        Ok(Self(pools))
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.0.iter().find(|pool| &**pool.name() == name)
    }

    /// In the order of the configuration.
    pub fn iter(&self) -> std::slice::Iter<'_, Pool> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Pools {
    type Item = &'a Pool;
    type IntoIter = std::slice::Iter<'a, Pool>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for Pools {
    type Item = Pool;
    type IntoIter = std::vec::IntoIter<Pool>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lease::PoolSpec, segment::Segment};

    fn pool(name: &str, bridge: &str, vlan: u16, prefix: &str) -> Pool {
        let spec = PoolSpec::new(name, Segment::new(bridge, vlan), prefix.parse().unwrap());
        Pool::new(spec).unwrap()
    }

    #[test]
    fn overlap_is_compared_as_numbers_and_by_segment() {
        let base = || pool("a", "br0", 0, "10.9.0.0/16");
        for (bridge, vlan, prefix, fits) in [
            ("br0", 0, "10.10.0.0/16", true),
            ("br0", 0, "10.9.128.0/24", false),
            ("br0", 0, "10.0.0.0/8", false),
            ("br0", 7, "10.9.0.0/16", true),
            ("br1", 0, "10.9.0.0/16", true),
            ("br0", 0, "fd00::/64", true),
        ] {
            let pools = Pools::new(vec![base(), pool("b", bridge, vlan, prefix)]);
            assert_eq!(pools.is_ok(), fits, "{bridge} {vlan} {prefix}");
        }
        // A pool inside the first of three, with another between them in the configuration.
        let three = vec![
            pool("inner", "br0", 0, "10.9.7.0/24"),
            pool("other", "br0", 0, "10.10.0.0/16"),
            base(),
        ];
        assert!(matches!(Pools::new(three), Err(PoolError::Overlap { .. })));
    }

    #[test]
    fn a_name_is_given_once() {
        let pools = vec![pool("a", "br0", 0, "10.9.0.0/24"), pool("a", "br1", 0, "10.9.0.0/24")];
        assert!(matches!(Pools::new(pools), Err(PoolError::Name { .. })));
    }
}
