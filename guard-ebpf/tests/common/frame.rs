//! Frames from a form that people read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

/// A frame, by what is in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frame {
    /// The Ethernet destination; default: broadcast.
    eth_dst: Option<String>,
    /// The Ethernet source; default: ARP's sender.
    eth_src: Option<String>,
    /// Default: by the payload.
    ethertype: Option<u16>,
    /// A tag that the kernel has taken out: type and tag control information.
    pub stripped: Option<(u16, u16)>,
    /// Tags in the frame: type and tag control information.
    #[serde(default)]
    tags: Vec<(u16, u16)>,
    /// A length instead of the type, and LLC and SNAP behind it.
    #[serde(default)]
    snap: bool,
    arp: Option<Arp>,
    ipv4: Option<Ipv4>,
    ipv6: Option<Ipv6>,
    /// Further bytes, in hexadecimal.
    #[serde(default)]
    hex: String,
    /// Zeroes behind it all.
    #[serde(default)]
    pad: usize,
    /// The length to cut it to.
    cut: Option<usize>,
}

/// An ARP packet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arp {
    op: u16,
    sha: String,
    spa: Ipv4Addr,
    tpa: Ipv4Addr,
    #[serde(default = "ethernet")]
    htype: u16,
    #[serde(default = "ipv4")]
    ptype: u16,
    #[serde(default = "six")]
    hlen: u8,
    #[serde(default = "four")]
    plen: u8,
}

/// An IPv4 packet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ipv4 {
    src: Ipv4Addr,
    #[serde(default = "peer")]
    dst: Ipv4Addr,
    #[serde(default = "udp")]
    protocol: u8,
    #[serde(default = "ttl")]
    ttl: u8,
    #[serde(default = "four")]
    version: u8,
    /// In words of four bytes; the options are zeroes.
    #[serde(default = "five")]
    ihl: u8,
    /// In units of eight bytes.
    #[serde(default)]
    fragment: u16,
    /// Source and destination port.
    #[serde(default)]
    ports: (u16, u16),
    dhcp: Option<Dhcp>,
}

/// A message of a DHCP client.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dhcp {
    #[serde(default = "one")]
    op: u8,
    /// In hexadecimal, with the cookie before them.
    options: String,
}

const fn one() -> u8 {
    1
}

impl Dhcp {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 236];
        bytes[0] = self.op;
        bytes.extend(hex(&self.options));
        bytes
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
    pairs.map(|pair| u8::from_str_radix(&pair, 16).expect("two digits")).collect()
}

/// An IPv6 packet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ipv6 {
    src: Ipv6Addr,
    #[serde(default = "peer6")]
    dst: Ipv6Addr,
    #[serde(default = "udp")]
    next: u8,
    /// Default: 255 for neighbour discovery, else 64.
    hop_limit: Option<u8>,
    #[serde(default = "six")]
    version: u8,
    /// The numbers of extension headers, each of its least length.
    #[serde(default)]
    ext: Vec<u8>,
    /// In units of eight bytes, for a fragment header among them.
    #[serde(default)]
    fragment: u16,
    /// Added to the payload's length.
    #[serde(default)]
    len_off_by: i16,
    nd: Option<Nd>,
    /// An ICMP message of another type.
    icmp: Option<u8>,
}

/// A message of neighbour discovery.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nd {
    kind: u8,
    #[serde(default)]
    code: u8,
    #[serde(default)]
    flags: u8,
    target: Option<Ipv6Addr>,
    /// Options of another type before the link-layer addresses.
    #[serde(default)]
    others: usize,
    /// Link-layer addresses: of the target for advertisements and redirects, else of the source.
    #[serde(default)]
    lla: Vec<String>,
    /// Another type for these.
    option: Option<u8>,
    /// Another length for these, in units of eight bytes.
    units: Option<u8>,
}

const fn peer6() -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)
}
const fn ethernet() -> u16 {
    1
}
const fn ipv4() -> u16 {
    0x0800
}
const fn four() -> u8 {
    4
}
const fn five() -> u8 {
    5
}
const fn six() -> u8 {
    6
}
const fn udp() -> u8 {
    17
}
const fn ttl() -> u8 {
    64
}
const fn peer() -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 64, 9)
}

/// A MAC from its usual form.
pub(super) fn mac(text: &str) -> [u8; 6] {
    let octets: Vec<u8> =
        text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap_or_else(|_| panic!("{text} is not a MAC"))
}

