//! Announces to a segment who has an address now: a gratuitous ARP request (RFC 5227 §3,
//! §2.3), or an unsolicited neighbour advertisement (RFC 4861 §7.2.6).
//!
//! It goes out of each other port, as if it came from the new holder: a neighbour takes it for what
//! the holder itself would send. It does not pass through the bridge, whose FDB learns nothing from
//! it, nor through the ingress of any port, where the program would take it for a claim. The holder
//! must not hear it: an advertisement of its own address would fail its duplicate address detection
//! (RFC 4862 §5.4.4). The host hears nothing of what leaves its ports, so its own neighbour table is
//! set right by netlink.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use guard_core::{arbiter::Handover, mac::Mac, segment::Segment};

use super::{Observer, PortStatus};
use crate::network::{
    PortVlans,
    probe::{Discovery, Prober, arp_request, tagged},
    topology::{Port, View},
};

/// All stations, and all nodes (RFC 2464 §7, RFC 4291 §2.7.1).
const BROADCAST: Mac = Mac([0xff; 6]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// RFC 4861 §4.4 and §4.6.1. Neither solicited nor a router: what a pool hands out is no router's.
const ADVERTISEMENT: u8 = 136;
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER: u8 = 2;

impl Observer {
    /// Has everyone hear of new holders whose ports are watched and forward.
    pub(super) fn announce(&self) {
        let handovers = {
            let ports = self.ports.shared().read();
            self.deps.owners.take_handovers(|ifindex| {
                let covered = ports.get(&ifindex).is_some_and(PortStatus::is_covered);
                let port = self.view.ports.get(&ifindex);
                covered && port.is_some_and(|port| port.running && port.flow.forwards)
            })
        };
        for handover in handovers {
            let sent = send(&self.prober, &self.view, &handover);
            let Handover { segment, address, mac, ifindex } = handover;
            tracing::debug!(%segment, %address, %mac, ifindex, sent, "announced a new holder");
            let Some(bridge) = self.view.bridges.get(&segment.bridge) else { continue };
            // The host's own table is that of its device in the segment.
            if let Some(device) = bridge.devices.get(&segment.vlan).copied() {
                let netlink = self.netlink.clone();
                self.deps.supervisor.spawn_once("renewal of neighbour entries", async move {
                    if let Err(error) = netlink.renew_neighbour(device, address, mac).await {
                        tracing::warn!(%address, %error, "cannot renew the host's neighbour entry");
                    }
                });
            }
        }
    }
}

/// Tells everyone but the holder. Gives back how many ports it was sent to.
fn send(prober: &Prober, view: &View, handover: &Handover) -> usize {
    let Handover { segment, address, mac, ifindex } = handover;
    let bare = announcement(*mac, *address);
    let sent = listeners(view, segment, *ifindex).into_iter().filter(|(port, vlans)| {
        let frames = tagged(&bare, *vlans, (segment.vlan, segment.inner_vlan));
        let sent = frames.iter().map(|frame| prober.send(*port, frame));
        let result: Result<Vec<()>, _> = sent.collect();
        if let Err(error) = &result {
            tracing::debug!(%address, ifindex = port, %error, "cannot send an announcement");
        }
        result.is_ok()
    });
    sent.count()
}

/// What the holder itself would say.
fn announcement(mac: Mac, address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => arp_request(mac, BROADCAST, address, address),
        IpAddr::V6(target) => {
            let option = (TARGET_LINK_LAYER, mac);
            let discovery = Discovery { kind: ADVERTISEMENT, flags: OVERRIDE, target, option };
            discovery.frame((mac, target), (ALL_NODES_MAC, ALL_NODES))
        }
    }
}

