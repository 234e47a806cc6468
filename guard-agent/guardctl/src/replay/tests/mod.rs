mod config;
mod formats;
mod segments;

use std::{fs, net::Ipv4Addr};

use proptest::prelude::*;

use super::*;

const OWNER: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const THIEF: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);

/// A frame on an interface, so many seconds into the capture.
type Sent = (u64, u32, Vec<u8>);

/// An announcement (claims.md A06).
fn announce(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &address.octets(), &[0; 6], &address.octets()];
    [&[0xff; 6][..], &mac, &[8, 6], &arp.concat()].concat()
}

/// A packet from an address (claims.md D01).
fn packet(mac: [u8; 6], source: Ipv4Addr) -> Vec<u8> {
    let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    let to = Ipv4Addr::new(10, 8, 64, 99).octets();
    [&ROUTER[..], &mac, &[8, 0], &header, &source.octets(), &to].concat()
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Micro,
    Nano,
    MicroBig,
    Next,
}

/// The file, its frames at seconds from 2023-11-14T22:13:20Z on.
fn file(format: Format, sent: &[Sent]) -> Vec<u8> {
    let word = |value: u32| match format {
        Format::MicroBig => value.to_be_bytes(),
        _ => value.to_le_bytes(),
    };
    let mut file: Vec<u8> = match format {
        Format::Next => {
            let mut blocks = block(0x0a0d_0d0a, &[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]);
            for name in [*b"v-a\0", *b"v-b\0"] {
                // Ethernet; if_name, three letters; the end of the options.
                let name = u32::from_le_bytes(name);
                blocks.extend(block(1, &[1, 262_144, 2 | 3 << 16, name, 0]));
            }
            blocks
        }
        _ => {
            let magic = if let Format::Nano = format { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
            let versions = if let Format::MicroBig = format { 2 << 16 | 4 } else { 2 | 4 << 16 };
            [magic, versions, 0, 0, 262_144, 1].iter().flat_map(|value| word(*value)).collect()
        }
    };
    for (second, interface, bytes) in sent {
        let (second, len) = (1_700_000_000 + second, u32::try_from(bytes.len()).unwrap());
        if let Format::Next = format {
            let micros = second * 1_000_000;
            let halves =
                [micros >> 32, micros & 0xffff_ffff].map(|half| u32::try_from(half).unwrap());
            let mut padded = bytes.clone();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            let words = padded.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            let head = [*interface, halves[0], halves[1], len, len];
            file.extend(block(6, &head.into_iter().chain(words).collect::<Vec<_>>()));
        } else {
            let head = [u32::try_from(second).unwrap(), 500, len, len];
            file.extend(head.iter().flat_map(|value| word(*value)));
            file.extend(bytes);
        }
    }
    file
}

fn block(kind: u32, body: &[u32]) -> Vec<u8> {
    let len = u32::try_from(12 + body.len() * 4).unwrap();
    let words = [kind, len].into_iter().chain(body.iter().copied()).chain([len]);
    words.flat_map(u32::to_le_bytes).collect()
}

fn replayed(file: &[u8], settings: &Settings) -> Result<Report, CaptureError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capture");
    fs::write(&path, file).unwrap();
    replay(&path, settings)
}

fn report(format: Format, sent: &[Sent], settings: &Settings) -> Report {
    replayed(&file(format, sent), settings).unwrap()
}

fn ingress() -> Settings {
    Settings { ingress: true, ..Settings::default() }
}

/// Kind, address and the claimants, as `role mac interface frames`.
fn told(report: &Report) -> Vec<(String, String, Vec<String>)> {
    let one = |Disputed { conflict, .. }: &Disputed| {
        let claimants = conflict.claimants.iter().map(|claimant| {
            let proto::Claimant { mac, interface, frames, .. } = claimant;
            format!("{} {mac} {interface} {frames}", claimant.role().as_str_name())
        });
        let kind = conflict.kind().as_str_name().to_owned();
        (kind, conflict.address.clone(), claimants.collect())
    };
    report.conflicts.iter().map(one).collect()
}

