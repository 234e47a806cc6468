//! Frames and states by chance, from few enough values that they often meet.

use std::net::{Ipv4Addr, Ipv6Addr};

use guard_ebpf::{
    abi::{
        AddressKey, CLOSED_BOUND, CLOSED_IPV4, CLOSED_IPV6, CLOSED_OTHERS, EXCEPT_OWNED,
        EXCEPT_PROXY, EXCEPT_UNOWNED, EXCEPT_VIRTUAL, FIRST_COME, GOVERNED, Live, MAC_BEYOND,
        MAC_BOUND, MODE_ENFORCE, MODE_OBSERVE, MODE_OF_BRIDGE, MacHolder, MacKey, Mode, OFF_LINK,
        ON_LINK, OPEN_ROUTER, OWNED_GATEWAY, OWNED_HOST, OWNED_LEASED, OWNED_MAC, OWNED_PORT,
        Owned, PORT_ACCESS, PORT_FILTERS_VLANS, PORT_UPLINK, PORT_VLANS_8021AD, Policy, Port,
        PortMac, PortState, Prefix, STATION_BOUND, STATION_EXCEPTED, STRENGTH_ASSERT, STRENGTH_USE,
    },
    address::Segment,
    model::Model,
};

use super::{BRIDGE, ELSEWHERE, HERE};

/// A stamp that is not due for an hour.
pub(crate) const FRESH_NS: u64 = u64::MAX / 2;

/// Chance that can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Chance(fastrand::Rng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// Once in `often`.
    pub(crate) fn once_in(&mut self, often: usize) -> bool {
        self.below(often) == 0
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn byte(&mut self) -> u8 {
        self.0.u8(..)
    }
}

/// Broadcast, a station's, and groups of bridges.
const DESTINATIONS: [[u8; 6]; 6] = [
    [0xff; 6],
    [0xff; 6],
    [0xff; 6],
    [2, 0, 0, 0, 0, 12],
    [1, 0x80, 0xc2, 0, 0, 0x0e],
    [1, 0, 0x0c, 0xcc, 0xcc, 0xcd],
];

const MACS: [[u8; 6]; 8] = [
    [2, 0, 0, 0, 0, 10],
    [2, 0, 0, 0, 0, 10],
    [2, 0, 0, 0, 0, 11],
    [2, 0, 0, 0, 0, 12],
    [2, 0, 0, 0, 0, 1],
    [0, 0, 0x5e, 0, 1, 7],
    [0x33, 0x33, 0, 0, 0, 1],
    [0; 6],
];

fn v4(chance: &mut Chance) -> Ipv4Addr {
    let often = Ipv4Addr::new(10, 8, 64, 1 + u8::try_from(chance.below(4)).unwrap());
    let seldom =
        chance.of(&[[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [169, 254, 1, 1], [192, 0, 2, 1]]);
    if chance.once_in(4) { seldom.into() } else { often }
}

fn v6(chance: &mut Chance) -> Ipv6Addr {
    let last = u16::try_from(1 + chance.below(4)).unwrap();
    let often = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
    let seldom =
        chance.of(&["::", "::1", "ff02::1", "::ffff:10.8.64.2", "2001:db8:1::1", "fe80::1"]);
    match chance.below(6) {
        0 => seldom.parse().unwrap(),
        1 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last),
        _ => often,
    }
}

/// A frame that is well formed.
pub(crate) fn valid(chance: &mut Chance) -> Vec<u8> {
    let source = chance.of(&MACS);
    let mut bytes = chance.of(&DESTINATIONS).to_vec();
    bytes.extend(source);
    if chance.once_in(4) {
        for _ in 0..=chance.below(3) {
            bytes.extend(chance.of(&[0x8100_u16, 0x88a8]).to_be_bytes());
            bytes.extend(chance.of(&[0_u16, 0xe000, 5, 0x2005, 3, 9]).to_be_bytes());
        }
    }
    match chance.below(9) {
        0..=2 => {
            bytes.extend([8, 6]);
            arp(chance, source, &mut bytes);
        }
        3 | 4 => {
            bytes.extend([8, 0]);
            ipv4(chance, &mut bytes);
        }
        5..=7 => {
            bytes.extend([0x86, 0xdd]);
            ipv6(chance, source, &mut bytes);
        }
        _ => {
            bytes.extend(chance.of(&[0x8035_u16, 0x88cc, 0x0026]).to_be_bytes());
            bytes.extend(
                chance.of(&[[0xaa, 0xaa, 3, 0, 0, 0, 8, 6], [0x42, 0x42, 3, 0, 0, 0, 0, 0]]),
            );
        }
    }
    let pad = chance.below(24);
    bytes.resize(bytes.len() + pad, 0);
    bytes
}

