//! The fast path for most frames: an untagged packet by the declared owner, or by the live claimant
//! of an address without one, seen just now.
//!
//! [`slow_path`](crate::watch::slow_path) comes to the same: nothing to write, nothing to tell, pass. This
//! only comes to it sooner, and whenever in doubt leaves the frame to it; tests hold the two against
//! each other.

use bytemuck::must_cast;

use crate::{
    abi::{
        AddressKey, OWNED_GATEWAY, OWNED_HOST, OWNED_MAC, OWNED_PORT, Port, STRENGTH_ASSERT,
        STRENGTH_USE,
    },
    address::Segment,
    claim::{is_group_v6, is_martian_v4, is_unspecified_v4},
    counters::FrameKind,
    decide::{Tables, is_stale},
    frame::{ETHERNET_LEN, Ethernet, Frame, TYPE_ARP, TYPE_IPV4, TYPE_IPV6},
    ipv4::{self, PROTOCOL_IGMP, PROTOCOL_PIM, PROTOCOL_UDP},
    ipv6::{self, ADDRESSES, may_lead_to_icmp},
    mac::{self, Mac},
};

/// ARP for IPv4 over Ethernet: hardware type 1, protocol type 0x0800, lengths 6 and 4.
const ARP_ETHERNET: [u16; 3] =
    [u16::from_ne_bytes([0, 1]), u16::from_ne_bytes([8, 0]), u16::from_ne_bytes([6, 4])];
const ARP_REQUEST: u16 = u16::from_ne_bytes([0, 1]);
const ARP_REPLY: u16 = u16::from_ne_bytes([0, 2]);

/// What a frame is, if nothing is to be done about it. Nor is its MAC looked up (claims.md L01):
/// that was done when the owner or the claimant was first seen, and is again every second.
#[inline(always)]
#[must_use]
pub fn fast_path<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    port: &Port,
    from: u32,
    now_ns: impl FnOnce() -> u64,
) -> Option<FrameKind> {
    let claim = fast_claim(frame, port)?;
    claim.is_current(tables, from, now_ns).then_some(claim.kind)
}

/// The one claim of an untagged packet, by its Ethernet source.
#[derive(Clone, Copy, Debug)]
pub struct FastClaim {
    /// What the frame is counted as.
    pub kind: FrameKind,
    /// The [`AddressKey`], in words: so it needs no memory.
    pub key: [u64; 3],
    /// Who claims it.
    pub mac: Mac,
    /// `STRENGTH_USE` or `STRENGTH_ASSERT`.
    pub strength: u8,
}

/// Reads a frame that is nothing but that; most are.
#[inline(always)]
#[must_use]
pub fn fast_claim<F: Frame + ?Sized>(frame: &F, port: &Port) -> Option<FastClaim> {
    let Ethernet { source, ethertype, .. } = must_cast(frame.head::<ETHERNET_LEN>(0)?);
    if frame.stripped_tag().is_some() || !mac::is_host(source) {
        return None;
    }
    let segment = Segment { bridge: port.bridge, vlan: port.pvid, inner_vlan: 0 };
    let (kind, key, strength) = match u16::from_be_bytes(ethertype) {
        TYPE_IPV4 => {
            (FrameKind::Ipv4, must_cast(AddressKey::v4(segment, ipv4(frame)?)), STRENGTH_USE)
        }
        TYPE_ARP => (
            FrameKind::Arp,
            must_cast(AddressKey::v4(segment, arp(frame, source)?)),
            STRENGTH_ASSERT,
        ),
        TYPE_IPV6 => {
            (FrameKind::Ipv6, must_cast(AddressKey::v6(segment, ipv6(frame)?)), STRENGTH_USE)
        }
        _ => return None,
    };
    Some(FastClaim { kind, key, mac: source, strength })
}

impl FastClaim {
    /// Whether it was seen just now, and is its owner's, or the live claimant's of an address without
    /// one.
    #[inline(always)]
    #[must_use]
    pub fn is_current<T: Tables>(
        &self,
        tables: &T,
        from: u32,
        now_ns: impl FnOnce() -> u64,
    ) -> bool {
        self.seen_ns(tables, from).is_some_and(|seen_ns| !is_stale(seen_ns, now_ns()))
    }

