//! IPv4 (RFC 791): whose address a packet is sent from.

use bytemuck::{Pod, Zeroable};

use crate::{
    abi::{CLAIM_ODD, STRENGTH_USE},
    claim::{Claim, Meaning, NEXT_DHCP, Parsed, is_martian_v4, is_unspecified_v4},
    counters::{MalformedReason, NoClaim},
    frame::Frame,
};

/// The base header (RFC 791 §3.1). The source is in it whatever options follow, and in every
/// fragment (claims.md D08); the checksum is the receiver's business.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    version_ihl: u8,
    tos: u8,
    total_len: [u8; 2],
    id: [u8; 2],
    flags_fragment: [u8; 2],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

const LEN: usize = size_of::<Header>();
/// The shortest header, in words of four bytes.
const IHL_MIN: u8 = 5;
/// The fragment's offset, without the flags above it.
const FRAGMENT_OFFSET: u16 = 0x1fff;
pub(crate) const PROTOCOL_IGMP: u8 = 2;
pub(crate) const PROTOCOL_UDP: u8 = 17;
/// What a bridge that snoops takes for a multicast router (RFC 7761; `br_multicast_pim` in
/// `net/bridge/br_multicast.c`).
pub(crate) const PROTOCOL_PIM: u8 = 103;
/// Source and destination port of a DHCP client's message (RFC 2131 §4.1): 68, 67.
const DHCP_PORTS: [u8; 4] = [0, 68, 0, 67];
/// What a DHCP server sends to, and nobody else (RFC 2131 §4.1).
pub(crate) const CLIENT_PORT: [u8; 2] = [0, 68];
/// A UDP header (RFC 768).
const UDP_LEN: usize = 8;
/// A membership query (RFC 3376 §4), and a multicast router's advertisement (RFC 4286 §3).
const IGMP_QUERY: u8 = 0x11;
const IGMP_ROUTER: u8 = 0x30;

#[inline(always)]
pub(crate) fn parse<F: Frame + ?Sized>(frame: &F, at: usize, parsed: &mut Parsed) -> Meaning {
    let Some(header) = frame.load::<LEN>(at) else {
        return Meaning::Malformed(MalformedReason::Ipv4Truncated);
    };
    let header: Header = bytemuck::must_cast(header);
    if header.version_ihl >> 4 != 4 {
        return Meaning::Malformed(MalformedReason::Ipv4Version);
    }
    if header.version_ihl & 0xf < IHL_MIN {
        return Meaning::Malformed(MalformedReason::Ipv4HeaderLength);
    }
    // claims.md L04.
    if header.protocol == PROTOCOL_IGMP
        && is_first(&header)
        && let Some([IGMP_QUERY | IGMP_ROUTER]) = frame.load::<1>(payload(at, &header))
    {
        return Meaning::NoClaim(NoClaim::Control);
    }
    if header.protocol == PROTOCOL_PIM {
        return Meaning::NoClaim(NoClaim::Control);
    }
    // The ports are in the first eight bytes, which no fragment hides (RFC 791 §3.2).
    if header.protocol == PROTOCOL_UDP
        && is_first(&header)
        && frame.load::<2>(payload(at, &header) + 2) == Some(CLIENT_PORT)
    {
        parsed.packet.server = 1;
    }
    if is_unspecified_v4(header.source) {
        return unspecified(frame, at, &header, parsed);
    }
    if is_martian_v4(header.source) {
        return Meaning::NoClaim(NoClaim::Martian);
    }
    let (segment, eth_src) = (parsed.segment, parsed.eth_src);
    parsed.claims(Claim::v4(segment, header.source, eth_src, eth_src, STRENGTH_USE));
    if u32::from_ne_bytes(header.source) == u32::from_ne_bytes(header.destination)
        || header.ttl == 0
    {
        parsed.claim.flags |= CLAIM_ODD;
    }
    Meaning::Nothing
}

/// Whether what it carries begins in it.
#[inline(always)]
fn is_first(header: &Header) -> bool {
    u16::from_be_bytes(header.flags_fragment) & FRAGMENT_OFFSET == 0
}

/// Where the payload of a packet at `at` begins.
#[inline(always)]
fn payload(at: usize, header: &Header) -> usize {
    at + usize::from(header.version_ihl & 0xf) * 4
}

/// A host that has no address yet may ask for one, and report its groups (claims.md D02).
#[inline(always)]
fn unspecified<F: Frame + ?Sized>(
    frame: &F,
    at: usize,
    header: &Header,
    parsed: &mut Parsed,
) -> Meaning {
    let first = is_first(header);
    let payload = payload(at, header);
    let rightly = match header.protocol {
        // RFC 3376 §4.2.13.
        PROTOCOL_IGMP => true,
        PROTOCOL_UDP if first => frame.load(payload) == Some(DHCP_PORTS),
        _ => false,
    };
    if rightly && header.protocol == PROTOCOL_UDP {
        parsed.packet.at = u32::try_from(payload + UDP_LEN).unwrap_or(0);
        parsed.packet.next = NEXT_DHCP;
    }
    if rightly { Meaning::Nothing } else { Meaning::NoClaim(NoClaim::Unspecified) }
}
