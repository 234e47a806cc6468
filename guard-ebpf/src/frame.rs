//! Parses a frame: tags and headers, down to ARP, IPv4 and IPv6.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{
    abi::{FRAME_BYTES, PORT_ALLOW_RARP, PORT_FILTERS_VLANS, PORT_VLANS_8021AD, Port},
    address::Segment,
    arp,
    claim::{Meaning, NEXT_DHCP, NEXT_IPV6, NEXT_ND, Parsed},
    counters::{FrameKind, MalformedReason, NoClaim, OpaqueReason},
    dhcp, ipv4, ipv6, mac, ndp,
};

/// The bytes of a frame, wherever they are: a slice on the host, a socket buffer in the kernel.
pub trait Frame {
    /// `N` bytes from `offset` on, or none if the frame ends before.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The same, quicker where the frame lies in one piece. The offset is even and known when the
    /// program is compiled.
    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// How long it is, as the kernel sees it: without what it has taken out.
    fn size(&self) -> u32;

    /// The tag control information of the 802.1Q or 802.1ad tag that the kernel took out of the
    /// frame and holds aside.
    fn stripped_tag(&self) -> Option<u16>;

    /// Copies its beginning into a place that is zero.
    fn begin(&self, into: &mut [u8; FRAME_BYTES]);

    /// The type of that tag.
    fn stripped_type(&self) -> u16 {
        TYPE_8021Q
    }
}

impl Frame for [u8] {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.load(offset)
    }

    fn size(&self) -> u32 {
        u32::try_from(<[u8]>::len(self)).unwrap_or(u32::MAX)
    }

    fn stripped_tag(&self) -> Option<u16> {
        None
    }

    fn begin(&self, into: &mut [u8; FRAME_BYTES]) {
        into.iter_mut().zip(self).for_each(|(into, byte)| *into = *byte);
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

/// Where the payload of an untagged frame begins.
pub(crate) const ETHERNET_LEN: usize = size_of::<Ethernet>();

pub(crate) const TYPE_IPV4: u16 = 0x0800;
pub(crate) const TYPE_ARP: u16 = 0x0806;
const TYPE_RARP: u16 = 0x8035;
const TYPE_8021Q: u16 = 0x8100;
pub(crate) const TYPE_IPV6: u16 = 0x86dd;
const TYPE_8021AD: u16 = 0x88a8;
/// Below this the field is a length (IEEE 802.3 §3.2.6).
const TYPE_MIN: u16 = 0x0600;
/// LLC for SNAP, and the SNAP of encapsulated Ethernet (RFC 1042).
const SNAP: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0];

/// The most tags in the frame that are read, those with id 0 among them.
const MAX_TAGS: usize = 4;
/// The VLAN id in a tag, without the priority above it (IEEE 802.1Q §9.6).
const VID: u16 = 0x0fff;

/// The VLAN tags of a frame. Those with id 0 carry a priority only (claims.md A28).
struct Tags {
    outer: u16,
    /// The next one is within it.
    placed: bool,
    inner: u16,
    /// A third one.
    more: bool,
    /// There is one with an id.
    any: bool,
}

impl Tags {
    /// None yet. On a bridge that filters VLANs a frame is in the port's, unless its outermost tag says
    /// otherwise.
    #[inline(always)]
    const fn of(port: &Port) -> Self {
        let (outer, placed) = if filters(port) { (port.pvid, true) } else { (0, false) };
        Self { outer, placed, inner: 0, more: false, any: false }
    }

    /// The outermost tag. A bridge that filters VLANs takes it for its own if it has the bridge's type;
    /// any other is within the port's VLAN (`__allowed_ingress` in net/bridge/br_vlan.c).
    #[inline(always)]
    fn outermost(&mut self, port: &Port, ethertype: u16, tci: u16) {
        let ad = port.flags & PORT_VLANS_8021AD != 0;
        if !filters(port) || (ethertype == TYPE_8021AD) != ad {
            self.push(tci);
        } else if tci & VID != 0 {
            self.any = true;
            let vid = tci & VID;
            self.outer = if vid == port.native { 0 } else { vid };
        }
    }

    #[inline(always)]
    fn push(&mut self, tci: u16) {
        let vid = tci & VID;
        if vid == 0 {
            return;
        }
        self.any = true;
        if !self.placed {
            self.placed = true;
            self.outer = vid;
        } else if self.inner == 0 {
            self.inner = vid;
        } else {
            self.more = true;
        }
    }
}

#[inline(always)]
const fn filters(port: &Port) -> bool {
    port.flags & PORT_FILTERS_VLANS != 0
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == TYPE_8021Q || ethertype == TYPE_8021AD
}

/// Reads a frame. Its length counts only where a field is missing: what follows the last field is
/// padding or junk (claims.md A25). An untagged frame is in the VLAN that `port` gives it.
#[must_use]
pub fn parse<F: Frame + ?Sized>(frame: &F, port: &Port) -> Parsed {
    let mut parsed = Parsed::zeroed();
    parse_into(frame, port, &mut parsed);
    parsed
}