fn arp(chance: &mut Chance, source: [u8; 6], bytes: &mut Vec<u8>) {
    bytes.extend([0, chance.of(&[1, 1, 6]), 8, 0, 6, 4, 0, chance.of(&[1, 2])]);
    let other = chance.of(&MACS);
    bytes.extend(if chance.once_in(4) { other } else { source });
    bytes.extend(v4(chance).octets());
    bytes.extend([0; 6]);
    bytes.extend(v4(chance).octets());
}

fn ipv4(chance: &mut Chance, bytes: &mut Vec<u8>) {
    let words = chance.of(&[5_u8, 5, 5, 6, 15]);
    let options = usize::from(words - 5) * 4;
    let data = if chance.once_in(4) { dhcp(chance) } else { Vec::new() };
    bytes.extend([0x40 | words, 0]);
    bytes.extend(u16::try_from(28 + options + data.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, chance.of(&[0, 0, 0, 1])]);
    let protocol = if data.is_empty() { chance.of(&[17, 2, 1]) } else { 17 };
    bytes.extend([chance.of(&[64, 64, 64, 0]), protocol, 0, 0]);
    let source = v4(chance);
    let nobody = !data.is_empty() && !chance.once_in(4);
    bytes.extend(if nobody { Ipv4Addr::UNSPECIFIED } else { source }.octets());
    bytes.extend(v4(chance).octets());
    // No-operation options (RFC 791 §3.1).
    bytes.resize(bytes.len() + options, 1);
    let queries = [[0, 68, 0, 67], [1, 1, 1, 1], [0x11, 0x64, 0, 0], [0x30, 0, 0, 0]];
    let ports = chance.of(&queries[..if protocol == 2 { 4 } else { 2 }]);
    let server = chance.once_in(8);
    let client = if server { [0, 67, 0, 68] } else { [0, 68, 0, 67] };
    bytes.extend(if data.is_empty() && !server { ports } else { client });
    bytes.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
}

/// A message of a DHCP client.
fn dhcp(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[0] = chance.of(&[1, 1, 1, 2]);
    bytes.extend(chance.of(&[[99, 130, 83, 99], [99, 130, 83, 99], [0; 4]]));
    for _ in 0..chance.of(&[1, 2, 3, 17]) {
        match chance.below(4) {
            0 => bytes.extend([53, 1, chance.of(&[4, 4, 3])]),
            1 => {
                bytes.extend([50, 4]);
                bytes.extend(v4(chance).octets());
            }
            2 => bytes.push(0),
            _ => bytes.extend([chance.of(&[12, 61, 53, 50]), 2, 0, 0]),
        }
    }
    bytes.push(255);
    bytes
}

fn ipv6(chance: &mut Chance, source: [u8; 6], bytes: &mut Vec<u8>) {
    let (from, target) = (v6(chance), v6(chance));
    let nd = !chance.once_in(3);
    let dhcp = chance.of(&[[0; 8], [2, 35, 2, 34, 0, 8, 0, 0]]);
    let payload = if nd { message(chance, source, from, target) } else { dhcp.to_vec() };
    let upper = if nd { 58 } else { 17 };
    let mut chain: Vec<u8> = Vec::new();
    if chance.once_in(4) {
        for _ in 0..chance.below(11) {
            let next = chance.of(&[60, 60, 43, 44, 51]);
            // Twice the same is no packet that others read.
            if !chain.contains(&next) || next == 60 {
                chain.push(next);
            }
        }
    }
    chain.push(upper);
    let mut headers = Vec::new();
    for pair in chain.windows(2) {
        let units = if pair[0] == 51 { 2 } else { 0 };
        let later = chance.of(&[0, 0, 8]);
        let fragment = if pair[0] == 44 { later } else { 0 };
        headers.extend([pair[1], units, 0, fragment, 0, 0, 0, 0]);
        if pair[0] == 51 {
            headers.extend([0; 8]);
        }
    }
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend(u16::try_from(headers.len() + payload.len()).unwrap().to_be_bytes());
    bytes.extend([chain[0], if nd { 255 } else { 64 }]);
    bytes.extend(from.octets());
    let group = {
        let [.., a, b, c] = target.octets();
        [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]
    };
    let other = v6(chance).octets();
    bytes.extend(if chance.once_in(3) { other } else { group });
    bytes.extend(headers);
    bytes.extend(payload);
}

