//! Frames from a form that people read.

use std::net::Ipv4Addr;

use serde::Deserialize;

/// A frame, by what is in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// The Ethernet source; default: ARP's sender.
    eth_src: Option<String>,
    /// Default: by the payload.
    ethertype: Option<u16>,
    arp: Option<Arp>,
    ipv4: Option<Ipv4>,
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
pub fn mac(text: &str) -> [u8; 6] {
    let octets: Vec<u8> =
        text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap_or_else(|_| panic!("{text} is not a MAC"))
}

impl Frame {
    /// The address that it claims, or probes for.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match (&self.arp, &self.ipv4) {
            (Some(arp), _) if arp.spa.is_unspecified() => Some(arp.tpa),
            (Some(arp), _) => Some(arp.spa),
            (None, Some(ipv4)) => Some(ipv4.src),
            (None, None) => None,
        }
    }

    /// The MAC that it names for the address.
    pub fn mac(&self) -> [u8; 6] {
        let named = self.arp.as_ref().map(|arp| &arp.sha).or(self.eth_src.as_ref());
        mac(named.expect("eth_src or arp"))
    }

    /// The frame on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0xff; 6];
        bytes.extend(self.eth_src.as_deref().map_or_else(|| self.mac(), mac));
        let by_payload = if self.arp.is_some() { 0x0806 } else { 0x0800 };
        bytes.extend(self.ethertype.unwrap_or(by_payload).to_be_bytes());
        if let Some(arp) = &self.arp {
            arp.write(&mut bytes);
        }
        if let Some(ipv4) = &self.ipv4 {
            ipv4.write(&mut bytes);
        }
        let digits: Vec<char> = self.hex.chars().filter(|digit| !digit.is_whitespace()).collect();
        bytes.extend(digits.chunks(2).map(|pair| {
            u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("two digits")
        }));
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
        let Self { src, dst, protocol, ttl, version, ihl, fragment, ports } = self;
        let options = usize::from(*ihl).saturating_sub(5) * 4;
        bytes.extend([version << 4 | ihl, 0]);
        bytes.extend(u16::try_from(20 + options + 8).unwrap().to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([*ttl, *protocol, 0, 0]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.resize(bytes.len() + options, 0);
        bytes.extend(ports.0.to_be_bytes());
        bytes.extend(ports.1.to_be_bytes());
        bytes.extend([0, 8, 0, 0]);
    }
}
