//! IPv6 (RFC 8200): whose address a packet is sent from, and its extension headers.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{
    abi::STRENGTH_USE,
    claim::{
        Claim, Meaning, NEXT_ND, NEXT_NOTHING, Packet, Parsed, is_mapped_v6, is_martian_v6,
        is_unspecified_v6,
    },
    counters::{MalformedReason, NoClaim, OpaqueReason},
    frame::Frame,
    ipv4::PROTOCOL_UDP,
    ndp,
};

/// The base header (RFC 8200 §3) up to its addresses.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    version_class_flow: [u8; 4],
    payload_len: [u8; 2],
    next: u8,
    hop_limit: u8,
}

/// Where the addresses begin, and where the base header ends.
pub(crate) const ADDRESSES: usize = size_of::<Header>();
const LEN: u32 = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMP: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// The most extension headers that are read. Linux follows more.
const MAX_EXTENSIONS: usize = 8;
/// A fragment's offset, without the flags below it.
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// [`Packet::next`] where the headers have led: to ICMP, and to anything else.
const LED_TO_ICMP: u32 = ICMP as u32;
const LED_TO_OTHER: u32 = 3 << 8;
/// More headers than are read.
const LED_NOWHERE: u32 = 4 << 8;
/// The frame ends before.
const LED_OUT: u32 = 5 << 8;
/// To a UDP header, which is not in a later fragment.
const LED_TO_UDP: u32 = 7 << 8;
/// What a DHCP server sends to, and nobody else (RFC 8415 §7.2): 546.
pub(crate) const CLIENT_PORT: [u8; 2] = [2, 34];

/// Whether the header may stand before neighbour discovery: the fast path leaves it alone.
#[inline(always)]
pub(crate) const fn may_lead_to_icmp(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | ICMP | DESTINATION_OPTIONS)
}

/// Reads the packet at [`Packet::at`], up to neighbour discovery. A BPF
/// subprogram.
#[inline(never)]
pub(crate) fn parse<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) {
    let at = parsed.packet.at as usize;
    parsed.packet.next = NEXT_NOTHING;
    parsed.meaning = match base_header(frame, at, parsed) {
        Ok(()) => {
            walk(frame, &mut parsed.packet);
            upper_layer(frame, parsed)
        }
        Err(meaning) => meaning,
    };
}

#[inline(always)]
fn base_header<F: Frame + ?Sized>(
    frame: &F,
    at: usize,
    parsed: &mut Parsed,
) -> Result<(), Meaning> {
    let (Some(header), Some(addresses)) =
        (frame.load::<ADDRESSES>(at), frame.load::<32>(at + ADDRESSES))
    else {
        return Err(Meaning::Malformed(MalformedReason::Ipv6Truncated));
    };
    let header: Header = must_cast(header);
    let [source, destination]: [[u8; 16]; 2] = must_cast(addresses);
    let [version_class, ..] = header.version_class_flow;
    if version_class >> 4 != 6 {
        return Err(Meaning::Malformed(MalformedReason::Ipv6Version));
    }
    if is_martian_v6(source) && !is_mapped_v6(source) {
        return Err(Meaning::NoClaim(NoClaim::Martian));
    }
    let len = u32::from(u16::from_be_bytes(header.payload_len));
    let packet = &mut parsed.packet;
    packet.at += LEN;
    packet.end = packet.at + len;
    if len == 0 && header.next == HOP_BY_HOP {
        // A jumbogram has its length in an option, and Linux takes the frame's where there is none
        // (claims.md N12b).
        packet.end = frame.size();
    }
    packet.next = u32::from(header.next);
    packet.hop_limit = u32::from(header.hop_limit);
    packet.source = source;
    packet.mapped = u32::from(is_mapped_v6(source));
    packet.destination = destination;
    Ok(())
}

/// Follows the extension headers that Linux follows (claims.md N13). A BPF subprogram.
#[inline(never)]
fn walk<F: Frame + ?Sized>(frame: &F, packet: &mut Packet) {
    for _ in 0..=MAX_EXTENSIONS {
        #[expect(clippy::cast_possible_truncation, reason = "a header's number")]
        let next = packet.next as u8;
        if next == ICMP {
            return;
        }
        if !may_lead_to_icmp(next) {
            packet.next = if next == PROTOCOL_UDP { LED_TO_UDP } else { LED_TO_OTHER };
            return;
        }
        let Some([following, len, offset_high, offset_low]) = frame.load::<4>(packet.at as usize)
        else {
            packet.next = LED_OUT;
            return;
        };
        packet.at += match next {
            FRAGMENT => {
                if u16::from_be_bytes([offset_high, offset_low]) & FRAGMENT_OFFSET != 0 {
                    // What the first fragment hides is reported there.
                    packet.next = LED_TO_OTHER;
                    return;
                }
                packet.fragment = 1;
                8
            }
            // RFC 4302 §2.2: in words of four bytes, without two.
            AUTHENTICATION => (u32::from(len) + 2) * 4,
            _ => (u32::from(len) + 1) * 8,
        };
        packet.next = u32::from(following);
    }
    packet.next = LED_NOWHERE;
}

#[inline(always)]
fn upper_layer<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) -> Meaning {
    let led_to = parsed.packet.next;
    parsed.packet.next = NEXT_NOTHING;
    let fragment = parsed.packet.fragment != 0;
    match led_to {
        LED_NOWHERE => {
            packet_from(parsed);
            return Meaning::Opaque(OpaqueReason::ExtensionHeaders);
        }
        LED_OUT => return cut_off(fragment, parsed),
        LED_TO_ICMP => {}
        LED_TO_UDP => {
            if frame.load::<2>(parsed.packet.at as usize + 2) == Some(CLIENT_PORT) {
                parsed.packet.server = 1;
            }
            return packet_from(parsed);
        }
        _ => return packet_from(parsed),
    }
    let Some([kind, ..]) = frame.load::<4>(parsed.packet.at as usize) else {
        return cut_off(fragment, parsed);
    };
    if ndp::is_ndp(kind) {
        // RFC 6980: must not be fragmented. Not every receiver knows.
        if fragment {
            packet_from(parsed);
            return Meaning::Opaque(OpaqueReason::Fragment);
        }
        parsed.packet.next = NEXT_ND;
        return Meaning::Nothing;
    }
    if ndp::is_query(kind) {
        return Meaning::NoClaim(NoClaim::Control);
    }
    // A host that has no address yet reports its groups (claims.md N15, RFC 3590).
    if ndp::is_mld(kind) && is_unspecified_v6(parsed.packet.source) {
        return Meaning::Nothing;
    }
    packet_from(parsed)
}

/// A first fragment that ends within the headers is what RFC 7112 forbids: the next one may carry
/// anything.
#[inline(always)]
fn cut_off(fragment: bool, parsed: &mut Parsed) -> Meaning {
    packet_from(parsed);
    if fragment {
        Meaning::Opaque(OpaqueReason::Fragment)
    } else {
        Meaning::Malformed(MalformedReason::Ipv6Truncated)
    }
}

/// The source of a packet is in use (claims.md N17).
#[inline(always)]
fn packet_from(parsed: &mut Parsed) -> Meaning {
    let source = parsed.packet.source;
    if is_unspecified_v6(source) {
        return Meaning::NoClaim(NoClaim::Unspecified);
    }
    if !is_mapped_v6(source) {
        let (segment, eth_src) = (parsed.segment, parsed.eth_src);
        parsed.claims(Claim::v6(segment, source, eth_src, eth_src, STRENGTH_USE));
    }
    Meaning::Nothing
}
