//! Addresses as numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address as an unsigned integer, most significant byte first.
pub(crate) fn of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of this number in the family of `like`.
pub(crate) fn to(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => {
            let number = u32::try_from(number).expect("a number of an IPv4 pool has 32 bits");
            IpAddr::V4(Ipv4Addr::from(number))
        }
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}
