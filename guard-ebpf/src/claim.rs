//! What a frame says about an address.

use crate::{
    abi::{AddressKey, CLAIM_LINK_LOCAL, CLAIM_MISMATCH, CLAIM_SPOOF, CLAIM_VIRTUAL},
    address::mapped,
    counters::{FrameKind, MalformedReason, NoClaim},
    mac::{self, Mac},
};

/// A frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What it is counted as.
    pub kind: FrameKind,
    /// What it says.
    pub says: Says,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing about an address, rightly.
    Nothing,
    /// Someone holds an address, or means to.
    Claim(Claim),
    /// It names a source, but one that nobody can hold.
    NoClaim(NoClaim),
    /// It cannot be read.
    Malformed(MalformedReason),
}

/// Evidence that a MAC holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address, in its segment.
    pub key: AddressKey,
    /// The MAC that the protocol names, or the Ethernet source of a data packet.
    pub mac: Mac,
    /// The Ethernet source.
    pub eth_src: Mac,
    /// One of the `STRENGTH_*` constants, not `STRENGTH_NONE`.
    pub strength: u8,
    /// The `CLAIM_*` bits.
    pub flags: u16,
}

impl Claim {
    /// A claim on an IPv4 address, with the flags that follow from its addresses alone.
    #[inline(always)]
    #[must_use]
    pub fn v4(segment: Segment, address: [u8; 4], mac: Mac, eth_src: Mac, strength: u8) -> Self {
        let mut flags = 0;
        if !mac::same(mac, eth_src) {
            flags |= CLAIM_MISMATCH;
        }
        if !mac::is_host(mac) {
            flags |= CLAIM_SPOOF;
        }
        if mac::is_virtual(mac) {
            flags |= CLAIM_VIRTUAL;
        }
        // RFC 3927 §2.1.
        if let [169, 254, ..] = address {
            flags |= CLAIM_LINK_LOCAL;
        }
        let Segment { bridge, vlan, inner_vlan } = segment;
        let key = AddressKey { bridge, vlan, inner_vlan, address: mapped(address) };
        Self { key, mac, eth_src, strength, flags }
    }
}

/// Where a frame belongs: a bridge, and a VLAN on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The bridge's ifindex.
    pub bridge: u32,
    /// The outer VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The inner VLAN id of a doubly tagged frame, else 0.
    pub inner_vlan: u16,
}

/// Whether the address is 0.0.0.0, "no address yet" (RFC 1122 §3.2.1.3a).
#[inline(always)]
pub(crate) const fn is_unspecified_v4(address: [u8; 4]) -> bool {
    u32::from_ne_bytes(address) == 0
}

/// Whether no host can have the address: loopback, multicast, class E with broadcast in it
/// (RFC 1122 §3.2.1.3, RFC 6890).
#[inline(always)]
pub(crate) const fn is_martian_v4([first, ..]: [u8; 4]) -> bool {
    first == 127 || first >= 224
}