fn message(chance: &mut Chance, source: [u8; 6], from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let kind = chance.of(&[133, 134, 135, 135, 136, 136, 136, 137, 128, 130, 143, 151]);
    let flags = chance.of(&[0x20, 0, 0xa0, 0x60]);
    let mut bytes = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    if matches!(kind, 135..=137) {
        bytes.extend(if chance.once_in(2) { from } else { target }.octets());
    }
    match kind {
        134 => bytes.extend([0; 8]),
        137 => bytes.extend(v6(chance).octets()),
        _ => {}
    }
    if (133..=137).contains(&kind) {
        for _ in 0..chance.of(&[0, 1, 1, 2, 3, 8, 9]) {
            bytes.extend([chance.of(&[1, 2, 2, 14]), 1]);
            let other = chance.of(&MACS);
            bytes.extend(if chance.once_in(3) { other } else { source });
        }
    }
    bytes
}

/// A frame that may be anything, and that a test run takes: it refuses what is shorter than an
/// Ethernet header, or than the IP header that the type names.
pub(crate) fn any(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = if chance.once_in(8) {
        let len = 14 + chance.below(100);
        let mut bytes: Vec<u8> = (0..len).map(|_| chance.byte()).collect();
        let types = [0x0806, 0x0800, 0x86dd, 0x8100];
        bytes[12..14].copy_from_slice(&chance.of::<u16>(&types).to_be_bytes());
        bytes
    } else {
        valid(chance)
    };
    if chance.once_in(3) {
        for _ in 0..=chance.below(3) {
            let at = chance.below(bytes.len());
            bytes[at] = match chance.below(3) {
                0 => chance.byte(),
                1 => bytes[at] ^ (1 << chance.below(8)),
                _ => bytes[at].wrapping_add(1),
            };
        }
    }
    if chance.once_in(8) {
        bytes.truncate(14 + chance.below(bytes.len()));
    }
    let least = match bytes[12..14] {
        [8, 0] => 34,
        [0x86, 0xdd] => 54,
        _ => 14,
    };
    bytes.resize(bytes.len().max(least), 0);
    bytes
}

/// Of a bridge that filters a provider's VLANs.
const FILTERS_8021AD: u8 = PORT_FILTERS_VLANS | PORT_VLANS_8021AD;

/// A port by chance.
pub(crate) fn port(chance: &mut Chance) -> Port {
    Port {
        ifindex: HERE,
        bridge: BRIDGE,
        bridge_slot: 0,
        port_slot: 0,
        pvid: chance.of(&[0, 0, 5]),
        kind: chance.of(&[PORT_ACCESS, PORT_ACCESS, PORT_UPLINK]),
        flags: u8::try_from(chance.below(16)).unwrap()
            | chance.of(&[0, 0, 0, 0, 0, 0, PORT_FILTERS_VLANS, FILTERS_8021AD]),
        bridge_mac: chance.of(&[[0; 6], [2, 0, 0, 0, 0, 1]]),
        homes: chance.of(&[0, 0, 1, 2]),
        quota_addresses: chance.of(&[0, 2, 16]),
        quota_frames: chance.of(&[0, 5, 50]),
        allow: chance.of(&[0, 1]),
        quota_events: chance.of(&[0, 8, 64]),
        quota_macs: chance.of(&[0, 4, 64]),
        native: chance.of(&[0, 5]),
        reserved: [0; 2],
    }
}

/// What enforcement does there, by chance.
fn policy(chance: &mut Chance) -> (Policy, Mode) {
    let bits = |chance: &mut Chance| u32::from_ne_bytes([0; 4].map(|_: u8| chance.byte()));
    let some = bits(chance);
    let policy = Policy {
        ifindex: HERE,
        drops: chance.of(&[u32::MAX, u32::MAX, some, 0]),
        mode: chance.of(&[MODE_OF_BRIDGE, MODE_OF_BRIDGE, MODE_OBSERVE, MODE_ENFORCE]),
        closed: chance.of(&[
            0,
            0,
            CLOSED_IPV4,
            CLOSED_IPV6,
            CLOSED_BOUND,
            CLOSED_OTHERS,
            OPEN_ROUTER,
        ]),
        macs: chance.of(&[0, 0, 1, 8]),
        until_ns: chance.of(&[0, 0, 1, u64::MAX]),
        ..Policy::default()
    };
    let some = bits(chance);
    (policy, Mode { enforce: chance.of(&[0, 1]), braked: chance.of(&[0, 0, some]) })
}

