//! The short way for most frames: an untagged packet by the declared owner, seen just now.
//!
//! [`judge`](crate::decide::judge) comes to the same: nothing to write, nothing to tell, pass. This
//! only comes to it sooner, and whenever in doubt leaves the frame to it; tests hold the two against
//! each other.

use bytemuck::must_cast;

use crate::{
    abi::{AddressKey, OWNED_GATEWAY, OWNED_HOST, OWNED_MAC, OWNED_PORT, Port},
    address::Segment,
    claim::{is_martian_v4, is_unspecified_v4},
    counters::FrameKind,
    decide::{Tables, is_stale},
    frame::{ETHERNET_LEN, Ethernet, Frame, TYPE_ARP, TYPE_IPV4},
    mac::{self, Mac},
};

/// ARP for IPv4 over Ethernet: hardware type 1, protocol type 0x0800, lengths 6 and 4.
const ARP_ETHERNET: [u16; 3] =
    [u16::from_ne_bytes([0, 1]), u16::from_ne_bytes([8, 0]), u16::from_ne_bytes([6, 4])];
const ARP_REQUEST: u16 = u16::from_ne_bytes([0, 1]);
const ARP_REPLY: u16 = u16::from_ne_bytes([0, 2]);

/// What a frame is, if it is its address's declared owner's and nothing is to be done about it.
#[inline(always)]
#[must_use]
pub fn known<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    port: &Port,
    from: u32,
    now_ns: impl FnOnce() -> u64,
) -> Option<FrameKind> {
    let Ethernet { source, ethertype, .. } = must_cast(frame.load::<ETHERNET_LEN>(0)?);
    if frame.is_tag_stripped() {
        return None;
    }
    let (kind, address) = match u16::from_be_bytes(ethertype) {
        TYPE_IPV4 => (FrameKind::Ipv4, ipv4(frame)?),
        TYPE_ARP => (FrameKind::Arp, arp(frame, source)?),
        _ => return None,
    };
    let segment = Segment { bridge: port.bridge, vlan: port.pvid, inner_vlan: 0 };
    let owned = tables.owned(&AddressKey::v4(segment, address))?;
    let bits = OWNED_MAC | OWNED_PORT;
    let is_owner = owned.flags & (bits | OWNED_GATEWAY | OWNED_HOST) == bits
        && owned.ifindex == from
        && mac::same(owned.mac, source)
        && mac::is_host(source);
    (is_owner && !is_stale(owned.seen_ns, now_ns())).then_some(kind)
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F) -> Option<[u8; 4]> {
    let words: [u16; 10] = must_cast(frame.load::<20>(ETHERNET_LEN)?);
    let [first, _, _, _, ttl, _, source @ .., destination, destination_low] = words;
    let [version_ihl, _] = first.to_ne_bytes();
    let [ttl, _] = ttl.to_ne_bytes();
    let source: [u8; 4] = must_cast(source);
    let destination: [u8; 4] = must_cast([destination, destination_low]);
    let plain = version_ihl >> 4 == 4
        && version_ihl & 0xf >= 5
        && ttl != 0
        && !is_unspecified_v4(source)
        && !is_martian_v4(source)
        && u32::from_ne_bytes(source) != u32::from_ne_bytes(destination);
    plain.then_some(source)
}

#[inline(always)]
fn arp<F: Frame + ?Sized>(frame: &F, eth_src: Mac) -> Option<[u8; 4]> {
    let words: [u16; 14] = must_cast(frame.load::<28>(ETHERNET_LEN)?);
    let [hardware, protocol, lengths, operation, mac_a, mac_b, mac_c, high, low, ..] = words;
    let sender: [u8; 4] = must_cast([high, low]);
    let plain = [hardware, protocol, lengths] == ARP_ETHERNET
        && (operation == ARP_REQUEST || operation == ARP_REPLY)
        && !is_unspecified_v4(sender)
        && !is_martian_v4(sender)
        && mac::same(must_cast([mac_a, mac_b, mac_c]), eth_src);
    plain.then_some(sender)
}
