//! What a frame says about an address.

use bytemuck::Zeroable;

use crate::{
    abi::{AddressKey, CLAIM_LINK_LOCAL, CLAIM_MISMATCH, CLAIM_SPOOF, CLAIM_VIRTUAL},
    address::Segment,
    counters::{FrameKind, MalformedReason, NoClaim},
    mac::{self, Mac},
};

/// A frame, read.
///
/// The claim stands beside [`Says`] and not in it: the payload of an enum is undefined in its other
/// variants, and where the compiler merges their paths, the verifier sees a register read that was
/// never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What it is counted as.
    pub kind: FrameKind,
    /// What it says.
    pub says: Says,
    /// The claim, zero unless it says one.
    pub(crate) claim: Claim,
}

impl Parsed {
    #[inline(always)]
    pub(crate) const fn new(kind: FrameKind, says: Says, claim: Claim) -> Self {
        Self { kind, says, claim }
    }

    /// The claim, if the frame makes one.
    #[inline(always)]
    #[must_use]
    pub const fn claim(&self) -> Option<&Claim> {
        match self.says {
            Says::Claim => Some(&self.claim),
            Says::Nothing | Says::NoClaim(_) | Says::Malformed(_) => None,
        }
    }
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing about an address, rightly.
    Nothing,
    /// Someone holds an address, or means to: [`Parsed::claim`].
    Claim,
    /// It names a source, but one that nobody can hold.
    NoClaim(NoClaim),
    /// It cannot be read.
    Malformed(MalformedReason),
}

/// Evidence that a MAC holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
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
        Self { key: AddressKey::v4(segment, address), mac, eth_src, strength, flags }
    }
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
