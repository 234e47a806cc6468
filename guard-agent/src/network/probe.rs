//! Asking a holder whether it is still there: a unicast ARP request or neighbour solicitation,
//! straight to its port; and the frames and the socket for whatever else is sent out of ports.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use guard_core::mac::Mac;
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::PortVlans;

/// IEEE 802.3, and RFC 826 for Ethernet and IPv4.
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
const HARDWARE_ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const FRAME_LEN: usize = 14 + 28;

/// IEEE 802.1Q: of a customer's tag, and of a provider's.
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_PROVIDER_VLAN: u16 = 0x88a8;
const ADDRESSES_LEN: usize = 12;

/// RFC 8200, and RFC 4861 §4.3 with §4.6.1.
const ETHERTYPE_IPV6: u16 = 0x86dd;
const NEXT_ICMP: u8 = 58;
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const SOURCE_LINK_LAYER: u8 = 1;
const DISCOVERY_LEN: usize = 24 + 8;

/// The question for an address, to one station: from the host's MAC, and from its address there if
/// it has one.
pub(crate) fn probe((from, sender): (Mac, Option<IpAddr>), to: Mac, target: IpAddr) -> Bytes {
    match (target, sender) {
        (IpAddr::V4(target), Some(IpAddr::V4(sender))) => arp_request(from, to, sender, target),
        (IpAddr::V4(target), _) => arp_probe(from, to, target),
        (IpAddr::V6(target), Some(IpAddr::V6(sender))) => solicitation(from, sender, to, target),
        (IpAddr::V6(target), _) => solicitation(from, link_local(from), to, target),
    }
}

/// An ARP probe (RFC 5227 §2.1.1) for `target`, to one station: its sender address is 0.0.0.0, so
/// that it claims nothing and moves nobody's neighbour entry. Linux answers it (`arp_process` in
/// net/ipv4/arp.c: "duplicate address detection packet").
pub(crate) fn arp_probe(from: Mac, to: Mac, target: Ipv4Addr) -> Bytes {
    arp_request(from, to, Ipv4Addr::UNSPECIFIED, target)
}

/// A frame as it leaves a port for the stations of a VLAN, and of one within it unless that is 0. They
/// are told apart by ids alone, so it is one frame for each type that their tags may have. `vlans`: the
/// port's, where its bridge filters them and takes the outer tag off or puts on its own.
pub(crate) fn tagged(
    frame: &Bytes,
    vlans: Option<&PortVlans>,
    (vlan, inner_vlan): (u16, u16),
) -> Vec<Bytes> {
    const EITHER: &[u16] = &[ETHERTYPE_VLAN, ETHERTYPE_PROVIDER_VLAN];
    let outer = match vlans {
        Some(vlans) if vlans.bare.contains(&vlan) => &[],
        Some(vlans) => &EITHER[usize::from(vlans.provider)..][..1],
        None if vlan == 0 => &[],
        None => EITHER,
    };
    let inner = if inner_vlan == 0 { &[] } else { EITHER };
    let native = vlans.map_or(0, |vlans| vlans.native);
    let vlan = if vlan == 0 { native } else { vlan };
    let within = with_each(vec![frame.clone()], inner, inner_vlan);
    with_each(within, outer, vlan)
}

/// Each frame with a tag of each type around it, or as it is where there is none.
fn with_each(frames: Vec<Bytes>, types: &[u16], vlan: u16) -> Vec<Bytes> {
    if types.is_empty() {
        return frames;
    }
    let each = types.iter().flat_map(|kind| frames.iter().map(move |frame| (frame, *kind)));
    each.map(|(frame, kind)| with_tag(frame, kind, vlan)).collect()
}

fn with_tag(frame: &Bytes, kind: u16, vlan: u16) -> Bytes {
    let mut tagged = BytesMut::with_capacity(frame.len() + 4);
    tagged.put_slice(&frame[..ADDRESSES_LEN]);
    tagged.put_u16(kind);
    tagged.put_u16(vlan);
    tagged.put_slice(&frame[ADDRESSES_LEN..]);
    tagged.freeze()
}