#[test]
fn a_duplicate_is_found_in_every_format() {
    let mut sent = vec![(0, 0, announce(OWNER, ADDRESS)), (1, 0, announce(THIEF, ADDRESS))];
    sent.extend([(2, 0, packet(OWNER, ADDRESS)), (2, 0, packet(THIEF, ADDRESS))]);
    for format in [Format::Micro, Format::Nano, Format::MicroBig, Format::Next] {
        let settings = Settings { port: "v-a".to_owned(), ..Settings::default() };
        let report = report(format, &sent, &settings);
        assert_eq!((report.frames, report.cut, &report.damage), (4, 0, &None), "{format:?}");
        let owner = "ROLE_CLAIMANT 02:00:00:00:00:0a v-a 0".to_owned();
        let thief = "ROLE_CLAIMANT 02:00:00:00:00:0b v-a 2".to_owned();
        let duplicate = "CONFLICT_KIND_DUPLICATE".to_owned();
        assert_eq!(told(&report), [(duplicate, ADDRESS.to_string(), vec![owner, thief])]);
        let claims: Vec<_> =
            report.claims.iter().map(|claim| (claim.mac.0, claim.asserted)).collect();
        assert_eq!(claims, [(OWNER, true), (THIEF, true)]);
        let (first, last) = (report.claims[1].first_seen, report.claims[1].last_seen);
        assert_eq!((first.as_second(), last.as_second()), (1_700_000_001, 1_700_000_002));
    }
}

#[test]
fn what_one_host_does_is_no_conflict() {
    let quiet: &[&[Sent]] = &[
        &[(0, 0, announce(OWNER, ADDRESS)), (1, 0, packet(OWNER, ADDRESS))],
        // claims.md A34: the first is silent for longer than it counts as live.
        &[(0, 0, announce(OWNER, ADDRESS)), (301, 0, announce(THIEF, ADDRESS))],
        // Seen on both ends of a wire.
        &[(0, 0, announce(OWNER, ADDRESS)), (0, 1, announce(OWNER, ADDRESS))],
    ];
    for sent in quiet {
        let report = report(Format::Next, sent, &Settings::default());
        assert!(report.conflicts.is_empty(), "{:?}", told(&report));
    }
    // claims.md A33.
    let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 0, announce(THIEF, ADDRESS))];
    let report = report(Format::Next, &sent, &ingress());
    assert!(report.conflicts.is_empty(), "{:?}", told(&report));
    assert_eq!(report.claims.len(), 2);
}

#[test]
fn ports_of_one_sandbox_each_tell_a_clone_and_a_duplicate() {
    let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 1, announce(OWNER, ADDRESS))];
    let clone = report(Format::Next, &sent, &ingress());
    assert_eq!(told(&clone)[0].0, "CONFLICT_KIND_CLONE");
    let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 1, announce(THIEF, ADDRESS))];
    let duplicate = report(Format::Next, &sent, &ingress());
    let (kind, _, claimants) = &told(&duplicate)[0];
    assert_eq!(kind, "CONFLICT_KIND_DUPLICATE");
    assert_eq!(claimants[1], "ROLE_CLAIMANT 02:00:00:00:00:0b v-b 1");
}

#[test]
fn the_gateways_address_is_critical() {
    let sent = [(0, 0, announce(ROUTER, GATEWAY)), (1, 0, announce(THIEF, GATEWAY))];
    for mac in [None, Some(Mac(ROUTER))] {
        let gateways =
            vec![Gateway { vlan: None, address: GATEWAY.into(), mac, ports: Vec::new() }];
        let settings = Settings { gateways, ..Settings::default() };
        let report = report(Format::Micro, &sent, &settings);
        assert_eq!(told(&report).len(), 1, "{:?}", told(&report));
        assert_eq!(told(&report)[0].0, "CONFLICT_KIND_GATEWAY");
        assert_eq!(report.conflicts[0].conflict.severity(), proto::Severity::Critical);
    }
}

