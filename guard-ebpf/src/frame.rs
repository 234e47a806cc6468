//! From bytes to what they say.

use bytemuck::{Pod, Zeroable};

use crate::{
    abi::Port,
    address::Segment,
    arp,
    claim::{Claim, Parsed, Says},
    counters::{FrameKind, MalformedReason},
    ipv4, mac,
};

/// The bytes of a frame, wherever they are: a slice on the host, a socket buffer in the kernel.
pub trait Frame {
    /// `N` bytes from `offset` on, or none if the frame ends before. Both are even.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether the kernel took an 802.1Q or 802.1ad tag out of the frame and holds it aside.
    fn is_tag_stripped(&self) -> bool;
}

impl Frame for [u8] {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn is_tag_stripped(&self) -> bool {
        false
    }
}

/// The Ethernet header (IEEE 802.3 §3.1.1), without a tag.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Ethernet {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) ethertype: [u8; 2],
}

/// Where the payload begins.
pub(crate) const ETHERNET_LEN: usize = size_of::<Ethernet>();

pub(crate) const TYPE_IPV4: u16 = 0x0800;
pub(crate) const TYPE_ARP: u16 = 0x0806;
const TYPE_RARP: u16 = 0x8035;
const TYPE_8021Q: u16 = 0x8100;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_8021AD: u16 = 0x88a8;
/// Below this the field is a length (IEEE 802.3 §3.2.6).
const TYPE_MIN: u16 = 0x0600;

/// Reads a frame. Its length counts only where a field is missing: what follows the last field is
/// padding or junk (row A25). An untagged frame is in the VLAN that `port` gives it.
#[inline(always)]
#[must_use]
pub fn parse<F: Frame + ?Sized>(frame: &F, port: &Port) -> Parsed {
    let mut claim = Claim::zeroed();
    let Some(header) = frame.load::<ETHERNET_LEN>(0) else {
        let says = Says::Malformed(MalformedReason::EthernetTruncated);
        return Parsed::new(FrameKind::Other, says, claim);
    };
    let Ethernet { destination: _, source, ethertype } = bytemuck::must_cast(header);
    let kind = match u16::from_be_bytes(ethertype) {
        _ if frame.is_tag_stripped() => FrameKind::Tagged,
        TYPE_ARP => FrameKind::Arp,
        TYPE_IPV4 => FrameKind::Ipv4,
        TYPE_IPV6 => FrameKind::Ipv6,
        TYPE_RARP => FrameKind::Rarp,
        TYPE_8021Q | TYPE_8021AD => FrameKind::Tagged,
        length if length < TYPE_MIN => FrameKind::Llc,
        _ => FrameKind::Other,
    };
    let segment = Segment { bridge: port.bridge, vlan: port.pvid, inner_vlan: 0 };
    let says = if mac::is_host(source) {
        match kind {
            FrameKind::Arp => arp::parse(frame, segment, source, &mut claim),
            FrameKind::Ipv4 => ipv4::parse(frame, segment, source, &mut claim),
            FrameKind::Ipv6
            | FrameKind::Rarp
            | FrameKind::Tagged
            | FrameKind::Llc
            | FrameKind::Other => Says::Nothing,
        }
    } else {
        Says::Malformed(MalformedReason::EthernetSource)
    };
    Parsed::new(kind, says, claim)
}