impl Frame {
    /// The address that it claims first, or probes for.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        if let Some(arp) = &self.arp {
            let address = if arp.spa.is_unspecified() { arp.tpa } else { arp.spa };
            return Some(address.into());
        }
        if let Some(ipv4) = &self.ipv4 {
            return Some(ipv4.src.into());
        }
        let ipv6 = self.ipv6.as_ref()?;
        let target = ipv6.nd.as_ref().and_then(|nd| match nd.kind {
            136 => nd.target,
            137 if !nd.lla.is_empty() => nd.target,
            135 if ipv6.src.is_unspecified() => nd.target,
            _ => None,
        });
        Some(target.unwrap_or(ipv6.src).into())
    }

    /// The MAC that it names first for the address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        let nd = self.ipv6.as_ref().and_then(|ipv6| ipv6.nd.as_ref());
        if let Some(lla) = nd.and_then(|nd| nd.lla.first()) {
            return mac(lla);
        }
        let named = self.arp.as_ref().map(|arp| &arp.sha).or(self.eth_src.as_ref());
        mac(named.expect("eth_src or arp"))
    }

    /// The Ethernet source.
    pub(crate) fn eth_src(&self) -> [u8; 6] {
        self.eth_src.as_deref().map_or_else(|| self.mac(), mac)
    }

    /// The frame as it is sent: with the tag in it that a kernel takes out on receipt.
    pub(crate) fn on_the_wire(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        if let Some((kind, tci)) = self.stripped {
            bytes.splice(12..12, kind.to_be_bytes().into_iter().chain(tci.to_be_bytes()));
        }
        bytes
    }

    /// The frame as a program sees it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        if let Some(arp) = &self.arp {
            arp.write(&mut payload);
        }
        if let Some(ipv4) = &self.ipv4 {
            ipv4.write(&mut payload);
        }
        if let Some(ipv6) = &self.ipv6 {
            ipv6.write(&mut payload);
        }
        payload.extend(hex(&self.hex));
        let by_payload = match (&self.arp, &self.ipv6) {
            (Some(_), _) => 0x0806,
            (None, Some(_)) => 0x86dd,
            (None, None) => 0x0800,
        };
        let ethertype: u16 = self.ethertype.unwrap_or(by_payload);

        let mut bytes = self.eth_dst.as_deref().map_or([0xff; 6], mac).to_vec();
        bytes.extend(self.eth_src());
        for (kind, tci) in &self.tags {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        if self.snap {
            bytes.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
            bytes.extend([0xaa, 0xaa, 3, 0, 0, 0]);
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len() + self.pad, 0);
        bytes.truncate(self.cut.unwrap_or(usize::MAX));
        bytes
    }
}

impl Arp {
    fn write(&self, bytes: &mut Vec<u8>) {
        let Self { op, sha, spa, tpa, htype, ptype, hlen, plen } = self;
        bytes.extend(htype.to_be_bytes());
        bytes.extend(ptype.to_be_bytes());
        bytes.extend([*hlen, *plen]);
        bytes.extend(op.to_be_bytes());
        bytes.extend(mac(sha));
        bytes.extend(spa.octets());
        bytes.extend([0; 6]);
        bytes.extend(tpa.octets());
    }
}

impl Ipv4 {
    fn write(&self, bytes: &mut Vec<u8>) {
        let Self { src, dst, protocol, ttl, version, ihl, fragment, ports, dhcp } = self;
        let data = dhcp.as_ref().map(Dhcp::bytes).unwrap_or_default();
        let options = usize::from(*ihl).saturating_sub(5) * 4;
        bytes.extend([version << 4 | ihl, 0]);
        bytes.extend(u16::try_from(20 + options + 8 + data.len()).unwrap().to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([*ttl, *protocol, 0, 0]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.resize(bytes.len() + options, 0);
        bytes.extend(ports.0.to_be_bytes());
        bytes.extend(ports.1.to_be_bytes());
        bytes.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
    }
}

impl Ipv6 {
    fn write(&self, bytes: &mut Vec<u8>) {
        let Self { src, dst, next, hop_limit, version, ext, fragment, len_off_by, nd, icmp } = self;
        let message =
            nd.as_ref().map(Nd::bytes).or(icmp.map(|kind| vec![kind, 0, 0, 0, 0, 0, 0, 0]));
        let upper = if message.is_some() { 58 } else { *next };
        let chain: Vec<u8> = ext.iter().copied().chain([upper]).collect();
        let mut payload = Vec::new();
        for pair in chain.windows(2) {
            let fragment = if pair[0] == 44 { (fragment << 3).to_be_bytes() } else { [0, 0] };
            payload.extend([pair[1], 0, fragment[0], fragment[1], 0, 0, 0, 0]);
        }
        payload.extend(message.unwrap_or_else(|| vec![0; 8]));
        let len = u16::try_from(payload.len()).unwrap().checked_add_signed(*len_off_by).unwrap();
        bytes.extend([version << 4, 0, 0, 0]);
        bytes.extend(len.to_be_bytes());
        let default = if nd.is_some() { 255 } else { 64 };
        bytes.extend([chain[0], hop_limit.unwrap_or(default)]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend(payload);
    }
}

impl Nd {
    fn bytes(&self) -> Vec<u8> {
        let Self { kind, code, flags, target, others, lla, option, units } = self;
        let mut bytes = vec![*kind, *code, 0, 0, *flags, 0, 0, 0];
        bytes.extend(target.iter().flat_map(Ipv6Addr::octets));
        match kind {
            134 => bytes.extend([0; 8]),
            137 => bytes.extend([0; 16]),
            _ => {}
        }
        for _ in 0..*others {
            bytes.extend([14, 1, 0, 0, 0, 0, 0, 0]);
        }
        let by_kind = if matches!(kind, 136 | 137) { 2 } else { 1 };
        for text in lla {
            bytes.extend([option.unwrap_or(by_kind), units.unwrap_or(1)]);
            bytes.extend(mac(text));
        }
        bytes
    }
}
