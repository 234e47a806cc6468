//! Neighbour discovery (RFC 4861, RFC 4862): who says that an address is at which MAC.

use bytemuck::must_cast;

use crate::{
    abi::{CLAIM_ROUTER, CLAIM_WEAK, STRENGTH_ASSERT, STRENGTH_TENTATIVE, STRENGTH_USE},
    claim::{
        Claim, Further, Meaning, Packet, Parsed, Router, is_group_v6, is_link_local_v6,
        is_mapped_v6, is_martian_v6, is_unspecified_v6,
    },
    counters::MalformedReason,
    frame::Frame,
};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// The flags of an advertisement (RFC 4861 §4.4).
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// The link-layer address options, of the source and of the target (RFC 4861 §4.6.1).
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
/// The most options that are read.
pub(crate) const MAX_OPTIONS: usize = 8;

/// The begin of a solicited-node group (RFC 4291 §2.7.1), before the last three octets of a member.
const SOLICITED_NODE: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];

/// Whether the ICMP type is neighbour discovery's.
#[inline(always)]
pub(crate) const fn is_ndp(kind: u8) -> bool {
    kind >= ROUTER_SOLICITATION && kind <= REDIRECT
}

/// Whether the ICMP type is multicast listener discovery's (RFC 2710, RFC 3810).
#[inline(always)]
pub(crate) const fn is_mld(kind: u8) -> bool {
    matches!(kind, 130..=132 | 143)
}

/// Whether the ICMP type asks who is in a group, or is a multicast router's advertisement (RFC 4286 §3;
/// claims.md L04).
#[inline(always)]
pub(crate) const fn is_query(kind: u8) -> bool {
    matches!(kind, 130 | 151)
}

/// Reads a message. What RFC 4861 tells receivers to discard is malformed (claims.md N11). A
/// BPF subprogram.
#[inline(never)]
pub(crate) fn parse<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) {
    let Some([kind, code, _, _, flags, _, _, _]) = frame.load::<8>(parsed.packet.at as usize)
    else {
        parsed.meaning = Meaning::Malformed(MalformedReason::Ipv6Truncated);
        return;
    };
    parsed.meaning = match header(frame, kind, code, &mut parsed.packet, &mut parsed.further) {
        Ok(()) => {
            read_options(frame, &mut parsed.packet, &mut parsed.further);
            // What could be read is judged, whatever follows it (claims.md N12).
            if parsed.further.found == FOUND_BAD && parsed.packet.has_link == 0 {
                Meaning::Malformed(MalformedReason::NdOption)
            } else {
                message(frame, kind, flags, parsed)
            }
        }
        Err(reason) => Meaning::Malformed(reason),
    };
}

/// What the options were read to: their end, one that cannot be read, or the bound.
const FOUND_ALL: u32 = 1;
pub(crate) const FOUND_BAD: u32 = 2;
pub(crate) const FOUND_MORE: u32 = 3;

/// Checks what all messages have in common.
#[inline(always)]
fn header<F: Frame + ?Sized>(
    frame: &F,
    kind: u8,
    code: u8,
    packet: &mut Packet,
    further: &mut Further,
) -> Result<(), MalformedReason> {
    if packet.hop_limit != 255 {
        return Err(MalformedReason::NdHopLimit);
    }
    if code != 0 {
        return Err(MalformedReason::NdCode);
    }
    let (len, wanted) = match kind {
        ROUTER_SOLICITATION => (8, OPTION_SOURCE),
        ROUTER_ADVERTISEMENT => (16, OPTION_SOURCE),
        NEIGHBOUR_SOLICITATION => (24, OPTION_SOURCE),
        NEIGHBOUR_ADVERTISEMENT => (24, OPTION_TARGET),
        _ => (40, OPTION_TARGET),
    };
    if packet.at + len > packet.end {
        return Err(MalformedReason::NdLength);
    }
    if frame.load::<1>(packet.end as usize - 1).is_none() {
        return Err(MalformedReason::Ipv6Truncated);
    }
    if is_from_router(kind) && !is_link_local_v6(packet.source) {
        return Err(MalformedReason::NdSource);
    }
    further.options = packet.at + len;
    further.end = packet.end;
    further.option = u32::from(wanted);
    Ok(())
}

#[inline(always)]
const fn is_from_router(kind: u8) -> bool {
    matches!(kind, ROUTER_ADVERTISEMENT | REDIRECT)
}

#[inline(always)]
fn message<F: Frame + ?Sized>(frame: &F, kind: u8, flags: u8, parsed: &mut Parsed) -> Meaning {
    if is_from_router(kind) {
        parsed.router = Router::Message;
    }
    match kind {
        NEIGHBOUR_SOLICITATION => solicitation(frame, parsed),
        NEIGHBOUR_ADVERTISEMENT => advertisement(frame, flags, parsed),
        REDIRECT if parsed.packet.has_link != 0 => about_target(frame, 0, parsed),
        _ => about_source(parsed),
    }
}

/// Reads all options (claims.md N12): what the first link-layer address is, and where to look for
/// more. A BPF subprogram.
#[inline(never)]
fn read_options<F: Frame + ?Sized>(frame: &F, packet: &mut Packet, further: &mut Further) {
    let mut rest = 0;
    further.found = FOUND_MORE;
    for number in 0..=MAX_OPTIONS {
        if further.options == further.end {
            further.found = FOUND_ALL;
        }
        if further.found == FOUND_ALL || number == MAX_OPTIONS {
            break;
        }
        let Some([kind, units, mac @ ..]) = frame.load::<8>(further.options as usize) else {
            further.found = FOUND_BAD;
            break;
        };
        let first = u32::from(kind) == further.option && packet.has_link == 0;
        let next = further.options + u32::from(units) * 8;
        // Of a further one Linux does not look at the length (`ndisc_parse_options`).
        if units == 0 || next > further.end || (first && units != 1) {
            further.found = FOUND_BAD;
            break;
        }
        further.options = next;
        if first {
            packet.link = mac;
            packet.has_link = 1;
            rest = next;
        }
    }
    further.end = further.options;
    if rest != 0 {
        further.options = rest;
    }
}

