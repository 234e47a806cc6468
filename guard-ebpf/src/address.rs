//! Addresses as map keys.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{
    abi::{AddressKey, Challenger, ChallengerKey, Live, MacKey, NO_VLAN, PortMac, Vlans},
    claim::zero,
    mac::Mac,
};

/// Bits of an [`AddressKey`] before the address: a prefix always lies within one segment.
const SEGMENT_BITS: u32 = 64;
/// Bits of an IPv4-mapped IPv6 address before the IPv4 address (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u32 = 96;

/// Where a frame belongs: a bridge, and a VLAN on it. As in an [`AddressKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Segment {
    /// The bridge's ifindex.
    pub bridge: u32,
    /// The outer VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The inner VLAN id of a doubly tagged frame, else 0.
    pub inner_vlan: u16,
}

/// An IPv4 address as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2).
#[must_use]
const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

impl AddressKey {
    /// The key of an IPv4 address in a segment, made of words: the program makes one of nearly every
    /// frame, and field by field the compiler would fill it with a loop over its bytes.
    #[inline(always)]
    #[must_use]
    pub fn v4(segment: Segment, [a, b, c, d]: [u8; 4]) -> Self {
        let low: u64 = must_cast([0, 0, 0xff, 0xff, a, b, c, d]);
        must_cast([must_cast::<Segment, u64>(segment), 0, low])
    }

    /// The same address as exceptions have it: of a port, and not of its bridge.
    #[inline(always)]
    #[must_use]
    pub const fn on_port(&self, ifindex: u32) -> Self {
        Self { bridge: ifindex, ..*self }
    }

    /// The key of an IPv6 address in a segment.
    #[inline(always)]
    #[must_use]
    pub fn v6(segment: Segment, address: [u8; 16]) -> Self {
        let [high, low]: [u64; 2] = must_cast(address);
        must_cast([must_cast::<Segment, u64>(segment), high, low])
    }

    /// The key that an event has which is about no address: `::` in the segment.
    #[inline(always)]
    #[must_use]
    pub fn none(segment: Segment) -> Self {
        must_cast([must_cast::<Segment, u64>(segment), zero(), zero()])
    }

    /// The key of an address on the bridge with ifindex `bridge`, in a VLAN (0 for untagged).
    #[must_use]
    pub const fn new(bridge: u32, vlan: u16, address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(address) => mapped(address.octets()),
            IpAddr::V6(address) => address.octets(),
        };
        Self { bridge, vlan, inner_vlan: 0, address }
    }

    /// The segment of the address.
    #[inline(always)]
    #[must_use]
    pub const fn segment(&self) -> Segment {
        Segment { bridge: self.bridge, vlan: self.vlan, inner_vlan: self.inner_vlan }
    }

    /// Whether the address is of IPv4.
    #[inline(always)]
    #[must_use]
    pub fn is_v4(&self) -> bool {
        let [_, high, low]: [u64; 3] = must_cast(*self);
        high == 0 && u64::from_be(low) >> 32 == 0xffff
    }

    /// The address, IPv4 as such.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        match self.address {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => {
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            address => IpAddr::V6(Ipv6Addr::from_octets(address)),
        }
    }

    /// The bits of this key that a prefix of `len` bits fixes: the key length in the trie of
    /// prefixes. `len` is in bits of the address's own family.
    #[must_use]
    pub const fn prefix_len(&self, len: u8) -> u32 {
        let family = if self.ip().is_ipv4() { MAPPED_BITS } else { 0 };
        SEGMENT_BITS + family + len as u32
    }

    /// All of the address's family in its segment: the key, and its length. That of IPv6 covers IPv4
    /// as well, unless IPv4 has an entry of its own.
    #[must_use]
    pub const fn family(&self) -> (Self, u32) {
        let address = if self.ip().is_ipv4() { mapped([0; 4]) } else { [0; 16] };
        (Self { address, ..*self }, self.prefix_len(0))
    }

    /// The key length that matches every bit.
    pub const FULL_LEN: u32 = SEGMENT_BITS + 128;
}

impl MacKey {
    /// The key of a MAC on the bridge with ifindex `bridge`, in a VLAN if that filters them, else in 0.
    #[inline(always)]
    #[must_use]
    pub fn new(bridge: u32, vlan: u16, [a, b, c, d, e, f]: Mac) -> Self {
        let segment = Segment { bridge, vlan, inner_vlan: 0 };
        must_cast([must_cast::<Segment, u64>(segment), must_cast([a, b, c, d, e, f, 0, 0])])
    }
}

impl PortMac {
    /// The key.
    #[inline(always)]
    #[must_use]
    pub fn new(ifindex: u32, [a, b, c, d, e, f]: Mac) -> Self {
        let words: [u32; 3] = [ifindex, must_cast([a, b, c, d]), must_cast([e, f, 0, 0])];
        must_cast(words)
    }
}

impl ChallengerKey {
    /// The key, made of words as above.
    #[inline(always)]
    #[must_use]
    pub fn new(key: &AddressKey, ifindex: u32, [a, b, c, d, e, f]: Mac, kind: u8) -> Self {
        let [segment, high, low]: [u64; 3] = must_cast(*key);
        let station: u64 = must_cast([ifindex, must_cast([a, b, c, d])]);
        must_cast([segment, high, low, station, must_cast([e, f, kind, 0, 0, 0, 0, 0])])
    }
}