    /// When whom the maps have with the address was last seen, if that is who claims it.
    #[inline(always)]
    fn seen_ns<T: Tables>(&self, tables: &T, from: u32) -> Option<u64> {
        let Self { key, mac, strength, .. } = *self;
        let key: AddressKey = must_cast(key);
        let bits = OWNED_MAC | OWNED_PORT;
        let (station, seen_ns) = match tables.owned(&key) {
            Some(owned) if owned.flags & (bits | OWNED_GATEWAY | OWNED_HOST) == bits => {
                ((owned.ifindex, owned.mac), owned.seen_ns)
            }
            // A lease whose binding is learned.
            Some(owned) if owned.flags & (bits | OWNED_GATEWAY | OWNED_HOST) != 0 => return None,
            _ => {
                let live = tables.live(&key)?;
                // It is judged anew after each of the agent's changes.
                if strength > live.strength || live.passed != tables.changes() {
                    return None;
                }
                ((live.ifindex, live.mac), live.seen_ns)
            }
        };
        (station.0 == from && mac::same(station.1, mac)).then_some(seen_ns)
    }
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F) -> Option<[u8; 4]> {
    let words: [u16; 10] = must_cast(frame.head::<20>(ETHERNET_LEN)?);
    let [first, _, _, _, ttl, _, source @ .., destination, destination_low] = words;
    let [version_ihl, _] = first.to_ne_bytes();
    let [ttl, protocol] = ttl.to_ne_bytes();
    let source: [u8; 4] = must_cast(source);
    let destination: [u8; 4] = must_cast([destination, destination_low]);
    // Options take the long way, so that the ports have their place (claims.md D11).
    let plain = version_ihl == 0x45
        && ttl != 0
        && (protocol != PROTOCOL_UDP || !leads_to(frame, ETHERNET_LEN + 22, ipv4::CLIENT_PORT))
        // claims.md L04.
        && protocol != PROTOCOL_IGMP
        && protocol != PROTOCOL_PIM
        && !is_unspecified_v4(source)
        && !is_martian_v4(source)
        && u32::from_ne_bytes(source) != u32::from_ne_bytes(destination);
    plain.then_some(source)
}

/// A packet that cannot be neighbour discovery.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F) -> Option<[u8; 16]> {
    let [first, _, _, _, _, _, next, _] = frame.head::<ADDRESSES>(ETHERNET_LEN)?;
    let words: [u16; 16] = must_cast(frame.head::<32>(ETHERNET_LEN + ADDRESSES)?);
    let [source @ .., _, _, _, _, _, _, _, _] = words;
    let address: [u8; 16] = must_cast(source);
    let [high, _]: [u64; 2] = must_cast(source);
    let plain = first >> 4 == 6
        && !may_lead_to_icmp(next)
        && high != 0
        && !is_group_v6(address)
        && (next != PROTOCOL_UDP || !leads_to(frame, ETHERNET_LEN + 42, ipv6::CLIENT_PORT));
    plain.then_some(address)
}

/// Whether a datagram may be for this port, which is at `at` if it is anywhere.
#[inline(always)]
fn leads_to<F: Frame + ?Sized>(frame: &F, at: usize, port: [u8; 2]) -> bool {
    frame.head::<2>(at).is_none_or(|to| u16::from_ne_bytes(to) == u16::from_ne_bytes(port))
}

#[inline(always)]
fn arp<F: Frame + ?Sized>(frame: &F, eth_src: Mac) -> Option<[u8; 4]> {
    let words: [u16; 14] = must_cast(frame.head::<28>(ETHERNET_LEN)?);
    let [hardware, protocol, lengths, operation, mac_a, mac_b, mac_c, high, low, ..] = words;
    let sender: [u8; 4] = must_cast([high, low]);
    let plain = [hardware, protocol, lengths] == ARP_ETHERNET
        && (operation == ARP_REQUEST || operation == ARP_REPLY)
        && !is_unspecified_v4(sender)
        && !is_martian_v4(sender)
        && mac::same(must_cast([mac_a, mac_b, mac_c]), eth_src);
    plain.then_some(sender)
}
