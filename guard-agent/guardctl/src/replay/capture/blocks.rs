//! The blocks of a file: which are packets, of which interface and when.

use pcap_parser::{
    Block, InterfaceDescriptionBlock, PcapBlockOwned, traits::PcapNGPacketBlock as _,
};

use super::{
    Capture, NotEthernet, Packet,
    link::{Link, fcs_of_packet},
    obsolete,
};

/// How the clock of an interface counts.
#[derive(Clone, Copy)]
struct Clock {
    per_second: u64,
    offset_seconds: i64,
}

impl Clock {
    const MICROSECONDS: Self = Self { per_second: 1_000_000, offset_seconds: 0 };

    fn of(interface: &InterfaceDescriptionBlock<'_>) -> Self {
        let [binary, exponent] = [interface.if_tsresol & 0x80, interface.if_tsresol & 0x7f];
        let per_second = match binary {
            0 => 10_u64.checked_pow(exponent.into()),
            _ => 1_u64.checked_shl(exponent.into()),
        };
        let per_second = per_second.unwrap_or(Self::MICROSECONDS.per_second);
        Self { per_second, offset_seconds: interface.if_tsoffset }
    }

    fn time_ns(self, high: u32, low: u32) -> u64 {
        const NANOS: i128 = 1_000_000_000;
        let stamp = i128::from(u64::from(high) << 32 | u64::from(low));
        let nanos = stamp * NANOS / i128::from(self.per_second.max(1));
        u64::try_from(nanos + i128::from(self.offset_seconds) * NANOS).unwrap_or(0)
    }
}

/// An interface of the running section.
#[derive(Clone, Copy)]
struct Interface {
    place: Place,
    clock: Clock,
    /// Octets of FCS at the end of its frames.
    fcs: usize,
}

/// Where an interface is listed.
#[derive(Clone, Copy)]
enum Place {
    /// In [`Capture::interfaces`].
    Ethernet(usize),
    /// In [`Capture::others`].
    Other(usize),
}

/// Reads the blocks of a file one after the other.
pub(super) struct Reading<'a> {
    /// The name of an interface that the file gives none.
    unnamed: &'a str,
    pub capture: Capture,
    section: Vec<Interface>,
    /// The byte order of the running section.
    big_endian: bool,
}

/// A packet as a block holds it, with its FCS.
struct Raw<'a> {
    time_ns: u64,
    bytes: &'a [u8],
    original_len: u32,
    /// Octets of FCS, where the packet says so for itself.
    fcs: Option<usize>,
}

/// What a block is.
pub(super) enum Read<'a> {
    Packet(Packet<'a>),
    Other,
    /// A packet of no known interface.
    Stray,
    /// A packet that ends beyond its block.
    Broken,
}

impl<'a> Raw<'a> {
    /// Without its last octets: those that are missing, if it was cut, were the FCS first.
    fn without_fcs(self, interface: usize, fcs: usize) -> Packet<'a> {
        let Self { time_ns, bytes, original_len, fcs: own } = self;
        let whole = usize::try_from(original_len).unwrap_or(usize::MAX).max(bytes.len());
        let len = whole.saturating_sub(own.unwrap_or(fcs));
        let kept = &bytes[..bytes.len().min(len)];
        Packet { interface, time_ns, bytes: kept, cut: kept.len() < len }
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(unnamed: &'a str) -> Self {
        let capture = Capture::default();
        Self { unnamed, capture, section: Vec::new(), big_endian: false }
    }

    pub(super) fn block<'b>(&mut self, block: &'b PcapBlockOwned<'b>) -> Read<'b> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let per_second =
                    if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                let clock = Clock { per_second, offset_seconds: 0 };
                self.interface(None, Link::of_pcap(header.network), clock);
                Read::Other
            }
            PcapBlockOwned::Legacy(packet) => self.packet(0, |Clock { per_second, .. }| Raw {
                time_ns: u64::from(packet.ts_sec) * 1_000_000_000
                    + u64::from(packet.ts_usec) * 1_000_000_000 / per_second,
                bytes: packet.data,
                original_len: packet.origlen,
                fcs: None,
            }),
            PcapBlockOwned::NG(Block::SectionHeader(section)) => {
                self.section.clear();
                self.big_endian = section.big_endian();
                Read::Other
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let name = interface.if_name().and_then(Result::ok).filter(|name| !name.is_empty());
                let link = Link::of_pcapng(interface.linktype, &interface.options);
                self.interface(name, link, Clock::of(interface));
                Read::Other
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let fcs = fcs_of_packet(&packet.options, self.big_endian);
                self.packet(packet.if_id, |clock| Raw {
                    time_ns: clock.time_ns(packet.ts_high, packet.ts_low),
                    bytes: packet.packet_data(),
                    original_len: packet.origlen,
                    fcs,
                })
            }
            // It says neither when nor, of several interfaces, where.
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => self.packet(0, |_| Raw {
                time_ns: 0,
                bytes: packet.packet_data(),
                original_len: packet.origlen,
                fcs: None,
            }),
            PcapBlockOwned::NG(Block::Unknown(block)) => {
                match obsolete::Packet::of_block(block, self.big_endian) {
                    Some(Ok(packet)) => self.packet(packet.interface.into(), |clock| Raw {
                        time_ns: clock.time_ns(packet.time_high, packet.time_low),
                        bytes: packet.bytes,
                        original_len: packet.original_len,
                        fcs: None,
                    }),
                    Some(Err(_)) => Read::Broken,
                    None => {
                        self.capture.unknown_blocks += 1;
                        Read::Other
                    }
                }
            }
            PcapBlockOwned::NG(_) => Read::Other,
        }
    }

    fn packet<'b>(&mut self, interface: u32, raw: impl FnOnce(Clock) -> Raw<'b>) -> Read<'b> {
        let known = usize::try_from(interface).ok().and_then(|id| self.section.get(id));
        let Some(Interface { place, clock, fcs }) = known.copied() else { return Read::Stray };
        match place {
            Place::Ethernet(at) => Read::Packet(raw(clock).without_fcs(at, fcs)),
            Place::Other(at) => {
                self.capture.others[at].frames += 1;
                Read::Other
            }
        }
    }

    /// Interfaces of the same name in several sections are one.
    fn interface(&mut self, name: Option<&str>, link: Link, clock: Clock) {
        let number = self.section.len();
        let place = if link.is_ethernet() {
            let name = match (name, number) {
                (Some(name), _) => name.to_owned(),
                (None, 0) => self.unnamed.to_owned(),
                (None, number) => format!("{}-{number}", self.unnamed),
            };
            let all = &mut self.capture.interfaces;
            Place::Ethernet(all.iter().position(|known| *known == name).unwrap_or_else(|| {
                all.push(name);
                all.len() - 1
            }))
        } else {
            let interface = name.map_or_else(|| number.to_string(), str::to_owned);
            let (all, link) = (&mut self.capture.others, link.name());
            let same = |known: &NotEthernet| known.interface == interface && known.link == link;
            Place::Other(all.iter().position(same).unwrap_or_else(|| {
                all.push(NotEthernet { interface, link, frames: 0 });
                all.len() - 1
            }))
        };
        self.section.push(Interface { place, clock, fcs: link.fcs });
    }
}
