//! What a MAC address says of itself.

/// A MAC address in wire order.
pub type Mac = [u8; 6];

/// As a number: one comparison instead of six, and a mask instead of a loop.
#[inline(always)]
const fn number([a, b, c, d, e, f]: Mac) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
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

/// Prefixes of virtual routers' MACs, as (mask, value): VRRP and CARP for IPv4 and IPv6 (RFC 9568
/// §7.3), HSRP versions 1 and 2, GLBP.
const VIRTUAL: [(u64, u64); 5] = [
    (0xffff_ffff_ff00, 0x0000_5e00_0100),
    (0xffff_ffff_ff00, 0x0000_5e00_0200),
    (0xffff_ffff_ff00, 0x0000_0c07_ac00),
    (0xffff_ffff_f000, 0x0000_0c9f_f000),
    (0xffff_ff00_0000, 0x0007_b400_0000),
];

/// Whether the MAC is a virtual router's (rows A16, N18).
#[inline(always)]
#[must_use]
pub const fn is_virtual(mac: Mac) -> bool {
    let [first, ..] = mac;
    if first != 0 {
        return false;
    }
    let mac = number(mac);
    let [v4, v6, hsrp, hsrp2, glbp] = VIRTUAL;
    mac & v4.0 == v4.1
        || mac & v6.0 == v6.1
        || mac & hsrp.0 == hsrp.1
        || mac & hsrp2.0 == hsrp2.1
        || mac & glbp.0 == glbp.1
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
            [0, 7, 0xb4, 0, 1, 1],
        ] {
            assert!(is_virtual(mac), "{mac:x?}");
        }
        for mac in [[0, 0, 0x5e, 0, 3, 7], [2, 0, 0x5e, 0, 1, 7], [0, 0, 0x0c, 0x9f, 0xe3, 1]] {
            assert!(!is_virtual(mac), "{mac:x?}");
        }
    }
}