#[inline(always)]
fn solicitation<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) -> Meaning {
    let Some(target) = target(frame, &parsed.packet) else {
        return Meaning::Malformed(MalformedReason::NdTarget);
    };
    if !is_unspecified_v6(parsed.packet.source) {
        return about_source(parsed);
    }
    // RFC 4861 §7.1.1, RFC 4862 §5.4.2 (claims.md N01).
    if parsed.packet.has_link != 0 || !is_solicited_node(parsed.packet.destination, target) {
        return Meaning::Malformed(MalformedReason::NdUnspecified);
    }
    let (segment, eth_src) = (parsed.segment, parsed.eth_src);
    parsed.claims(Claim::v6(segment, target, eth_src, eth_src, STRENGTH_TENTATIVE));
    parsed.claim.limited = true;
    Meaning::Nothing
}

#[inline(always)]
fn advertisement<F: Frame + ?Sized>(frame: &F, flags: u8, parsed: &mut Parsed) -> Meaning {
    if flags & FLAG_SOLICITED != 0 && is_group_v6(parsed.packet.destination) {
        return Meaning::Malformed(MalformedReason::NdSolicited);
    }
    let mut bits = 0;
    if flags & FLAG_OVERRIDE == 0 {
        bits |= CLAIM_WEAK;
    }
    if flags & FLAG_ROUTER != 0 {
        bits |= CLAIM_ROUTER;
    }
    let meaning = about_target(frame, bits, parsed);
    if flags & FLAG_ROUTER != 0 && parsed.claims {
        parsed.router = Router::Flag;
    }
    meaning
}

/// The message says where its target is (claims.md N07, N08); its source is in use besides.
#[inline(always)]
fn about_target<F: Frame + ?Sized>(frame: &F, flags: u16, parsed: &mut Parsed) -> Meaning {
    let Some(target) = target(frame, &parsed.packet) else {
        return Meaning::Malformed(MalformedReason::NdTarget);
    };
    claim(target, parsed);
    parsed.claim.flags |= flags;
    let source: [u64; 2] = must_cast(parsed.packet.source);
    if source != must_cast::<_, [u64; 2]>(target) && !is_mapped_v6(parsed.packet.source) {
        parsed.further.source = source;
    }
    Meaning::Nothing
}

/// The message says where its source is (claims.md N05, N06, N20).
#[inline(always)]
fn about_source(parsed: &mut Parsed) -> Meaning {
    let source = parsed.packet.source;
    if is_mapped_v6(source) {
        return Meaning::Nothing;
    }
    if !is_unspecified_v6(source) {
        claim(source, parsed);
        return Meaning::Nothing;
    }
    // RFC 4861 §6.1.1.
    if parsed.packet.has_link != 0 {
        return Meaning::Malformed(MalformedReason::NdUnspecified);
    }
    Meaning::Nothing
}

#[inline(always)]
fn claim(address: [u8; 16], parsed: &mut Parsed) {
    let (segment, eth_src) = (parsed.segment, parsed.eth_src);
    let (mac, strength) = if parsed.packet.has_link == 0 {
        (eth_src, STRENGTH_USE)
    } else {
        (parsed.packet.link, STRENGTH_ASSERT)
    };
    parsed.claims(Claim::v6(segment, address, mac, eth_src, strength));
    parsed.claim.limited = true;
}

/// The target, if a host can have it (RFC 4861 §7.1.1, §7.1.2).
#[inline(always)]
fn target<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<[u8; 16]> {
    let target = frame.load::<16>(packet.at as usize + 8)?;
    (!is_martian_v6(target) && !is_unspecified_v6(target)).then_some(target)
}

#[inline(always)]
fn is_solicited_node(group: [u8; 16], member: [u8; 16]) -> bool {
    let ([prefix @ .., a, b, c], [.., d, e, f]) = (group, member);
    prefix == SOLICITED_NODE && [a, b, c] == [d, e, f]
}

/// Turns `claim`, the last one that was taken, into the next, or says that there is none.
#[inline(never)]
pub(crate) fn next_claim<F: Frame + ?Sized>(frame: &F, further: &mut Further, claim: &mut Claim) {
    for _ in 0..MAX_OPTIONS {
        if further.options >= further.end {
            break;
        }
        let Some([kind, units, mac @ ..]) = frame.load::<8>(further.options as usize) else {
            break;
        };
        further.options += u32::from(units) * 8;
        if u32::from(kind) == further.option && units == 1 {
            claim.name(mac);
            return;
        }
    }
    further.options = further.end;
    if further.source == [0; 2] {
        further.done = 1;
        return;
    }
    let segment = claim.key.segment();
    let address = must_cast(further.source);
    *claim = Claim::v6(segment, address, claim.eth_src, claim.eth_src, STRENGTH_USE);
    claim.limited = true;
    further.source = [0; 2];
}

/// The most claims that one frame makes: one for each option, and one for its source.
pub(crate) const MAX_CLAIMS: usize = MAX_OPTIONS + 1;
