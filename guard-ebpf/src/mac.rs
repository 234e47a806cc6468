//! Kinds of MAC addresses: host, group, virtual router.

/// A MAC address in wire order.
pub type Mac = [u8; 6];

/// As a number, read in the halfwords to which a frame's and a map's MACs are aligned: one
/// comparison instead of six.
#[inline(always)]
const fn number([a, b, c, d, e, f]: Mac) -> u64 {
    (u16::from_le_bytes([a, b]) as u64)
        | (u16::from_le_bytes([c, d]) as u64) << 16
        | (u16::from_le_bytes([e, f]) as u64) << 32
}

/// Whether two MACs are the same.
#[inline(always)]
#[must_use]
pub const fn same(left: Mac, right: Mac) -> bool {
    number(left) == number(right)
}

/// Whether a host can have the MAC: neither a group's (IEEE 802-2014 §8.2: the first octet's lowest
/// bit; broadcast has it too) nor zero.
#[inline(always)]
#[must_use]
pub const fn is_host(mac: Mac) -> bool {
    let [first, ..] = mac;
    first & 1 == 0 && number(mac) != 0
}

/// Whether the MAC begins with `prefix`, up to its octets that `mask` leaves out.
#[inline(always)]
const fn begins(mac: Mac, prefix: Mac, mask: Mac) -> bool {
    number(mac) & number(mask) == number(prefix)
}

/// Whether the MAC is a virtual router's (claims.md A16, N18).
#[inline(always)]
#[must_use]
pub const fn is_virtual(mac: Mac) -> bool {
    const ALL_BUT_LAST: Mac = [0xff, 0xff, 0xff, 0xff, 0xff, 0];
    // All of them begin so; hardly any sandbox does.
    begins(mac, [0; 6], [0xff, 0xf8, 0, 0, 0, 0])
        // VRRP, and CARP, for IPv4 and IPv6 (RFC 9568 §7.3).
        && (begins(mac, [0, 0, 0x5e, 0, 1, 0], ALL_BUT_LAST)
            || begins(mac, [0, 0, 0x5e, 0, 2, 0], ALL_BUT_LAST)
            // HSRP versions 1 and 2.
            || begins(mac, [0, 0, 0x0c, 0x07, 0xac, 0], ALL_BUT_LAST)
            || begins(mac, [0, 0, 0x0c, 0x9f, 0xf0, 0], [0xff, 0xff, 0xff, 0xff, 0xf0, 0])
            // HSRP version 2 for IPv6.
            || begins(mac, [0, 0x05, 0x73, 0xa0, 0, 0], [0xff, 0xff, 0xff, 0xff, 0xf0, 0])
            // GLBP.
            || begins(mac, [0, 0x07, 0xb4, 0, 0, 0], [0xff, 0xff, 0xff, 0, 0, 0]))
}

/// Whether the MAC is a group's, broadcast among them (IEEE 802-2014 §8.2).
#[inline(always)]
pub(crate) const fn is_group([first, ..]: Mac) -> bool {
    first & 1 != 0
}

/// Whether the MAC is a group's of bridges: those that no bridge forwards (IEEE 802.1Q §8.6.3), or
/// Cisco's for CDP, VTP and PVST (claims.md L04).
#[inline(always)]
pub(crate) const fn is_control(mac: Mac) -> bool {
    begins(mac, [1, 0x80, 0xc2, 0, 0, 0], [0xff, 0xff, 0xff, 0xff, 0xff, 0xf0])
        || begins(mac, [1, 0, 0x0c, 0xcc, 0xcc, 0xcc], [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_groups_and_zero_are_no_hosts() {
        assert!(is_host([2, 0, 0, 0, 0, 1]));
        for mac in [[0; 6], [0xff; 6], [3, 0xbf, 10, 8, 64, 2], [1, 0, 0x5e, 0, 0, 1]] {
            assert!(!is_host(mac), "{mac:x?}");
        }
    }

    #[test]
    fn a16_virtual_routers_are_known_by_their_prefix() {
        for mac in [
            [0, 0, 0x5e, 0, 1, 7],
            [0, 0, 0x5e, 0, 2, 7],
            [0, 0, 0x0c, 7, 0xac, 1],
            [0, 0, 0x0c, 0x9f, 0xf3, 1],
            [0, 5, 0x73, 0xa0, 0x0f, 0xff],
            [0, 7, 0xb4, 0, 1, 1],
        ] {
            assert!(is_virtual(mac), "{mac:x?}");
        }
        for mac in [
            [0, 0, 0x5e, 0, 3, 7],
            [2, 0, 0x5e, 0, 1, 7],
            [0, 0, 0x0c, 0x9f, 0xe3, 1],
            [0, 5, 0x73, 0xa0, 0x10, 0],
        ] {
            assert!(!is_virtual(mac), "{mac:x?}");
        }
    }

    #[test]
    fn l04_groups_of_bridges_are_known() {
        for mac in [[1, 0x80, 0xc2, 0, 0, 0x0e], [1, 0, 0x0c, 0xcc, 0xcc, 0xcd]] {
            assert!(is_control(mac), "{mac:x?}");
        }
        for mac in [[1, 0x80, 0xc2, 0, 0, 0x10], [1, 0, 0x0c, 0xcc, 0xcc, 0xce], [0xff; 6]] {
            assert!(!is_control(mac), "{mac:x?}");
        }
    }
}
