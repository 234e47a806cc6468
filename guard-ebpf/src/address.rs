//! Addresses as map keys.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::abi::AddressKey;

/// Bits of an [`AddressKey`] before the address: a prefix always lies within one segment.
const SEGMENT_BITS: u32 = 64;
/// Bits of an IPv4-mapped IPv6 address before the IPv4 address (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u32 = 96;

/// An IPv4 address as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2).
#[inline(always)]
#[must_use]
pub const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

impl AddressKey {
    /// The key of an address on the bridge with ifindex `bridge`, in a VLAN (0 for untagged).
    #[must_use]
    pub const fn new(bridge: u32, vlan: u16, address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(address) => mapped(address.octets()),
            IpAddr::V6(address) => address.octets(),
        };
        Self { bridge, vlan, inner_vlan: 0, address }
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

    /// The key length that matches every bit.
    pub const FULL_LEN: u32 = SEGMENT_BITS + 128;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_from_its_key() {
        for text in ["10.8.64.2", "0.0.0.0", "2001:db8::1", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(AddressKey::new(3, 7, address).ip(), address);
        }
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
