//! Frames from a file: pcap (libpcap's own, microseconds or nanoseconds, either byte order) or pcapng.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use pcap_parser::{
    Block, InterfaceDescriptionBlock, Linktype, PcapBlockOwned, PcapError, create_reader,
    traits::PcapNGPacketBlock as _,
};

/// Room for the largest block: the longest packet of libpcap has 256 KiB, and a block a little more.
const BUFFER: usize = 320 << 10;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is something else.
    #[error("{0}: neither a pcap nor a pcapng file")]
    NotACapture(PathBuf),
    /// Its frames are not Ethernet.
    #[error(
        "{path}: interface {interface:?} was captured as {link}, not as Ethernet; capture on one \
         interface by its name (tcpdump -i NAME), not on \"any\""
    )]
    LinkType {
        /// Which file.
        path: PathBuf,
        /// Which of its interfaces.
        interface: String,
        /// What it says of its frames.
        link: Linktype,
    },
}

/// A frame, as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The interface, an index into what [`read`] returns.
    pub interface: usize,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// What was kept of it.
    pub bytes: &'a [u8],
    /// More of it was sent than was kept.
    pub cut: bool,
}

/// What a file holds beside its frames.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// The interfaces by name, in the order in which they came.
    pub interfaces: Vec<String>,
    /// Where and why reading ended before the end.
    pub damage: Option<String>,
}

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

struct Reading<'a> {
    path: &'a Path,
    /// The name of an interface that the file gives none.
    unnamed: &'a str,
    capture: Capture,
    /// Of the running section: the interface and its clock.
    section: Vec<(usize, Clock)>,
}

/// Reads a file and hands over its frames one by one, as far as it can be read.
///
/// # Errors
/// It is no capture of Ethernet frames.
pub fn read(
    path: &Path,
    unnamed: &str,
    mut each: impl FnMut(Packet<'_>),
) -> Result<Capture, CaptureError> {
    let file =
        File::open(path).map_err(|source| CaptureError::Io { path: path.to_owned(), source })?;
    let mut reader = create_reader(BUFFER, file).map_err(|error| match error {
        PcapError::ReadError => {
            CaptureError::Io { path: path.to_owned(), source: io::ErrorKind::InvalidData.into() }
        }
        _ => CaptureError::NotACapture(path.to_owned()),
    })?;
    let capture = Capture::default();
    let mut reading = Reading { path, unnamed, capture, section: Vec::new() };
    let mut packets = 0_u64;
    let damage = loop {
        match reader.next() {
            Ok((len, block)) => {
                match reading.block(&block)? {
                    Read::Packet(packet) => {
                        packets += 1;
                        each(packet);
                    }
                    Read::Other => {}
                    Read::Stray => break "a packet of an interface that it does not describe",
                }
                drop(block);
                reader.consume(len);
            }
            Err(PcapError::Eof) => {
                return Ok(reading.capture);
            }
            Err(PcapError::Incomplete(_)) => {
                let before = reader.data().len();
                if reader.refill().is_err() {
                    break "it cannot be read any further";
                }
                if reader.data().len() == before && !reader.reader_exhausted() {
                    break "a block that is too long";
                }
            }
            Err(PcapError::UnexpectedEof) => break "it ends in the middle of a block",
            Err(PcapError::BufferTooSmall) => break "a block that is too long",
            Err(_) => break "a block that is none",
        }
    };
    reading.capture.damage = Some(format!("{}: {damage}, after {packets} packets", path.display()));
    Ok(reading.capture)
}

/// What a block is.
enum Read<'a> {
    Packet(Packet<'a>),
    Other,
    /// A packet of no known interface.
    Stray,
}

impl Reading<'_> {
    fn block<'b>(&mut self, block: &'b PcapBlockOwned<'b>) -> Result<Read<'b>, CaptureError> {
        Ok(match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let per_second =
                    if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                let name = self.unnamed.to_owned();
                self.interface(name, header.network, Clock { per_second, offset_seconds: 0 })?;
                Read::Other
            }
            PcapBlockOwned::Legacy(packet) => {
                let Some((interface, clock)) = self.section.first() else { return Ok(Read::Stray) };
                let fraction = u64::from(packet.ts_usec) * 1_000_000_000 / clock.per_second;
                Read::Packet(Packet {
                    interface: *interface,
                    time_ns: u64::from(packet.ts_sec) * 1_000_000_000 + fraction,
                    bytes: packet.data,
                    cut: packet.origlen > packet.caplen,
                })
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.section.clear();
                Read::Other
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let name = match interface.if_name() {
                    Some(Ok(name)) if !name.is_empty() => name.to_owned(),
                    _ if self.section.is_empty() => self.unnamed.to_owned(),
                    _ => format!("{}-{}", self.unnamed, self.section.len()),
                };
                self.interface(name, interface.linktype, Clock::of(interface))?;
                Read::Other
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let at = usize::try_from(packet.if_id).ok().and_then(|id| self.section.get(id));
                let Some((interface, clock)) = at else { return Ok(Read::Stray) };
                Read::Packet(Packet {
                    interface: *interface,
                    time_ns: clock.time_ns(packet.ts_high, packet.ts_low),
                    bytes: packet.packet_data(),
                    cut: packet.origlen > packet.caplen,
                })
            }
            // It says neither when nor, of several interfaces, where.
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let Some((interface, _)) = self.section.first() else { return Ok(Read::Stray) };
                let bytes = packet.packet_data();
                let cut = usize::try_from(packet.origlen).is_ok_and(|len| len > bytes.len());
                Read::Packet(Packet { interface: *interface, time_ns: 0, bytes, cut })
            }
            PcapBlockOwned::NG(_) => Read::Other,
        })
    }

    /// Interfaces of the same name in several sections are one.
    fn interface(
        &mut self,
        name: String,
        link: Linktype,
        clock: Clock,
    ) -> Result<(), CaptureError> {
        if link != Linktype::ETHERNET {
            let path = self.path.to_owned();
            return Err(CaptureError::LinkType { path, interface: name, link });
        }
        let all = &mut self.capture.interfaces;
        let at = all.iter().position(|known| *known == name).unwrap_or_else(|| {
            all.push(name);
            all.len() - 1
        });
        self.section.push((at, clock));
        Ok(())
    }
}
