//! Frames from a file: pcap (libpcap's own, microseconds or nanoseconds, either byte order) or pcapng.

mod blocks;
mod link;
mod obsolete;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use pcap_parser::{PcapError, create_reader};

use blocks::{Read, Reading};

/// Room for the largest block: the longest packet of libpcap has 256 KiB, and a block a little more.
const BUFFER: usize = 320 << 10;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
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
    /// None of its frames is Ethernet.
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
        link: String,
    },
}

/// A frame, as it was captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
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
pub(super) struct Capture {
    /// The interfaces by name, in the order in which they came.
    pub interfaces: Vec<String>,
    /// Those whose frames are not Ethernet.
    pub others: Vec<NotEthernet>,
    /// How many blocks it has of types that are not known.
    pub unknown_blocks: u64,
    /// Where and why reading ended before the end.
    pub damage: Option<String>,
}

/// An interface whose frames guard does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotEthernet {
    /// Its name, or its number where it has none.
    pub interface: String,
    /// The name of its link type.
    pub link: String,
    /// How many frames it has.
    pub frames: u64,
}

/// Reads a file and hands over its frames one by one, as far as it can be read.
///
/// # Errors
/// It is no capture, or one without an interface whose frames are Ethernet.
pub(super) fn read(
    path: &Path,
    unnamed: &str,
    mut each: impl FnMut(Packet<'_>),
) -> Result<Capture, CaptureError> {
    let file =
        File::open(path).map_err(|source| CaptureError::Io { path: path.to_owned(), source })?;
    let mut reader = create_reader(BUFFER, file).map_err(|error| match error {
        // The reader keeps to itself what the system said.
        PcapError::ReadError => CaptureError::Io {
            path: path.to_owned(),
            source: read_byte(path).err().unwrap_or_else(|| io::ErrorKind::InvalidData.into()),
        },
        _ => CaptureError::NotACapture(path.to_owned()),
    })?;
    let mut reading = Reading::new(unnamed);
    let mut packets = 0_u64;
    let damage = loop {
        match reader.next() {
            Ok((len, block)) => {
                match reading.block(&block) {
                    Read::Packet(packet) => {
                        packets += 1;
                        each(packet);
                    }
                    Read::Other => {}
                    Read::Stray => break "a packet of an interface that it does not describe",
                    Read::Broken => break "a packet that is longer than its block",
                }
                drop(block);
                reader.consume(len);
            }
            Err(PcapError::Eof) => return checked(reading.capture, path),
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
    checked(reading.capture, path)
}

fn read_byte(path: &Path) -> io::Result<usize> {
    io::Read::read(&mut File::open(path)?, &mut [0])
}

/// A file without any Ethernet is not what was meant.
fn checked(capture: Capture, path: &Path) -> Result<Capture, CaptureError> {
    match (&capture.interfaces[..], &capture.others[..]) {
        ([], [NotEthernet { interface, link, .. }, ..]) => Err(CaptureError::LinkType {
            path: path.to_owned(),
            interface: interface.clone(),
            link: link.clone(),
        }),
        _ => Ok(capture),
    }
}