impl Live {
    /// A claimant that was heard for the first time, made of words as above.
    #[inline(always)]
    #[must_use]
    pub fn new(
        now_ns: u64,
        ifindex: u32,
        [a, b, c, d, e, f]: Mac,
        strength: u8,
        passed: u32,
    ) -> Self {
        let station: u64 = must_cast([ifindex, must_cast([a, b, c, d])]);
        let bits: u64 = must_cast([must_cast([e, f, strength, 0]), passed]);
        must_cast([now_ns, now_ns, station, bits])
    }
}

impl Challenger {
    /// A challenger that was heard for the first time, made of words as above.
    #[inline(always)]
    #[must_use]
    pub fn new(now_ns: u64, told_ns: u64, flags: u16, strength: u8, about: &AddressKey) -> Self {
        let [a, b] = flags.to_ne_bytes();
        let [segment, high, low]: [u64; 3] = must_cast(*about);
        let bits = must_cast([a, b, strength, 0, 0, 0, 0, 0]);
        must_cast([1, now_ns, told_ns, bits, segment, high, low])
    }

    /// The entry for all MACs of a port, of which one has an entry of its own.
    #[inline(always)]
    #[must_use]
    pub fn of_port(now_ns: u64) -> Self {
        let (zero, bits): (_, u64) = (zero(), must_cast([0_u8, 0, 0, 1, 0, 0, 0, 0]));
        must_cast([zero, now_ns, zero, bits, zero, zero, zero])
    }
}

impl Vlans {
    /// Whether the VLAN is one of them.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, vlan: u16) -> bool {
        // No more bits than there are: the verifier sees that it stays in bounds.
        let word = self.member.get(usize::from(vlan >> 6 & 63));
        word.is_some_and(|word| word >> (vlan & 63) & 1 != 0)
    }
}

impl FromIterator<u16> for Vlans {
    /// Ids above 4094, which no frame can have, are left out.
    fn from_iter<I: IntoIterator<Item = u16>>(ids: I) -> Self {
        let mut vlans = Self::zeroed();
        for id in ids.into_iter().filter(|id| *id < NO_VLAN) {
            if let Some(word) = vlans.member.get_mut(usize::from(id >> 6)) {
                *word |= 1 << (id & 63);
            }
        }
        vlans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_key_made_of_words_is_the_same() {
        let mac = [2, 3, 4, 5, 6, 7];
        let key = MacKey { bridge: 3, vlan: 5, reserved: [0; 2], mac, padding: [0; 2] };
        assert_eq!(MacKey::new(3, 5, mac), key);
    }

    #[test]
    fn entries_made_of_words_are_the_same() {
        let (ifindex, mac, kind, strength) = (0x0102_0304, [2, 3, 4, 5, 6, 7], 9, 3);
        let (frames, now_ns, told_ns, flags) = (1, 1 << 40, 1 << 39, 0x0102);
        let key = AddressKey::new(3, 7, "10.8.64.2".parse().unwrap());
        assert_eq!(
            ChallengerKey::new(&key, ifindex, mac, kind),
            ChallengerKey { key, ifindex, mac, kind, reserved: [0; 5] }
        );
        let (first_ns, seen_ns) = (now_ns, now_ns);
        assert_eq!(
            Live::new(now_ns, ifindex, mac, strength, 8),
            Live { first_ns, seen_ns, ifindex, mac, strength, reserved: 0, passed: 8 }
        );
        assert_eq!(
            Challenger::new(now_ns, told_ns, flags, strength, &key),
            Challenger {
                frames,
                seen_ns,
                told_ns,
                flags,
                strength,
                macs: 0,
                reserved: [0; 4],
                about: key,
            }
        );
        let of_port = Challenger { seen_ns: 7, macs: 1, ..Challenger::zeroed() };
        assert_eq!(Challenger::of_port(7), of_port);
    }

    #[test]
    fn the_vlans_of_a_port_are_those_it_was_given() {
        let vlans: Vlans = [1, 63, 64, 4094, 4095, 9000].into_iter().collect();
        assert!((0..4096).filter(|vlan| vlans.has(*vlan)).eq([1, 63, 64, 4094]));
    }

    #[test]
    fn an_address_comes_back_from_its_key() {
        for text in ["10.8.64.2", "0.0.0.0", "2001:db8::1", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(AddressKey::new(3, 7, address).ip(), address);
        }
    }

    #[test]
    fn a_key_made_of_words_is_the_same() {
        let segment = Segment { bridge: 3, vlan: 7, inner_vlan: 0 };
        let key = AddressKey::new(3, 7, "10.8.64.2".parse().unwrap());
        assert_eq!(AddressKey::v4(segment, [10, 8, 64, 2]), key);
    }

    #[test]
    fn a_prefix_counts_the_segment_and_the_mapping() {
        let v4 = AddressKey::new(3, 0, "10.8.64.0".parse().unwrap());
        let v6 = AddressKey::new(3, 0, "2001:db8::".parse().unwrap());
        assert_eq!(v4.prefix_len(24), 64 + 96 + 24);
        assert_eq!(v6.prefix_len(64), 128);
        assert_eq!(v4.prefix_len(32), AddressKey::FULL_LEN);
    }
}
