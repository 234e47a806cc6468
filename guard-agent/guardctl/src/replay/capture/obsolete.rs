//! pcapng's packet block of before 2009 (type 2), which old files and some embedded tools still have.

use pcap_parser::pcapng::UnknownBlock;

const TYPE: u32 = 2;

/// A packet, as the block has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub interface: u16,
    pub time_high: u32,
    pub time_low: u32,
    pub original_len: u32,
    pub bytes: &'a [u8],
}

/// The block is shorter than it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooShort;

impl<'a> Packet<'a> {
    /// Reads a block that the parser does not know; none if it is of another type.
    pub(super) fn of_block(
        block: &UnknownBlock<'a>,
        big_endian: bool,
    ) -> Option<Result<Self, TooShort>> {
        // The parser reads the type as little-endian, whatever the section's order.
        let kind = if big_endian { block.block_type.swap_bytes() } else { block.block_type };
        (kind == TYPE).then(|| Self::parse(block.data, big_endian).ok_or(TooShort))
    }

    fn parse(body: &'a [u8], big_endian: bool) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<20>()?;
        let word = |at: usize| {
            let bytes = <[u8; 4]>::try_from(head.get(at..at + 4)?).ok()?;
            Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        let interface = [head[0], head[1]];
        // Between the interface and the time: how many packets were dropped before.
        Some(Self {
            interface: if big_endian {
                u16::from_be_bytes(interface)
            } else {
                u16::from_le_bytes(interface)
            },
            time_high: word(4)?,
            time_low: word(8)?,
            original_len: word(16)?,
            bytes: rest.get(..usize::try_from(word(12)?).ok()?)?,
        })
    }
}
