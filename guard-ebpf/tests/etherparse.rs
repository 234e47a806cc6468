//! Well-formed frames read by another's parser: it comes to the same sources, targets and VLANs.

#[cfg(test)]
#[expect(dead_code, reason = "this runner needs the frames alone")]
mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use guard_ebpf::{
    abi::{
        PORT_FILTERS_VLANS, PORT_VLANS_8021AD, Port, STRENGTH_ASSERT, STRENGTH_TENTATIVE,
        STRENGTH_USE,
    },
    claim::Meaning,
    frame::parse,
};

use self::common::generate::{Chance, port, valid};

/// Numbers of headers behind which etherparse goes on only in the usual order.
#[cfg(test)]
const EXTENSIONS: [u8; 4] = [43, 44, 51, 60];
/// The types of neighbour discovery.
#[cfg(test)]
const ND: std::ops::RangeInclusive<u8> = 133..=137;

/// What etherparse makes of a frame.
#[cfg(test)]
#[derive(Debug, PartialEq)]
struct Seen {
    vlans: (u16, u16),
    address: IpAddr,
    strength: u8,
    mac: [u8; 6],
}

/// None where no claim is made, or where the frame goes beyond what etherparse reads.
#[cfg(test)]
fn by_etherparse(frame: &[u8], port: &Port) -> Option<Seen> {
    let packet = LaxSlicedPacket::from_ethernet(frame).unwrap();
    let source: [u8; 6] = frame[6..12].try_into().unwrap();
    let ids: Vec<u16> = packet.vlan_ids().iter().map(|id| id.value()).collect();
    let filters = port.flags & PORT_FILTERS_VLANS != 0;
    let its: [u8; 2] = if port.flags & PORT_VLANS_8021AD == 0 { [0x81, 0] } else { [0x88, 0xa8] };
    // What a bridge that filters takes out, and puts the frame into.
    let (own, ids) = match &ids[..] {
        [own, within @ ..] if filters && frame[12..14] == its => (*own, within),
        within => (0, within),
    };
    let within = ids.iter().copied().filter(|id| *id != 0);
    let own = match own {
        0 => port.pvid,
        own if own == port.native => 0,
        own => own,
    };
    let tags: Vec<u16> = filters.then_some(own).into_iter().chain(within).collect();
    let vlans = match tags[..] {
        [] => (port.pvid, 0),
        [outer] => (outer, 0),
        [outer, inner] => (outer, inner),
        _ => return None,
    };
    if source[0] & 1 != 0 || source == [0; 6] {
        return None;
    }
    let (address, strength, mac) = match packet.net.as_ref()? {
        LaxNetSlice::Arp(arp) => {
            let v4 = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
            let (sender, target) = (v4(arp.sender_protocol_addr()), v4(arp.target_protocol_addr()));
            let mac = arp.sender_hw_addr().try_into().unwrap();
            match arp.operation().0 {
                1 if sender.is_unspecified() => (target.into(), STRENGTH_TENTATIVE, mac),
                _ => (IpAddr::from(sender), STRENGTH_ASSERT, mac),
            }
        }
        // claims.md L04.
        LaxNetSlice::Ipv4(ipv4)
            if ipv4.header().protocol().0 == 2
                && ipv4.header().fragments_offset().value() == 0
                && matches!(ipv4.payload().payload[0], 0x11 | 0x30) =>
        {
            return None;
        }
        LaxNetSlice::Ipv4(ipv4) => (ipv4.header().source_addr().into(), STRENGTH_USE, source),
        LaxNetSlice::Ipv6(ipv6) => {
            if EXTENSIONS.contains(&ipv6.payload().ip_number.0) {
                return None;
            }
            let from: IpAddr = ipv6.header().source_addr().into();
            match &packet.transport {
                Some(TransportSlice::Icmpv6(icmp)) if ND.contains(&icmp.type_u8()) => {
                    return None; // Below.
                }
                Some(TransportSlice::Icmpv6(icmp)) if matches!(icmp.type_u8(), 130 | 151) => {
                    return None; // claims.md L04.
                }
                _ => (from, STRENGTH_USE, source),
            }
        }
    };
    let martian = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast() || v6.to_ipv4_mapped().is_some(),
    };
    let seen = Seen { vlans, address, strength, mac };
    (!martian && !address.is_unspecified()).then_some(seen)
}

#[test]
fn sources_and_vlans_are_the_same() {
    let (mut chance, mut met) = (Chance::new(1), 0);
    for _ in 0..50_000 {
        let port = port(&mut chance);
        let frame = valid(&mut chance);
        let Some(seen) = by_etherparse(&frame, &port) else { continue };
        let parsed = parse(&frame[..], &port);
        if matches!(parsed.beside(&port), Meaning::Opaque(_)) {
            continue; // Beyond our bounds, and told as such.
        }
        let ours = parsed.claim().map(|claim| Seen {
            vlans: (claim.key.vlan, claim.key.inner_vlan),
            address: claim.key.ip(),
            strength: claim.strength,
            mac: claim.mac,
        });
        assert_eq!(ours, Some(seen), "{frame:02x?} is {:?}", parsed.beside(&port));
        met += 1;
    }
    assert!(met > 20_000, "{met}");
}

#[test]
fn n07_the_target_of_an_advertisement_is_the_same() {
    let (mut chance, mut met) = (Chance::new(2), 0);
    for _ in 0..50_000 {
        let port = port(&mut chance);
        let frame = valid(&mut chance);
        let packet = LaxSlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { continue };
        let parsed = parse(&frame[..], &port);
        if matches!(parsed.beside(&port), Meaning::Opaque(_)) {
            continue; // Of a fragment the source alone is read.
        }
        let Some(claim) = parsed.claim().filter(|_| icmp.type_u8() == 136) else { continue };
        let target = Ipv6Addr::from(<[u8; 16]>::try_from(&icmp.slice()[8..24]).unwrap());
        assert_eq!(claim.key.ip(), IpAddr::from(target), "{frame:02x?}");
        // The first option of type 2 is the target's link-layer address.
        let options = icmp.slice()[24..].chunks_exact(8);
        let mac = options.filter(|option| option[0] == 2).map(|option| option[2..].to_vec()).next();
        assert_eq!(
            claim.mac.to_vec(),
            mac.unwrap_or_else(|| frame[6..12].to_vec()),
            "{frame:02x?}"
        );
        met += 1;
    }
    assert!(met > 1000, "{met}");
}