/// Reads a frame in the place of an earlier one, in steps that are programs of their own within the kernel's.
#[inline(always)]
pub(crate) fn parse_into<F: Frame + ?Sized>(frame: &F, port: &Port, parsed: &mut Parsed) {
    parsed.reset(Segment { bridge: port.bridge, vlan: port.pvid, inner_vlan: 0 });
    link_layer(frame, port, parsed);
    if parsed.packet.next == NEXT_IPV6 {
        ipv6::parse(frame, parsed);
    }
    if parsed.packet.next == NEXT_ND {
        ndp::parse(frame, parsed);
    }
    if parsed.packet.next == NEXT_DHCP {
        dhcp::parse(frame, parsed);
    }
}

/// Reads the Ethernet header and the tags, and what they are around unless it is IPv6.
#[inline(never)]
fn link_layer<F: Frame + ?Sized>(frame: &F, port: &Port, parsed: &mut Parsed) {
    let Some(header) = frame.head::<ETHERNET_LEN>(0) else {
        parsed.kind = FrameKind::Other;
        parsed.eth_src = [0; 6];
        parsed.group = false;
        parsed.control = false;
        parsed.meaning = Meaning::Malformed(MalformedReason::EthernetTruncated);
        return;
    };
    let Ethernet { destination, source, ethertype } = must_cast(header);
    parsed.eth_src = source;
    parsed.group = mac::is_group(destination);
    parsed.control = mac::is_control(destination);
    let ethertype = u16::from_be_bytes(ethertype);
    let stripped = frame.stripped_tag();
    parsed.kind = match ethertype {
        _ if stripped.is_some() => FrameKind::Tagged,
        TYPE_ARP => FrameKind::Arp,
        TYPE_IPV4 => FrameKind::Ipv4,
        TYPE_IPV6 => FrameKind::Ipv6,
        TYPE_RARP => FrameKind::Rarp,
        TYPE_8021Q | TYPE_8021AD => FrameKind::Tagged,
        length if length < TYPE_MIN => FrameKind::Llc,
        _ => FrameKind::Other,
    };
    parsed.meaning = if mac::is_host(source) {
        tagged(frame, port, stripped, ethertype, parsed)
    } else {
        Meaning::Malformed(MalformedReason::EthernetSource)
    };
}

/// Reads the tags, and then what they are around (claims.md A27 to A29).
#[inline(always)]
fn tagged<F: Frame + ?Sized>(
    frame: &F,
    port: &Port,
    stripped: Option<u16>,
    mut ethertype: u16,
    parsed: &mut Parsed,
) -> Meaning {
    let mut tags = Tags::of(port);
    if let Some(tci) = stripped {
        tags.outermost(port, frame.stripped_type(), tci);
    }
    let mut at = ETHERNET_LEN;
    let mut cut_off = false;
    for _ in 0..MAX_TAGS {
        if !is_tag(ethertype) {
            break;
        }
        let Some(tag) = frame.load::<4>(at) else {
            cut_off = true;
            break;
        };
        let [tci, next]: [[u8; 2]; 2] = must_cast(tag);
        let tci = u16::from_be_bytes(tci);
        if at == ETHERNET_LEN && stripped.is_none() {
            tags.outermost(port, ethertype, tci);
        } else {
            tags.push(tci);
        }
        ethertype = u16::from_be_bytes(next);
        at += 4;
    }
    parsed.tagged = tags.any;
    if tags.placed {
        parsed.segment.vlan = tags.outer;
        parsed.segment.inner_vlan = tags.inner;
    }
    if cut_off {
        return Meaning::Malformed(MalformedReason::TagTruncated);
    }
    if tags.more || is_tag(ethertype) {
        return Meaning::Opaque(OpaqueReason::Tags);
    }
    match ethertype {
        TYPE_ARP => arp::parse(frame, at, parsed),
        TYPE_IPV4 => ipv4::parse(frame, at, parsed),
        TYPE_IPV6 => {
            parsed.packet.at = u32::try_from(at).unwrap_or(0);
            parsed.packet.next = NEXT_IPV6;
            Meaning::Nothing
        }
        TYPE_RARP
            if port.flags & PORT_ALLOW_RARP == 0 && !arp::is_own(frame, at, parsed.eth_src) =>
        {
            Meaning::NoClaim(NoClaim::Rarp)
        }
        TYPE_RARP => Meaning::Nothing,
        ethertype => {
            parsed.foreign = true;
            match ethertype {
                // What a receiver would take for an address is judged, whatever group it is sent to.
                _ if parsed.control => Meaning::NoClaim(NoClaim::Control),
                length if length < TYPE_MIN => llc(frame, at),
                _ => Meaning::Nothing,
            }
        }
    }
}

/// ARP and IP behind LLC and SNAP are not for Ethernet; what else speaks LLC, spanning tree for one,
/// names no address (claims.md A26).
#[inline(always)]
fn llc<F: Frame + ?Sized>(frame: &F, at: usize) -> Meaning {
    let Some([snap @ .., high, low]) = frame.load::<8>(at) else { return Meaning::Nothing };
    let ethertype = u16::from_be_bytes([high, low]);
    if snap == SNAP && matches!(ethertype, TYPE_ARP | TYPE_IPV4 | TYPE_IPV6) {
        Meaning::NoClaim(NoClaim::Snap)
    } else {
        Meaning::Nothing
    }
}
