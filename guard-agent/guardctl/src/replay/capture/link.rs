//! Link types: which frames are Ethernet, and how long their checksum (FCS) is where it was kept.

use pcap_parser::{Linktype, PcapNGOption, pcapng::OptionCode};

/// pcapng's `if_fcslen` and `epb_flags`, for which the parser has no names.
const IF_FCSLEN: OptionCode = OptionCode(13);
const EPB_FLAGS: OptionCode = OptionCode(2);

/// What a file says of the frames of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Their type.
    pub kind: Linktype,
    /// Octets of FCS at the end of each.
    pub fcs: usize,
}

impl Link {
    /// By pcap's header, whose upper bits say whether there is an FCS, and how long it is in units of
    /// two octets.
    pub(super) fn of_pcap(network: Linktype) -> Self {
        let bits = network.0.cast_unsigned();
        let has_fcs = bits & 0x0400_0000 != 0;
        Self {
            kind: Linktype((bits & 0xffff).cast_signed()),
            fcs: if has_fcs { octets(bits >> 28) * 2 } else { 0 },
        }
    }

    /// By pcapng's description of an interface. Its specification counts the FCS in bits, and most who
    /// write it do so in octets.
    pub(super) fn of_pcapng(kind: Linktype, options: &[PcapNGOption<'_>]) -> Self {
        let option = options.iter().find(|option| option.code == IF_FCSLEN);
        let fcs = match option.and_then(|option| option.value().first().copied()).unwrap_or(0) {
            bits @ 16.. => bits / 8,
            octets => octets,
        };
        Self { kind, fcs: fcs.into() }
    }

    /// Whether guard can read them.
    pub(super) fn is_ethernet(self) -> bool {
        self.kind == Linktype::ETHERNET
    }

    /// Its name in the registry of link types (`LINKTYPE_…`), or its number.
    pub(super) fn name(self) -> String {
        let known = NAMES.iter().find(|(number, _)| *number == self.kind.0);
        known.map_or_else(|| format!("link type {}", self.kind.0), |(_, name)| (*name).to_owned())
    }
}

/// Octets of FCS by the flags of one packet; none where they do not say so.
pub(super) fn fcs_of_packet(options: &[PcapNGOption<'_>], big_endian: bool) -> Option<usize> {
    let option = options.iter().find(|option| option.code == EPB_FLAGS)?;
    let bytes: [u8; 4] = option.value().get(..4)?.try_into().ok()?;
    let flags = if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    Some(octets(flags >> 5 & 0xf)).filter(|fcs| *fcs != 0)
}

fn octets(count: u32) -> usize {
    usize::try_from(count).unwrap_or(0)
}

/// Those that a capture on a Linux host can have.
const NAMES: [(i32, &str); 24] = [
    (0, "NULL"),
    (1, "ETHERNET"),
    (6, "IEEE802_5"),
    (8, "SLIP"),
    (9, "PPP"),
    (10, "FDDI"),
    (12, "RAW"),
    (51, "PPP_ETHER"),
    (101, "RAW"),
    (105, "IEEE802_11"),
    (108, "LOOP"),
    (113, "LINUX_SLL"),
    (127, "IEEE802_11_RADIOTAP"),
    (189, "USB_LINUX"),
    (195, "IEEE802_15_4_WITHFCS"),
    (201, "BLUETOOTH_HCI_H4_WITH_PHDR"),
    (220, "USB_LINUX_MMAPPED"),
    (227, "CAN_SOCKETCAN"),
    (228, "IPV4"),
    (229, "IPV6"),
    (239, "NFLOG"),
    (252, "WIRESHARK_UPPER_PDU"),
    (253, "NETLINK"),
    (276, "LINUX_SLL2"),
];
