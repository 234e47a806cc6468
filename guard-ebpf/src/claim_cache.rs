//! Whom the program knew a moment ago: the next frame of a burst need not ask for them again.
//!
//! What [`FastClaim::is_current`] found in the maps stays true until the clock's next tick, and until the agent
//! changes an entry, which it counts. The program itself makes nobody unknown: it stamps entries, and
//! inserts where there is none. So a claim is stamped anew a tick late at the most, and a change that
//! another CPU has not seen the count of yet is seen with the next tick.

use bytemuck::Zeroable;

use crate::{fast_path::FastClaim, mac};

/// How many are remembered on each CPU. Two that fall on one slot take it from each other.
pub const SLOTS: u32 = 512;

/// As long as this is the same, nobody who was known has become unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct Moment {
    /// The clock's tick (`jiffies`); never 0.
    pub tick: u64,
    /// The agent's changes of the owners.
    pub owned: u64,
    /// The agent's changes of the live claimants.
    pub live: u64,
}

/// One who was known.
#[derive(Clone, Copy, Debug, Zeroable)]
#[repr(C)]
pub struct CachedClaim {
    moment: Moment,
    key: [u64; 3],
    ifindex: u32,
    mac: mac::Mac,
    strength: u8,
}

impl CachedClaim {
    /// A claim that is known at this moment, which was read before the maps were asked.
    #[inline(always)]
    #[must_use]
    pub const fn new(claim: &FastClaim, from: u32, moment: Moment) -> Self {
        let FastClaim { key, mac, strength, .. } = *claim;
        Self { moment, key, ifindex: from, mac, strength }
    }

    /// Whether the same claim, or a weaker one, was known at this same moment, which is read last: until
    /// then there is more to keep.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, claim: &FastClaim, from: u32, moment: impl FnOnce() -> Moment) -> bool {
        self.ifindex == from
            && is_same(self.key, claim.key)
            && mac::same(self.mac, claim.mac)
            && claim.strength <= self.strength
            && self.moment == moment()
    }
}

/// Word by word: the compiler would call a function for all of them.
#[inline(always)]
const fn is_same([a, b, c]: [u64; 3], [d, e, f]: [u64; 3]) -> bool {
    (a ^ d) | (b ^ e) | (c ^ f) == 0
}

/// Where a claim on an address is remembered, below [`SLOTS`].
#[inline(always)]
#[must_use]
pub const fn slot(key: &[u64; 3]) -> u32 {
    /// 2^64 over the golden ratio: neighbours fall far from each other.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let [segment, high, low] = *key;
    let mixed = segment ^ high ^ low;
    #[expect(clippy::cast_possible_truncation, reason = "below the number of slots")]
    {
        (mixed.wrapping_mul(SPREAD) >> (u64::BITS - SLOTS.ilog2())) as u32
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::must_cast;

    use super::*;
    use crate::{
        abi::{AddressKey, STRENGTH_ASSERT, STRENGTH_USE},
        counters::FrameKind,
    };

    const MOMENT: Moment = Moment { tick: 9, owned: 1, live: 2 };

    fn claim(address: [u8; 4], mac: mac::Mac, strength: u8) -> FastClaim {
        let key = AddressKey::new(3, 0, core::net::IpAddr::from(address));
        FastClaim { kind: FrameKind::Arp, key: must_cast(key), mac, strength }
    }

    #[test]
    fn the_same_claim_is_known_for_the_moment_and_no_other() {
        let mac = [2, 0, 0, 0, 0, 1];
        let known = claim([10, 0, 0, 1], mac, STRENGTH_USE);
        let recent = CachedClaim::new(&known, 7, MOMENT);
        assert!(recent.is(&known, 7, || MOMENT));
        assert!(!recent.is(&known, 8, || MOMENT), "another port");
        for other in [
            claim([10, 0, 0, 2], mac, STRENGTH_USE),
            claim([10, 0, 0, 1], [2, 0, 0, 0, 0, 2], STRENGTH_USE),
            claim([10, 0, 0, 1], mac, STRENGTH_ASSERT),
        ] {
            assert!(!recent.is(&other, 7, || MOMENT), "{other:?}");
        }
        for later in [
            Moment { tick: 10, ..MOMENT },
            Moment { owned: 2, ..MOMENT },
            Moment { live: 3, ..MOMENT },
        ] {
            assert!(!recent.is(&known, 7, || later), "{later:?}");
        }
        let stronger = CachedClaim::new(&claim([10, 0, 0, 1], mac, STRENGTH_ASSERT), 7, MOMENT);
        assert!(stronger.is(&known, 7, || MOMENT));
    }

    #[test]
    fn an_empty_slot_knows_nobody() {
        let nobody = claim([0; 4], [0; 6], 0);
        assert!(!CachedClaim::zeroed().is(&nobody, 0, || MOMENT));
    }

    #[test]
    fn each_address_has_a_slot_and_neighbours_have_their_own() {
        let mut taken = std::collections::BTreeSet::new();
        for last in 0..=255 {
            let at = slot(&claim([10, 0, 0, last], [0; 6], 0).key);
            assert!(at < SLOTS);
            taken.insert(at);
        }
        assert!(taken.len() > 200, "{}", taken.len());
        let key: AddressKey = must_cast(claim([10, 0, 0, 1], [0; 6], 0).key);
        for other in [AddressKey { vlan: 5, ..key }, AddressKey { bridge: 4, ..key }] {
            assert_ne!(slot(&must_cast(key)), slot(&must_cast(other)));
        }
    }
}