/// The ports to which the bridge would flood a broadcast of the holder's, each with its VLANs.
fn listeners<'a>(
    view: &'a View,
    segment: &Segment,
    holder: u32,
) -> Vec<(u32, Option<&'a PortVlans>)> {
    let isolated = view.ports.get(&holder).is_some_and(|port| port.flow.isolated);
    let hears = |(ifindex, port): (&u32, &'a Port)| {
        let vlans = port.vlans.as_ref();
        let reached = *ifindex != holder
            && port.bridge == segment.bridge
            && port.running
            && port.flow.forwards
            && !(isolated && port.flow.isolated)
            && vlans.is_none_or(|vlans| vlans.member.contains(&segment.vlan));
        reached.then_some((*ifindex, vlans))
    };
    view.ports.iter().filter_map(hears).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr};

    use guard_ebpf::abi::{self, STRENGTH_ASSERT};

    use super::*;
    use crate::network::{Flow, topology::PortDevice};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn port(bridge: &str) -> Port {
        Port {
            interface: "veth".into(),
            bridge: bridge.into(),
            bridge_ifindex: 2,
            running: true,
            device: PortDevice::Veth,
            vlans: None,
            flow: Flow::default(),
            unreadable: false,
        }
    }

    fn view(ports: impl IntoIterator<Item = Port>) -> View {
        View { ports: (5..).zip(ports).collect(), ..View::default() }
    }

    fn hear(view: &View, vlan: u16) -> Vec<u32> {
        let listeners = listeners(view, &Segment::new("br0", vlan), 5);
        listeners.into_iter().map(|(port, _)| port).collect()
    }

    #[test]
    fn an_announcement_is_the_claim_that_its_holder_would_make() {
        for address in ["10.8.64.2", "2001:db8::2"] {
            let address: IpAddr = address.parse().unwrap();
            let frame = announcement(MAC, address);
            let port = <abi::Port as bytemuck::Zeroable>::zeroed();
            for frame in tagged(&frame, None, (7, 0)).iter().chain([&frame]) {
                let parsed = guard_ebpf::frame::parse(&frame[..], &port);
                let claim = parsed.claim().unwrap();
                assert_eq!((claim.key.ip(), claim.strength), (address, STRENGTH_ASSERT));
                assert_eq!(claim.mac, MAC.0);
            }
        }
    }

    #[test]
    fn an_advertisement_is_one_to_another_parser() {
        let target: Ipv6Addr = "2001:db8::2".parse().unwrap();
        let frame = announcement(MAC, target.into());
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv6(ip, _)) = &parsed.net else { panic!("{parsed:?}") };
        assert_eq!((ip.source_addr(), ip.destination_addr()), (target, ALL_NODES));
        assert_eq!(ip.hop_limit, 255);
        let Some(etherparse::TransportHeader::Icmpv6(icmp)) = &parsed.transport else {
            panic!("{parsed:?}")
        };
        let etherparse::Icmpv6Type::NeighborAdvertisement(said) = &icmp.icmp_type else {
            panic!("{icmp:?}")
        };
        assert!(said.r#override && !said.solicited && !said.router, "{said:?}");
        let checksum =
            icmp.icmp_type.calc_checksum(ip.source, ip.destination, parsed.payload.slice());
        assert_eq!(checksum.unwrap(), icmp.checksum);
    }

    #[test]
    fn an_arp_announcement_is_to_all_and_for_its_own_address() {
        let address = Ipv4Addr::new(10, 8, 64, 2);
        let frame = announcement(MAC, address.into());
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Arp(arp)) = &parsed.net else { panic!("{parsed:?}") };
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(arp.operation, etherparse::ArpOperation::REQUEST);
        let own = address.octets();
        assert_eq!((arp.sender_protocol_addr(), arp.target_protocol_addr()), (&own[..], &own[..]));
    }

    #[test]
    fn everyone_on_the_segment_hears_it_but_the_holder() {
        let down = Port { running: false, ..port("br0") };
        let blocked = Port { flow: Flow { forwards: false, ..Flow::default() }, ..port("br0") };
        let view = view([port("br0"), port("br0"), port("br1"), down, blocked, port("br0")]);
        assert_eq!(hear(&view, 0), [6, 10]);
        // Where nobody filters VLANs, its frames go to every port.
        assert_eq!(hear(&view, 7), [6, 10]);
    }

    #[test]
    fn who_is_isolated_hears_of_nobody_who_is_too() {
        let isolated = || Port { flow: Flow { isolated: true, ..Flow::default() }, ..port("br0") };
        assert_eq!(hear(&view([isolated(), isolated(), port("br0")]), 0), [7]);
        assert_eq!(hear(&view([port("br0"), isolated()]), 0), [6]);
    }

    #[test]
    fn a_vlan_is_heard_by_its_members() {
        let member = || {
            let member = BTreeSet::from([5, 7]);
            Port { vlans: Some(PortVlans { member, ..PortVlans::default() }), ..port("br0") }
        };
        let other = Port { vlans: Some(PortVlans::default()), ..port("br0") };
        let view = view([member(), member(), member(), other]);
        assert_eq!(hear(&view, 5), [6, 7]);
        assert!(hear(&view, 9).is_empty());
    }
}