/// An ARP request by the holder of `sender`.
pub(crate) fn arp_request(from: Mac, to: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_LEN);
    frame.put_slice(&to.0);
    frame.put_slice(&from.0);
    frame.put_u16(ETHERTYPE_ARP);
    frame.put_u16(HARDWARE_ETHERNET);
    frame.put_u16(ETHERTYPE_IPV4);
    frame.put_u8(6);
    frame.put_u8(4);
    frame.put_u16(REQUEST);
    frame.put_slice(&from.0);
    frame.put_slice(&sender.octets());
    frame.put_slice(&[0; 6]);
    frame.put_slice(&target.octets());
    frame.freeze()
}

/// A neighbour solicitation (RFC 4861 §7.2.2) from a link-local address: one from `::` would fail the
/// duplicate address detection of a holder that is at it. The option spares the holder to ask back.
fn solicitation(from: Mac, source: Ipv6Addr, to: Mac, target: Ipv6Addr) -> Bytes {
    let discovery =
        Discovery { kind: SOLICITATION, flags: 0, target, option: (SOURCE_LINK_LAYER, from) };
    discovery.frame((from, source), (to, target))
}

/// The link-local address that belongs to a MAC (RFC 4291, appendix A).
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f].into()
}

/// A solicitation or an advertisement with one option (RFC 4861 §4.3, §4.4).
pub(crate) struct Discovery {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) target: Ipv6Addr,
    /// Its type, and the link-layer address in it (RFC 4861 §4.6.1).
    pub(crate) option: (u8, Mac),
}

