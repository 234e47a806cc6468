//! ARP (RFC 826, RFC 5227).

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{
    abi::{STRENGTH_ASSERT, STRENGTH_TENTATIVE},
    claim::{Claim, Meaning, Parsed, is_martian_v4, is_unspecified_v4},
    counters::{MalformedReason, NoClaim},
    frame::Frame,
    mac::{self, Mac},
};

/// An ARP packet for IPv4 over Ethernet (RFC 826, "Packet format"). Addresses in halfwords, to which
/// they are aligned, so that they are copied as such.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Packet {
    hardware: [u8; 2],
    protocol: [u8; 2],
    hardware_len: u8,
    protocol_len: u8,
    operation: [u8; 2],
    sender_mac: [u16; 3],
    sender: [u16; 2],
    target_mac: [u16; 3],
    target: [u16; 2],
}

const LEN: usize = size_of::<Packet>();

/// Ethernet, and IEEE 802, which Linux takes for Ethernet on Ethernet devices:
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/arp.c#L733-L747>
const HARDWARE_ETHERNET: u16 = 1;
const HARDWARE_IEEE802: u16 = 6;
const PROTOCOL_IPV4: u16 = 0x0800;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Whether the sender's MAC is the one that sends it: RARP that a host announces itself with after it has
/// moved (claims.md A23).
#[inline(always)]
pub(crate) fn is_own<F: Frame + ?Sized>(frame: &F, at: usize, eth_src: Mac) -> bool {
    let packet = frame.load::<LEN>(at).map(must_cast::<_, Packet>);
    packet.is_some_and(|packet| mac::same(must_cast(packet.sender_mac), eth_src))
}

/// Reads an ARP packet. The sender's fields are merged into a receiver's table before it looks at
/// the operation (RFC 826), so request and reply claim alike.
#[inline(always)]
pub(crate) fn parse<F: Frame + ?Sized>(frame: &F, at: usize, parsed: &mut Parsed) -> Meaning {
    let Some(packet) = frame.load::<LEN>(at) else {
        return Meaning::Malformed(MalformedReason::ArpTruncated);
    };
    let Packet {
        hardware,
        protocol,
        hardware_len,
        protocol_len,
        operation,
        sender_mac,
        sender,
        target_mac: _,
        target,
    } = must_cast(packet);
    let (sender, target): ([u8; 4], [u8; 4]) = (must_cast(sender), must_cast(target));
    if !matches!(u16::from_be_bytes(hardware), HARDWARE_ETHERNET | HARDWARE_IEEE802) {
        return Meaning::Malformed(MalformedReason::ArpHardware);
    }
    if u16::from_be_bytes(protocol) != PROTOCOL_IPV4 {
        return Meaning::Malformed(MalformedReason::ArpProtocol);
    }
    if hardware_len != 6 {
        return Meaning::Malformed(MalformedReason::ArpHardwareLength);
    }
    if protocol_len != 4 {
        return Meaning::Malformed(MalformedReason::ArpProtocolLength);
    }
    let (address, strength) = match (u16::from_be_bytes(operation), is_unspecified_v4(sender)) {
        // RFC 5227 §1.1: an all-zero sender is a probe for the target.
        (REQUEST, true) => (target, STRENGTH_TENTATIVE),
        (REPLY, true) => return Meaning::Malformed(MalformedReason::ArpReplyUnspecified),
        // Receivers merge the sender before they look at the operation (claims.md A23).
        (_, false) => (sender, STRENGTH_ASSERT),
        _ => return Meaning::Malformed(MalformedReason::ArpOperation),
    };
    if is_martian_v4(address) || is_unspecified_v4(address) {
        return Meaning::NoClaim(NoClaim::Martian);
    }
    let (segment, eth_src) = (parsed.segment, parsed.eth_src);
    parsed.claims(Claim::v4(segment, address, must_cast(sender_mac), eth_src, strength));
    parsed.claim.limited = true;
    match u16::from_be_bytes(operation) {
        REQUEST | REPLY => Meaning::Nothing,
        _ => Meaning::Malformed(MalformedReason::ArpOperation),
    }
}
