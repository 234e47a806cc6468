//! What a frame says about an address.

use core::hint::black_box;

use bytemuck::{Zeroable, must_cast};

use crate::{
    abi::{
        AddressKey, CLAIM_LINK_LOCAL, CLAIM_MISMATCH, CLAIM_SPOOF, CLAIM_VIRTUAL,
        PORT_ALLOW_ROUTER, PORT_UPLINK, Port,
    },
    address::Segment,
    counters::{FrameKind, MalformedReason, NoClaim, OpaqueReason},
    mac::{self, Mac},
    ndp::{FOUND_BAD, FOUND_MORE},
};

/// A frame, read.
///
/// The claims stand beside [`Meaning`] and not in it: the payload of an enum is undefined in its other
/// variants, and where the compiler merges their paths, the verifier sees a register read that was
/// never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub struct Parsed {
    /// What it is counted as.
    pub kind: FrameKind,
    /// It claims something: [`Parsed::claim`].
    pub claims: bool,
    /// What else its headers say: [`Parsed::beside`] is all of it.
    pub(crate) meaning: Meaning,
    /// Where it belongs.
    pub segment: Segment,
    /// The Ethernet source.
    pub eth_src: Mac,
    /// It has a VLAN tag whose id is not 0.
    pub tagged: bool,
    /// It is neither ARP nor IP (claims.md L05).
    pub foreign: bool,
    /// It is to a group, and to one of bridges.
    pub(crate) group: bool,
    pub(crate) control: bool,
    /// What it says of its sender as a router.
    pub router: Router,
    /// The first claim; means nothing unless it claims.
    pub(crate) claim: Claim,
    /// Where the further claims are.
    pub(crate) further: Further,
    /// The IPv6 packet in it, or the DHCP message.
    pub(crate) packet: Packet,
    /// What a DHCP client says of an address.
    pub(crate) dhcp: Dhcp,
}

impl Parsed {
    /// Forgets an earlier frame. The claim stays until the next one takes its place: all of it would
    /// be a loop over its bytes.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is zero")]
    pub(crate) fn reset(&mut self, segment: Segment) {
        self.claims = false;
        self.meaning = Meaning::Nothing;
        self.segment = segment;
        self.tagged = false;
        self.foreign = false;
        self.router = Router::No;
        let zero = zero();
        self.further.source = [zero; 2];
        self.further.options = zero as u32;
        self.further.end = zero as u32;
        self.further.done = zero as u32;
        self.packet.next = zero as u32;
        self.further.found = zero as u32;
        self.packet.fragment = zero as u32;
        self.packet.mapped = zero as u32;
        self.packet.server = zero as u32;
        self.packet.has_link = zero as u16;
        self.dhcp.message = zero as u32;
        self.dhcp.address = zero as u32;
    }

    /// The first claim, if the frame makes one.
    #[inline(always)]
    #[must_use]
    pub const fn claim(&self) -> Option<&Claim> {
        if self.claims { Some(&self.claim) } else { None }
    }
}

/// What a frame says of its sender as a router (claims.md N09).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
#[repr(u8)]
pub enum Router {
    /// Nothing.
    No,
    /// A neighbour advertisement with the router flag.
    Flag,
    /// A router advertisement, or a redirect.
    Message,
}

/// An IPv6 packet on the way to what it carries. The verifier follows each register along each path
/// that led to it: what one step leaves to the next is kept here, where it does not look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub(crate) struct Packet {
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    /// How far it is read.
    pub(crate) at: u32,
    /// Where the payload ends.
    pub(crate) end: u32,
    /// What comes next: one of the `NEXT_*` constants, or a header's number.
    pub(crate) next: u32,
    pub(crate) hop_limit: u32,
    /// It is a fragment if not 0.
    pub(crate) fragment: u32,
    /// Its source is an IPv4 address if not 0.
    pub(crate) mapped: u32,
    /// It is from a DHCP server if not 0 (claims.md D11).
    pub(crate) server: u32,
    /// The first link-layer address in the options, if `has_link` is not 0.
    pub(crate) link: Mac,
    pub(crate) has_link: u16,
}

/// A message of a DHCP client, as far as it is read. Kept here as with [`Packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub(crate) struct Dhcp {
    /// Its type, 0 if it has none.
    pub(crate) message: u32,
    /// The address that it asks for or declines, in wire order; 0 without one.
    pub(crate) address: u32,
}

/// Nothing: it is read as far as need be.
pub(crate) const NEXT_NOTHING: u32 = 0;
/// The packet itself, at [`Packet::at`].
pub(crate) const NEXT_IPV6: u32 = 1 << 8;
/// A message of neighbour discovery.
pub(crate) const NEXT_ND: u32 = 2 << 8;
/// A message of a DHCP client.
pub(crate) const NEXT_DHCP: u32 = 6 << 8;

/// Where a frame's claims after the first are: further link-layer addresses in the options of an ND
/// message, for the same address, and the source of the packet where that is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub(crate) struct Further {
    /// The source, unspecified if it claims nothing by itself.
    pub(crate) source: [u64; 2],
    /// Where the options begin that have not been read, and where they end: equal if there are none.
    pub(crate) options: u32,
    pub(crate) end: u32,
    /// The type of option that names a link-layer address.
    pub(crate) option: u32,
    /// Not 0 once there is none left.
    pub(crate) done: u32,
    /// How the options were read.
    pub(crate) found: u32,
}