#[test]
fn what_a_router_forwards_is_nobodys_claim() {
    let far = Ipv4Addr::new(192, 0, 2, 7);
    let sent = [(0, 0, announce(ROUTER, GATEWAY)), (1, 0, packet(ROUTER, far))];
    let report = report(Format::Micro, &sent, &Settings::default());
    let addresses: Vec<_> = report.claims.iter().map(|claim| claim.address).collect();
    assert_eq!(addresses, [IpAddr::from(GATEWAY)]);
    let prefixes = vec![OnLink { vlan: None, net: "192.0.2.0/24".parse().unwrap() }];
    let given = Settings { prefixes, ..Settings::default() };
    let report = self::report(Format::Micro, &sent, &given);
    let addresses: Vec<_> = report.claims.iter().map(|claim| claim.address).collect();
    // Who says where an address is has it, wherever it lies (claims.md A14).
    assert_eq!(addresses, [GATEWAY, far].map(IpAddr::from));
}

#[test]
fn what_two_have_beside_the_prefixes_hurts_nobody() {
    let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 0, announce(THIEF, ADDRESS))];
    for (prefix, severity) in [
        ("10.8.64.0/24", proto::Severity::Warning),
        ("192.0.2.0/24", proto::Severity::Info),
        ("2001:db8::/64", proto::Severity::Warning),
    ] {
        let prefixes = vec![OnLink { vlan: None, net: prefix.parse().unwrap() }];
        let given = Settings { prefixes, ..Settings::default() };
        let report = report(Format::Micro, &sent, &given);
        assert_eq!(report.conflicts[0].conflict.severity(), severity, "{prefix}");
    }
}

#[test]
fn a_conflict_ends_and_another_begins() {
    let sent: Vec<_> = [0, 1, 400, 401]
        .iter()
        .map(|at| (*at, 0, announce(if at % 2 == 0 { OWNER } else { THIEF }, ADDRESS)))
        .collect();
    let report = report(Format::Micro, &sent, &Settings::default());
    let open: Vec<_> = report.conflicts.iter().map(|one| one.conflict.open).collect();
    assert_eq!(open, [false, true], "{:?}", told(&report));
}

#[test]
fn a_file_that_is_cut_anywhere_tells_what_is_before_the_cut() {
    let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 0, announce(THIEF, ADDRESS))];
    for format in [Format::Micro, Format::Next] {
        let whole = file(format, &sent);
        let mut frames = 0;
        for len in 0..whole.len() {
            match replayed(&whole[..len], &Settings::default()) {
                Ok(report) => {
                    assert!(report.frames >= frames && report.frames < 2, "{format:?} {len}");
                    frames = report.frames;
                }
                Err(error) => assert!(matches!(error, CaptureError::NotACapture(_)), "{error}"),
            }
        }
        assert_eq!(frames, 1);
        let damaged = replayed(&whole[..whole.len() - 1], &Settings::default()).unwrap();
        let damage = damaged.damage.unwrap();
        assert!(damage.ends_with("it ends in the middle of a block, after 1 packets"), "{damage}");
        assert_eq!(damaged.claims.len(), 1);
    }
}

#[test]
fn what_is_not_ethernet_is_refused() {
    let mut cooked = file(Format::Micro, &[]);
    cooked[20] = 113;
    let error = replayed(&cooked, &Settings::default()).unwrap_err().to_string();
    assert!(error.contains("as LINUX_SLL, not as Ethernet"), "{error}");
    assert!(error.contains("tcpdump -i NAME"), "{error}");
    let error = replayed(b"no capture at all, and long enough to be one", &Settings::default());
    assert!(matches!(error, Err(CaptureError::NotACapture(_))));
    let missing = replay(Path::new("/nonexistent/capture"), &Settings::default());
    assert!(matches!(missing, Err(CaptureError::Io { .. })));
}

proptest! {
    /// Whatever bytes a file has, reading it ends, and in no panic.
    #[test]
    fn any_file_is_read_to_some_end(
        format in prop_oneof![Just(Format::Micro), Just(Format::MicroBig), Just(Format::Next)],
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let sent = [(0, 0, announce(OWNER, ADDRESS)), (1, 1, announce(THIEF, ADDRESS))];
        let mut bytes = file(format, &sent);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        let _ = replayed(&bytes, &ingress());
    }
}