impl Discovery {
    pub(crate) fn frame(&self, from: (Mac, Ipv6Addr), to: (Mac, Ipv6Addr)) -> Bytes {
        let Self { kind, flags, target, option: (option, mac) } = self;
        let (source, destination) = (from.1.octets(), to.1.octets());
        let mut message = BytesMut::with_capacity(DISCOVERY_LEN);
        message.put_u8(*kind);
        message.put_bytes(0, 3);
        message.put_u8(*flags);
        message.put_bytes(0, 3);
        message.put_slice(&target.octets());
        message.put_u8(*option);
        message.put_u8(1);
        message.put_slice(&mac.0);
        let checksum = checksum(&source, &destination, &message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = BytesMut::with_capacity(14 + 40 + DISCOVERY_LEN);
        frame.put_slice(&to.0.0);
        frame.put_slice(&from.0.0);
        frame.put_u16(ETHERTYPE_IPV6);
        frame.put_u32(6 << 28);
        frame.put_u16(u16::try_from(DISCOVERY_LEN).unwrap_or_default());
        frame.put_u8(NEXT_ICMP);
        frame.put_u8(HOP_LIMIT);
        frame.put_slice(&source);
        frame.put_slice(&destination);
        frame.put_slice(&message);
        frame.freeze()
    }
}

/// RFC 1071, over the pseudo-header of RFC 8200 §8.1 too.
fn checksum(source: &[u8], destination: &[u8], message: &[u8]) -> u16 {
    let len = u32::try_from(message.len()).unwrap_or_default();
    let words = [source, destination, message].into_iter().flat_map(|part| part.chunks(2));
    let sum = words.fold(len + u32::from(NEXT_ICMP), |sum, word| match word {
        [high, low] => sum + u32::from(u16::from_be_bytes([*high, *low])),
        _ => sum,
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()
}

/// Sends frames out of ports.
#[derive(Debug)]
pub(crate) struct Prober(Socket);

impl Prober {
    /// Opens a packet socket (packet(7)) that receives nothing.
    ///
    /// # Errors
    /// `CAP_NET_RAW` is missing.
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol 0: the socket gets no frame of anyone's.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a frame out of a port, to whoever is behind it.
    ///
    /// # Errors
    /// The port is gone or down, or its queue is full.
    pub(crate) fn send(&self, ifindex: u32, frame: &Bytes) -> io::Result<()> {
        let ifindex = ifindex.try_into().map_err(io::Error::other)?;
        self.0.send_to(frame, &address(ifindex, 0)).map(drop)
    }
}

/// A device, and the protocol whose frames a socket that is bound to it gets.
pub(super) fn address(ifindex: i32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    let len = size_of::<libc::sockaddr_ll>();
    #[expect(unsafe_code, reason = "socket2 knows no sockaddr_ll")]
    // SAFETY: a `sockaddr_ll` is plain data, fits into the storage, which is zeroed and aligned for
    // every socket address, and the length is its own.
    unsafe {
        let address = storage.view_as::<libc::sockaddr_ll>();
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_ifindex = ifindex;
        address.sll_protocol = protocol.to_be();
        SockAddr::new(storage, libc::socklen_t::try_from(len).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use guard_ebpf::abi::Port;

    use super::*;

    #[test]
    fn a_solicitation_is_one_to_another_parser() {
        let (from, to) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let target = "2001:db8::2".parse().unwrap();
        let frame = probe((from, None), to, IpAddr::V6(target));
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv6(ip, _)) = &parsed.net else { panic!("{parsed:?}") };
        assert_eq!(ip.source_addr().to_string(), "fe80::ff:fe00:1");
        assert_eq!((ip.destination_addr(), ip.hop_limit), (target, 255));
        let Some(etherparse::TransportHeader::Icmpv6(icmp)) = &parsed.transport else {
            panic!("{parsed:?}")
        };
        let checksum =
            icmp.icmp_type.calc_checksum(ip.source, ip.destination, parsed.payload.slice());
        assert_eq!(checksum.unwrap(), icmp.checksum);
        assert!(matches!(icmp.icmp_type, etherparse::Icmpv6Type::NeighborSolicitation));
    }

    #[test]
    fn a29_a_station_is_asked_in_its_own_vlan_and_in_the_one_within() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let frame = arp_probe(mac, mac, Ipv4Addr::new(10, 8, 64, 2));
        let tags = |vlans: Option<&PortVlans>, of: (u16, u16)| {
            let frames = tagged(&frame, vlans, of);
            let stack = |tagged: &Bytes| {
                let (tags, rest) = tagged[ADDRESSES_LEN..].split_at(tagged.len() - frame.len());
                assert_eq!(rest, &frame[ADDRESSES_LEN..]);
                let tags = tags.chunks(4).map(|tag| (tag[..2] == [0x81, 0], tag[3]));
                tags.collect::<Vec<_>>()
            };
            frames.iter().map(stack).collect::<Vec<_>>()
        };
        assert_eq!(tags(None, (0, 0)), [[]]);
        assert_eq!(tags(None, (5, 0)), [[(true, 5)], [(false, 5)]]);
        let both = |kinds: [bool; 2]| vec![(kinds[0], 5), (kinds[1], 3)];
        let each = [[true, true], [true, false], [false, true], [false, false]].map(both);
        assert_eq!(tags(None, (5, 3)), each);
        let vlans = |provider| PortVlans {
            untagged: Some(7),
            member: [5, 7].into(),
            bare: [7].into(),
            provider,
            ..PortVlans::default()
        };
        for provider in [false, true] {
            let vlans = vlans(provider);
            assert_eq!(tags(Some(&vlans), (7, 0)), [[]]);
            assert_eq!(tags(Some(&vlans), (7, 3)), [[(true, 3)], [(false, 3)]]);
            assert_eq!(tags(Some(&vlans), (5, 0)), [[(!provider, 5)]]);
            let each = [true, false].map(|inner| both([!provider, inner]));
            assert_eq!(tags(Some(&vlans), (5, 3)), each);
            let native = PortVlans { member: [0, 7].into(), native: 5, ..vlans };
            assert_eq!(tags(Some(&native), (0, 0)), [[(!provider, 5)]]);
        }
    }

    #[test]
    fn a_probe_is_what_the_observer_reads_as_one() {
        let frame = arp_probe(
            Mac([2, 0, 0, 0, 0, 1]),
            Mac([2, 0, 0, 0, 0, 2]),
            Ipv4Addr::new(10, 8, 64, 2),
        );
        assert_eq!(frame.len(), FRAME_LEN);
        let port = <Port as bytemuck::Zeroable>::zeroed();
        let parsed = guard_ebpf::frame::parse(&frame[..], &port);
        let claim = parsed.claim().unwrap();
        assert_eq!(claim.strength, guard_ebpf::abi::STRENGTH_TENTATIVE);
        assert_eq!(claim.key.ip(), Ipv4Addr::new(10, 8, 64, 2));
    }
}