/// What there is to say of a frame beside its claims. What can be read is judged, whatever the rest is
/// ("The belief rule").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
#[repr(u8)]
pub enum Meaning {
    /// Nothing.
    Nothing,
    /// It names a source, but one that nobody can hold.
    NoClaim(NoClaim),
    /// It, or the rest of it, cannot be read.
    Malformed(MalformedReason),
    /// It cannot be read to its end within the bounds, and a receiver may read more.
    Opaque(OpaqueReason),
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
    /// It was made by ARP or ND, of which a port may send only so much about what nobody owns.
    pub limited: bool,
    /// The `CLAIM_*` bits.
    pub flags: u16,
}

impl Parsed {
    /// What there is to say of it beside its claims, given where it comes from: a router may advertise
    /// more than is read, and nothing that claims is among it.
    #[inline(always)]
    #[must_use]
    pub fn beside(&self, port: &Port) -> Meaning {
        let may_route = port.kind == PORT_UPLINK || port.flags & PORT_ALLOW_ROUTER != 0;
        let advertised = may_route && matches!(self.router, Router::Message);
        match self.meaning {
            Meaning::Nothing => {}
            other => return other,
        }
        match self.further.found {
            FOUND_MORE if !advertised => Meaning::Opaque(OpaqueReason::NdOptions),
            FOUND_BAD => Meaning::Malformed(MalformedReason::NdOption),
            // What it carries Linux believes; its source is nobody's (claims.md N16b).
            _ if self.packet.mapped != 0 => Meaning::NoClaim(NoClaim::Martian),
            // As it is in memory: the verifier knows that all of it was written.
            _ => self.meaning,
        }
    }

    /// It claims this.
    #[inline(always)]
    pub(crate) fn claims(&mut self, claim: Claim) {
        self.claim = claim;
        self.claims = true;
    }
}

impl Claim {
    /// A claim on an IPv4 address, with the flags that follow from its addresses alone.
    #[inline(always)]
    #[must_use]
    pub fn v4(segment: Segment, address: [u8; 4], mac: Mac, eth_src: Mac, strength: u8) -> Self {
        // RFC 3927 §2.1.
        let link_local = matches!(address, [169, 254, ..]);
        Self::new(AddressKey::v4(segment, address), link_local, mac, eth_src, strength)
    }

    /// A claim on an IPv6 address, with the flags that follow from its addresses alone.
    #[inline(always)]
    #[must_use]
    pub fn v6(segment: Segment, address: [u8; 16], mac: Mac, eth_src: Mac, strength: u8) -> Self {
        let link_local = is_link_local_v6(address);
        Self::new(AddressKey::v6(segment, address), link_local, mac, eth_src, strength)
    }

    #[inline(always)]
    fn new(key: AddressKey, link_local: bool, mac: Mac, eth_src: Mac, strength: u8) -> Self {
        let flags = if link_local { CLAIM_LINK_LOCAL } else { 0 };
        let mut claim = Self { key, mac, eth_src, strength, limited: false, flags };
        claim.name(mac);
        claim
    }

    /// Makes it a claim of another MAC.
    #[inline(always)]
    pub(crate) fn name(&mut self, mac: Mac) {
        let mut flags = self.flags & !(CLAIM_MISMATCH | CLAIM_SPOOF | CLAIM_VIRTUAL);
        if !mac::same(mac, self.eth_src) {
            flags |= CLAIM_MISMATCH;
        }
        if !mac::is_host(mac) {
            flags |= CLAIM_SPOOF;
        }
        if mac::is_virtual(mac) {
            flags |= CLAIM_VIRTUAL;
        }
        self.mac = mac;
        self.flags = flags;
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

/// As two words: `::` is zero in both.
#[inline(always)]
pub(crate) fn is_unspecified_v6(address: [u8; 16]) -> bool {
    must_cast::<_, [u64; 2]>(address) == [0; 2]
}

/// Whether the address is for a group (RFC 4291 §2.7).
#[inline(always)]
pub(crate) const fn is_group_v6([first, ..]: [u8; 16]) -> bool {
    first == 0xff
}

/// Whether the address is link-local (RFC 4291 §2.5.6).
#[inline(always)]
pub(crate) const fn is_link_local_v6([first, second, ..]: [u8; 16]) -> bool {
    first == 0xfe && second & 0xc0 == 0x80
}

/// Whether no host can have the address: a group's, loopback, or IPv4-mapped (RFC 4291 §2.5.3,
/// §2.5.5.2, RFC 4942 §2.2).
#[inline(always)]
pub(crate) fn is_martian_v6(address: [u8; 16]) -> bool {
    let [high, low]: [u64; 2] = must_cast(address);
    let mapped = u64::from_be(low) >> 32 == 0xffff;
    is_group_v6(address) || (high == 0 && (mapped || u64::from_be(low) == 1))
}

/// Whether the address is an IPv4 address in the form of one of IPv6 (RFC 4291 §2.5.5.2).
#[inline(always)]
pub(crate) fn is_mapped_v6(address: [u8; 16]) -> bool {
    let [high, low]: [u64; 2] = must_cast(address);
    high == 0 && u64::from_be(low) >> 32 == 0xffff
}

/// A zero that the compiler does not know: what it knows to be zero it fills in with a call of a
/// function that loops over bytes.
#[inline(always)]
pub(crate) fn zero() -> u64 {
    black_box(0)
}
