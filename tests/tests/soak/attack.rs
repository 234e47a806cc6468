//! Frames of an attacker who wants a victim to believe that somebody else's address is here.

use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use guard_tests::Mac;

/// Any of these.
fn one<T: Copy, const N: usize>(chance: &mut Rng, values: [T; N]) -> T {
    values[chance.usize(..N)]
}

fn stranger(chance: &mut Rng) -> Mac {
    Mac::new([0x02, 0xee, chance.u8(..), chance.u8(..), chance.u8(..), chance.u8(..)])
}

/// One that has an address: a neighbour whom the attacker knows, and the victim talks to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    pub mac: Mac,
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

/// A frame against `owner`, for `victim`.
pub(crate) fn frame(chance: &mut Rng, attacker: Mac, owner: &Station, victim: &Station) -> Vec<u8> {
    let stranger = stranger(chance);
    let source = one(chance, [attacker, attacker, attacker, owner.mac, stranger]);
    let group = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
    let mut bytes = one(chance, [victim.mac, victim.mac, Mac::BROADCAST, group]).octets().to_vec();
    bytes.extend(source.octets());
    if chance.u8(..6) == 0 {
        // Sometimes more than guard reads.
        for _ in 0..one(chance, [1, 1, 2, 2, 4, 6]) {
            // Mostly the priority only, which is no VLAN.
            bytes.extend(one(chance, [[0x81, 0x00], [0x81, 0x00], [0x88, 0xa8]]));
            bytes.extend(one(chance, [[0, 0], [0xe0, 0], [0x10, 0], [0, 5]]));
        }
    }
    let begin = bytes.len();
    match chance.usize(..10) {
        0..=3 => arp(chance, source, owner, victim, &mut bytes),
        4..=7 => discovery(chance, source, owner, victim, &mut bytes),
        8 => {
            bytes.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
            bytes.extend(owner.ipv4.octets());
            bytes.extend(victim.ipv4.octets());
            bytes.extend([0, 9, 0, 9, 0, 8, 0, 0]);
        }
        _ => bytes.extend([0x88, 0xb5, 0, 0]),
    }
    if chance.u8(..5) == 0 {
        let at = begin + chance.usize(..bytes.len() - begin);
        bytes[at] = chance.u8(..);
    }
    if chance.u8(..4) == 0 {
        bytes.resize(bytes.len() + chance.usize(..20), 0);
    }
    bytes
}

fn arp(chance: &mut Rng, source: Mac, owner: &Station, victim: &Station, bytes: &mut Vec<u8>) {
    bytes.extend([8, 6, 0, one(chance, [1, 1, 1, 6]), 8, 0, 6, 4, 0, one(chance, [1, 2])]);
    let (stranger, other) = (stranger(chance), chance.u8(..));
    let cluster = Mac::new([0x03, 0xbf, 0, 0, 0, other]);
    let sender = one(chance, [source, source, source, stranger, cluster, Mac::BROADCAST]);
    bytes.extend(sender.octets());
    let nobody = Ipv4Addr::UNSPECIFIED;
    bytes.extend(one(chance, [owner.ipv4, owner.ipv4, owner.ipv4, owner.ipv4, nobody]).octets());
    bytes.extend(one(chance, [victim.mac, Mac::ZERO, Mac::BROADCAST]).octets());
    bytes.extend(one(chance, [victim.ipv4, victim.ipv4, owner.ipv4]).octets());
}

fn discovery(
    chance: &mut Rng,
    source: Mac,
    owner: &Station,
    victim: &Station,
    bytes: &mut Vec<u8>,
) {
    let kind = one(chance, [133_u8, 135, 135, 136, 136, 136, 136, 137]);
    let flags = one(chance, [0x20, 0x20, 0x60, 0xa0, 0]);
    let mut message = vec![kind, 0, 0, 0, if kind == 136 { flags } else { 0 }, 0, 0, 0];
    match kind {
        135 => message.extend(victim.ipv6.octets()),
        136 => message.extend(owner.ipv6.octets()),
        137 => {
            message.extend(owner.ipv6.octets());
            message.extend(one(chance, [owner.ipv6, victim.ipv6]).octets());
        }
        _ => {}
    }
    // Sometimes more options than guard reads, of lengths that others have or nobody.
    let odd = chance.u8(..3) == 0;
    let options = if odd { one(chance, [1, 2, 2, 3, 9, 12]) } else { one(chance, [0, 1, 1, 1, 2]) };
    for _ in 0..options {
        let by_kind = if kind < 136 { 1 } else { 2 };
        let units = if odd { one(chance, [1, 1, 1, 2, 3, 0]) } else { 1 };
        message.extend([one(chance, [by_kind, by_kind, by_kind, 14, 1, 2]), units]);
        let stranger = stranger(chance);
        message.extend(one(chance, [source, source, stranger, owner.mac]).octets());
        message.resize(message.len() + 8 * usize::from(units.saturating_sub(1)), 0);
    }
    // Another one each time: an incident is about an address, and takes in whoever claims it.
    let own = (0xfe80_u128 << 112 | u128::from(chance.u64(..))).into();
    let from = one(chance, [owner.ipv6, owner.ipv6, own]);
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to = one(chance, [victim.ipv6, victim.ipv6, victim.ipv6, all]);
    let sum = checksum(from, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    // Extension headers that Linux reads over, sometimes more than guard does.
    const NEXT: [u8; 6] =
        [DESTINATION, DESTINATION, DESTINATION, DESTINATION, DESTINATION, FRAGMENT];
    let count = if chance.u8(..4) == 0 { one(chance, [1, 1, 2, 3, 8, 9, 10]) } else { 0 };
    let mut kinds: Vec<u8> = (0..count).map(|_| one(chance, NEXT)).collect();
    if let Some(first) = kinds.first_mut() {
        *first = one(chance, [*first, *first, HOP_BY_HOP]);
    }
    kinds.push(ICMP);
    let headers: Vec<u8> = kinds
        .windows(2)
        .flat_map(|pair| {
            if pair[0] == FRAGMENT {
                [pair[1], 0, 0, 0, 0, 0, 0, 1]
            } else {
                [pair[1], 0, 1, 4, 0, 0, 0, 0]
            }
        })
        .collect();
    bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    let len = u16::try_from(headers.len() + message.len()).expect("below a thousand");
    // Sometimes it lies.
    let len = if odd { one(chance, [len, len, len, len, len + 8, len - 4, 0]) } else { len };
    bytes.extend(len.to_be_bytes());
    bytes.extend([kinds[0], 255]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(headers);
    bytes.extend(message);
}

/// What an IPv6 header says comes next (RFC 8200 §4).
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const ICMP: u8 = 58;
const DESTINATION: u8 = 60;

/// Of `ICMPv6`, over its pseudo-header too (RFC 4443 §2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let words = [&from.octets(), &to.octets(), message].concat();
    let mut sum = words
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum::<u32>();
    sum += u32::try_from(message.len()).expect("below a thousand") + u32::from(ICMP);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).expect("16 bits")
}