/// What is known before, by chance.
pub(crate) fn state(chance: &mut Chance, model: &mut Model) {
    for (vlan, inner_vlan) in [(0, 0), (5, 0), (5, 3)] {
        let segment = Segment { bridge: BRIDGE, vlan, inner_vlan };
        let key = |ip| AddressKey { inner_vlan, ..AddressKey::new(BRIDGE, vlan, ip) };
        for (prefix, len) in
            [(Ipv4Addr::new(10, 8, 64, 0).into(), 24), ("2001:db8::".parse().unwrap(), 64)]
        {
            let governed = chance.of(&[GOVERNED, GOVERNED, FIRST_COME, 0]);
            let of = |on_link: u32| Prefix {
                on_link,
                governed: if on_link == ON_LINK { governed } else { 0 },
                ..Prefix::default()
            };
            let (family, all) = key(prefix).family();
            if !chance.once_in(4) {
                model.add_prefix(key(prefix), key(prefix).prefix_len(len), of(ON_LINK));
                model.add_prefix(family, all, of(OFF_LINK));
            } else if chance.once_in(2) {
                model.add_prefix(family, all, of(0));
            }
        }
        for _ in 0..4 {
            let ip = if chance.once_in(2) { v4(chance).into() } else { v6(chance).into() };
            model.owned.insert(key(ip), owned(chance));
            let ip = if chance.once_in(2) { v4(chance).into() } else { v6(chance).into() };
            let seen_ns = chance.of(&[0, 1, FRESH_NS]);
            let live = Live {
                first_ns: 1,
                seen_ns,
                ifindex: chance.of(&[HERE, HERE, ELSEWHERE]),
                mac: chance.of(&MACS),
                strength: chance.of(&[STRENGTH_USE, STRENGTH_ASSERT]),
                reserved: 0,
                passed: chance.of(&[0, model.changes, model.changes]),
            };
            model.live.insert(key(ip), live);
            let ip = if chance.once_in(2) { v4(chance).into() } else { v6(chance).into() };
            let rule = Prefix {
                on_link: chance.of(&[0, ON_LINK, OFF_LINK]),
                allow: chance.of(&[0, 1, 2]),
                allow_virtual: chance.of(&[0, 1]),
                declared: chance.of(&[0, 0, 1]),
                over_owners: chance.of(&[0, 1, 3]),
                governed: chance.of(&[0, GOVERNED, FIRST_COME]),
            };
            model.add_prefix(key(ip), AddressKey::FULL_LEN, rule);
        }
        for mac in MACS {
            if chance.once_in(4) {
                let flags = chance.of(&[0, 0, MAC_BOUND, MAC_BEYOND]);
                let holder = MacHolder { ifindex: chance.of(&[HERE, ELSEWHERE]), flags };
                model.macs.insert(MacKey::new(segment.bridge, segment.vlan, mac), holder);
            }
        }
    }
    for mac in MACS {
        if chance.once_in(3) {
            let station = chance.of(&[PortMac::new(HERE, mac), PortMac::vendor(HERE, mac)]);
            model.bound_macs.insert(station, chance.of(&[STATION_BOUND, STATION_EXCEPTED]));
        }
    }
    if chance.once_in(3) {
        let ip = if chance.once_in(2) { v4(chance).into() } else { v6(chance).into() };
        let key = AddressKey::new(chance.of(&[BRIDGE, HERE]), 0, ip);
        let bits = chance.of(&[EXCEPT_UNOWNED, EXCEPT_OWNED, EXCEPT_VIRTUAL, EXCEPT_PROXY]);
        let len = AddressKey::FULL_LEN - chance.of(&[0, 0, 8]);
        model.except(HERE, &key, len, bits);
    }
    model.vlans.insert(HERE, [0, 5].into_iter().filter(|_| !chance.once_in(3)).collect());
    (model.policy, model.mode) = policy(chance);
    let (addresses, admitted_macs) = (chance.of(&[0, 1, 16]), chance.of(&[0, 0, 4, 64]));
    model.state = PortState { addresses, admitted_macs, ..PortState::default() };
}

/// An owner by chance.
pub(crate) fn owned(chance: &mut Chance) -> Owned {
    let bits = [OWNED_MAC | OWNED_PORT, OWNED_MAC | OWNED_PORT, OWNED_MAC, OWNED_PORT, 0];
    Owned {
        generation: 1,
        seen_ns: chance.of(&[0, 1, FRESH_NS, FRESH_NS]),
        ifindex: chance.of(&[HERE, HERE, ELSEWHERE]),
        mac: chance.of(&MACS),
        flags: OWNED_LEASED | chance.of(&bits) | chance.of(&[0, 0, 0, OWNED_GATEWAY, OWNED_HOST]),
        homes: chance.of(&[0, 0, 0, 1, 3]),
    }
}
