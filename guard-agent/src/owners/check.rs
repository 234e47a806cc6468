//! Compares the bindings here and in the kernel with the leases.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use aya::maps::MapError;
use guard_core::{lease::Lease, segment::Segment};
use guard_ebpf::abi::Owned;

use super::{Owners, binds, used_by};
use crate::datapath::entries;

/// An address about which two disagree, and how.
pub(crate) type Difference = ((Segment, IpAddr), &'static str);

impl Owners {
    /// What disagrees with these leases, which are all, here or in the kernel. Empty is good.
    ///
    /// # Errors
    /// The kernel's map cannot be read.
    pub fn check(&self, leases: &[Arc<Lease>]) -> Result<Vec<Difference>, MapError> {
        let inner = self.inner.lock();
        let mut wrong = Vec::new();
        let mut holders = 0;
        for lease in leases {
            let key = (lease.segment.clone(), lease.address);
            let wanted = binds(lease).then(|| used_by(lease));
            holders += usize::from(wanted.is_some());
            if inner.holders.get(&key).map(|lease| used_by(lease)) != wanted {
                wrong.push((key, "the binding is not the lease's"));
            }
        }
        if inner.holders.len() > holders {
            let leased = |key: &&(Segment, IpAddr)| {
                leases.iter().any(|l| l.segment == key.0 && l.address == key.1)
            };
            let strangers = inner.holders.keys().filter(|key| !leased(key));
            wrong.extend(strangers.map(|key| (key.clone(), "there is a binding and no lease")));
        }
        let Some(map) = &inner.map else { return Ok(wrong) };
        let mut kernel: HashMap<_, _> = entries(&**map)?.into_iter().collect();
        for bridge in inner.bridges.keys() {
            // A gateway can be the host's, too.
            let wanted: HashSet<_> = inner.wanted(bridge).map(|(place, _)| place).collect();
            for place in wanted {
                let has = inner.kernel_key(&place).and_then(|key| kernel.remove(&key));
                if has.map(|owned| Owned { seen_ns: 0, ..owned }) != inner.owned(&place) {
                    wrong.push((place.into_owned(), "the kernel's entry is not the lease's"));
                }
            }
        }
        for key in kernel.keys() {
            let bridge = inner.bridges.iter().find(|(_, ifindex)| **ifindex == key.bridge);
            match bridge {
                Some((name, _)) => {
                    let place = (Segment::new(name.clone(), key.vlan), key.ip());
                    wrong.push((place, "the kernel has an entry and nobody the address"));
                }
                None if inner.settled => {
                    let segment = Segment::new(format!("ifindex {}", key.bridge), key.vlan);
                    wrong.push((
                        (segment, key.ip()),
                        "the kernel has an entry of no watched bridge",
                    ));
                }
                None => {}
            }
        }
        Ok(wrong)
    }
}
