//! What a file can hold beside whole Ethernet frames.

use super::*;

/// A section in either byte order; its blocks are words and bytes.
struct Section {
    big_endian: bool,
    file: Vec<u8>,
}

impl Section {
    fn new(big_endian: bool) -> Self {
        let mut section = Self { big_endian, file: Vec::new() };
        let body = [section.word(0x1a2b_3c4d), section.halves(1, 0), [0xff; 4], [0xff; 4]].concat();
        section.block(0x0a0d_0d0a, &body);
        section
    }

    fn word(&self, word: u32) -> [u8; 4] {
        if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn halves(&self, one: u16, other: u16) -> [u8; 4] {
        let half =
            |half: u16| if self.big_endian { half.to_be_bytes() } else { half.to_le_bytes() };
        let ([a, b], [c, d]) = (half(one), half(other));
        [a, b, c, d]
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = self.word(u32::try_from(body.len() + 12).unwrap());
        self.file.extend([&self.word(kind)[..], &len, &body, &len].concat());
    }

    fn interface(&mut self, link: u16, options: &[u8]) {
        let body = [&self.halves(link, 0)[..], &self.word(0), options].concat();
        self.block(1, &body);
    }

    fn packet(&mut self, interface: u32, second: u64, bytes: &[u8], original: u32, options: &[u8]) {
        let time = self.time(second);
        let lens = [self.word(u32::try_from(bytes.len()).unwrap()), self.word(original)].concat();
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(4), 0);
        let body = [&self.word(interface)[..], &time, &lens, &padded, options].concat();
        self.block(6, &body);
    }

    fn whole(&mut self, interface: u32, second: u64, bytes: &[u8]) {
        self.packet(interface, second, bytes, u32::try_from(bytes.len()).unwrap(), &[]);
    }

    fn obsolete(&mut self, second: u64, bytes: &[u8]) {
        let len = self.word(u32::try_from(bytes.len()).unwrap());
        let body = [&self.halves(0, 7)[..], &self.time(second), &len, &len, bytes].concat();
        self.block(2, &body);
    }

    fn time(&self, second: u64) -> Vec<u8> {
        let micros = (1_700_000_000 + second) * 1_000_000;
        let halves = [micros >> 32, micros & 0xffff_ffff];
        halves.iter().flat_map(|half| self.word(u32::try_from(*half).unwrap())).collect()
    }

    fn replayed(&self) -> Report {
        replayed(&self.file, &Settings::default()).unwrap()
    }
}

#[test]
fn obsolete_packet_blocks_are_judged_like_any_other() {
    for big_endian in [false, true] {
        let mut file = Section::new(big_endian);
        file.interface(1, &[]);
        file.obsolete(0, &announce(OWNER, ADDRESS));
        file.obsolete(1, &announce(THIEF, ADDRESS));
        let report = file.replayed();
        assert_eq!((report.frames, report.unknown_blocks, &report.damage), (2, 0, &None));
        assert_eq!(told(&report)[0].0, "CONFLICT_KIND_DUPLICATE");
        assert_eq!(report.claims[1].first_seen.as_second(), 1_700_000_001);
        // One that is longer than its block, and one of an interface that is not there.
        let len = file.word(99);
        let body = [[0; 4], [0; 4], [0; 4], len, len].concat();
        file.block(2, &body);
        let report = file.replayed();
        let damage = report.damage.unwrap();
        assert!(damage.ends_with("longer than its block, after 2 packets"), "{damage}");
    }
}

#[test]
fn blocks_that_nobody_knows_are_counted() {
    let mut file = Section::new(false);
    file.interface(1, &[]);
    file.block(0x0bad_cafe, &[1, 2, 3, 4]);
    file.whole(0, 0, &announce(OWNER, ADDRESS));
    let report = file.replayed();
    assert_eq!((report.frames, report.unknown_blocks, report.claims.len()), (1, 1, 1));
}

#[test]
fn interfaces_that_are_not_ethernet_are_named_and_the_others_judged() {
    let mut file = Section::new(false);
    file.interface(0, &[]);
    file.interface(1, &[]);
    file.interface(999, b"\x02\x00\x03\x00odd\x00\x00\x00\x00\x00");
    for second in 0..3 {
        file.whole(0, second, &[2, 0, 0, 0, 0x45]);
    }
    file.whole(1, 0, &announce(OWNER, ADDRESS));
    file.whole(1, 1, &announce(THIEF, ADDRESS));
    let report = file.replayed();
    assert_eq!((report.frames, told(&report).len()), (2, 1));
    let other = |interface: &str, link: &str, frames| NotEthernet {
        interface: interface.to_owned(),
        link: link.to_owned(),
        frames,
    };
    assert_eq!(report.others, [other("0", "NULL", 3), other("odd", "link type 999", 0)]);
}

/// Whether the one frame of a file is seen, and whether it was captured whole.
fn seen(file: &[u8]) -> (u64, u64, u64) {
    let report = replayed(file, &Settings::default()).unwrap();
    let malformed = report.counters.malformed.iter().sum();
    (u64::try_from(report.claims.len()).unwrap(), report.cut, malformed)
}

#[test]
fn a_checksum_at_the_end_is_none_of_the_frame() {
    let frame = announce(OWNER, ADDRESS);
    let with_fcs = [&frame[..], &[0xfc; 4]].concat();
    // pcap: two units of two octets, and the bit that says so.
    let mut file = file(Format::Micro, &[(0, 0, with_fcs.clone())]);
    file[20..24].copy_from_slice(&(2 << 28 | 0x0400_0000 | 1_u32).to_le_bytes());
    assert_eq!(seen(&file), (1, 0, 0));
    // Without the bit the length says nothing.
    file[23] = 0x20;
    assert_eq!(seen(&file), (1, 0, 0));
    // pcapng: of the interface, in octets or in bits; of the packet.
    let len = u32::try_from(with_fcs.len()).unwrap();
    let flags = [&[2, 0, 4, 0][..], &(4_u32 << 5).to_le_bytes(), &[0; 4]].concat();
    for (fcslen, flags) in [(4, &[][..]), (32, &[]), (0, &flags)] {
        let mut file = Section::new(false);
        file.interface(1, &[13, 0, 1, 0, fcslen, 0, 0, 0, 0, 0, 0, 0]);
        file.packet(0, 0, &with_fcs, len, flags);
        assert_eq!(seen(&file.file), (1, 0, 0), "{fcslen}");
        // All but the checksum was kept; then less than the frame.
        let mut file = Section::new(false);
        file.interface(1, &[13, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        file.packet(0, 0, &frame, len, &[]);
        assert_eq!(seen(&file.file), (1, 0, 0));
        let mut file = Section::new(false);
        file.interface(1, &[13, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        file.packet(0, 0, &with_fcs[..30], len, &[]);
        assert_eq!(seen(&file.file), (0, 1, 1));
    }
}
