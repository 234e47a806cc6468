//! Frames.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv6Type, PacketBuilder,
    icmpv6::{NeighborAdvertisementHeader, RouterAdvertisementHeader},
};
use guard_core::mac::MacError;

/// A MAC, written as everything in guard writes it: `02:00:00:00:00:0a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// None, as in the target of a request.
    pub const ZERO: Self = Self([0; 6]);

    /// From its octets.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The locally administered one with this number.
    #[must_use]
    pub const fn numbered(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self([0x02, 0, a, b, c, d])
    }

    /// Its octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        guard_core::mac::Mac(self.0).fmt(f)
    }
}

impl std::str::FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        text.parse().map(|mac: guard_core::mac::Mac| Self(mac.0))
    }
}

/// An ARP packet for Ethernet and IPv4, and the Ethernet addresses around it; each field can be
/// set to what an honest sender would not.
#[derive(Clone, Debug)]
pub struct Arp {
    /// Source of the frame.
    pub eth_src: Mac,
    /// Destination of the frame.
    pub eth_dst: Mac,
    /// What it is.
    pub operation: ArpOperation,
    /// Sender's MAC.
    pub sha: Mac,
    /// Sender's address.
    pub spa: Ipv4Addr,
    /// Target's MAC.
    pub tha: Mac,
    /// Target's address.
    pub tpa: Ipv4Addr,
}

impl Arp {
    /// An ordinary request (claims.md A01).
    #[must_use]
    pub fn request(sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Self {
        let operation = ArpOperation::REQUEST;
        Self { eth_src: sha, eth_dst: Mac::BROADCAST, operation, sha, spa, tha: Mac::ZERO, tpa }
    }

    /// An ordinary reply (claims.md A02).
    #[must_use]
    pub fn reply(sha: Mac, spa: Ipv4Addr, tha: Mac, tpa: Ipv4Addr) -> Self {
        Self { eth_src: sha, eth_dst: tha, operation: ArpOperation::REPLY, sha, spa, tha, tpa }
    }

    /// A probe (claims.md A04, RFC 5227 §2.1.1).
    #[must_use]
    pub fn probe(sha: Mac, tpa: Ipv4Addr) -> Self {
        Self::request(sha, Ipv4Addr::UNSPECIFIED, tpa)
    }

    /// An announcement (claims.md A06, RFC 5227 §2.3).
    #[must_use]
    pub fn announcement(sha: Mac, spa: Ipv4Addr) -> Self {
        Self::request(sha, spa, spa)
    }

    /// A gratuitous reply (claims.md A07).
    #[must_use]
    pub fn gratuitous_reply(sha: Mac, spa: Ipv4Addr) -> Self {
        Self::reply(sha, spa, Mac::BROADCAST, spa)
    }

    /// The bytes on the wire, without padding.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let ethernet = Ethernet2Header {
            source: self.eth_src.octets(),
            destination: self.eth_dst.octets(),
            ether_type: EtherType::ARP,
        };
        let mut frame = ethernet.to_bytes().to_vec();
        let arp = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            self.operation,
            &self.sha.octets(),
            &self.spa.octets(),
            &self.tha.octets(),
            &self.tpa.octets(),
        )
        .expect("both senders and both targets are equally long");
        frame.extend_from_slice(&arp.to_bytes());
        frame
    }

    /// Reads one from a received frame; `None` where it is something else.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (ethernet, rest) = Ethernet2Header::from_slice(frame).ok()?;
        if ethernet.ether_type != EtherType::ARP {
            return None;
        }
        let arp = etherparse::ArpPacketSlice::from_slice(rest).ok()?;
        Some(Self {
            eth_src: Mac(ethernet.source),
            eth_dst: Mac(ethernet.destination),
            operation: arp.operation(),
            sha: Mac(arp.sender_hw_addr().try_into().ok()?),
            spa: <[u8; 4]>::try_from(arp.sender_protocol_addr()).ok()?.into(),
            tha: Mac(arp.target_hw_addr().try_into().ok()?),
            tpa: <[u8; 4]>::try_from(arp.target_protocol_addr()).ok()?.into(),
        })
    }
}

/// A UDP datagram to the discard port: data with `source` as its sender (claims.md D01).
///
/// # Errors
/// Never, for a frame this short.
pub fn ipv4_udp(eth: (Mac, Mac), source: Ipv4Addr, destination: Ipv4Addr) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(eth.0.octets(), eth.1.octets())
        .ipv4(source.octets(), destination.octets(), 64)
        .udp(40_000, 9);
    let mut frame = Vec::with_capacity(builder.size(0));
    builder.write(&mut frame, &[]).context("writing a datagram")?;
    Ok(frame)
}

/// All nodes on the link (RFC 4291 §2.7.1), and their MAC (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// An unsolicited advertisement to all nodes that `target` is at each of `macs` (claims.md N10,
/// N12).
///
/// # Errors
/// Never, for a frame this short.
pub fn neighbour_advertisement(
    eth_src: Mac,
    source: Ipv6Addr,
    target: Ipv6Addr,
    macs: &[Mac],
) -> Result<Vec<u8>> {
    let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let builder = PacketBuilder::ethernet2(eth_src.octets(), ALL_NODES_MAC)
        .ipv6(source.octets(), ALL_NODES.octets(), 255)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
    let mut rest = target.octets().to_vec();
    for mac in macs {
        rest.extend([2, 1]);
        rest.extend(mac.octets());
    }
    let mut frame = Vec::with_capacity(builder.size(rest.len()));
    builder.write(&mut frame, &rest).context("writing an advertisement")?;
    Ok(frame)
}

/// A router's advertisement to all nodes, with its MAC (claims.md N09, RFC 4861 §4.2).
///
/// # Errors
/// Never, for a frame this short.
pub fn router_advertisement(source: Mac) -> Result<Vec<u8>> {
    const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let header = RouterAdvertisementHeader {
        cur_hop_limit: 64,
        managed_address_config: false,
        other_config: false,
        router_lifetime: 1800,
    };
    let builder = PacketBuilder::ethernet2(source.octets(), ALL_NODES_MAC)
        .ipv6(LINK_LOCAL, ALL_NODES.octets(), 255)
        .icmpv6(Icmpv6Type::RouterAdvertisement(header));
    // Reachable and retransmission times, and the source's link-layer address.
    let mut rest = vec![0; 8];
    rest.extend([1, 1]);
    rest.extend(source.octets());
    let mut frame = Vec::with_capacity(builder.size(rest.len()));
    builder.write(&mut frame, &rest).context("writing an advertisement")?;
    Ok(frame)
}
