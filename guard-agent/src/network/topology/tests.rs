use super::*;

pub(super) fn link(ifindex: u32, name: &str, controller: Option<u32>) -> Link {
    Link::veth(ifindex, name, controller)
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn topology() -> Topology {
    let mut topology = Topology::new([("br0".into(), BTreeSet::new())].into());
    topology.reset(Dump {
        links: vec![link(2, "br0", None), link(3, "br1", None), link(4, "v4", Some(2))],
        addresses: vec![(2, net("10.0.0.1/24")), (3, net("10.1.0.1/24"))],
        vlans: Vec::new(),
    });
    topology
}

#[test]
fn only_watched_bridges_have_ports() {
    let mut topology = topology();
    topology.apply(Notice::Link(link(5, "v5", Some(3))));
    let view = topology.view();
    assert_eq!(view.ports.keys().copied().collect::<Vec<_>>(), [4]);
    let own = BTreeSet::from([(0, IpAddr::from([10, 0, 0, 1]))]);
    assert_eq!(view.bridges["br0"].addresses, own);
    assert!(!view.bridges.contains_key("br1"));
}

#[test]
fn the_vlans_of_a_port_count_where_the_bridge_filters_them() {
    let mut topology = topology();
    let vlans = PortVlans {
        untagged: Some(5),
        member: BTreeSet::from([5, 7]),
        bare: BTreeSet::from([5]),
        ..PortVlans::default()
    };
    assert!(topology.apply(Notice::Port(4, vlans.clone(), None)));
    assert_eq!(topology.view().ports[&4].vlans, None);
    let bridge = Link { vlan_filter: Some(VlanFilter::default()), ..link(2, "br0", None) };
    assert!(!topology.apply(Notice::Link(bridge)), "those of all ports are asked for");
    assert_eq!(topology.view().ports[&4].vlans, Some(vlans));
    let own = PortVlans { untagged: Some(1), ..PortVlans::default() };
    topology.apply(Notice::Port(2, own, None));
    let own = BTreeSet::from([(1, IpAddr::from([10, 0, 0, 1]))]);
    assert_eq!(topology.view().bridges["br0"].addresses, own);
    topology.apply(Notice::Link(link(6, "v6", Some(2))));
    assert!(topology.lacks_vlans(6) && !topology.lacks_vlans(4));
}

#[test]
fn the_hosts_addresses_on_a_vlan_device_are_in_its_vlan() {
    let mut topology = topology();
    let device = |ifindex, of| Link { vlan: Some((of, 5)), ..link(ifindex, "v", None) };
    topology.apply(Notice::Link(device(7, 2)));
    topology.apply(Notice::Link(device(8, 3)));
    let [own, there] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
    topology.apply(Notice::Address(7, net("10.0.0.2/25")));
    topology.apply(Notice::Address(8, net("10.0.0.3/24")));
    let addresses = |topology: &Topology| topology.view().bridges["br0"].addresses.clone();
    assert_eq!(addresses(&topology), BTreeSet::from([(0, own), (5, there)]));
    assert_eq!(topology.view().bridges["br0"].devices, BTreeMap::from([(0, 2), (5, 7)]));
    let on_link = BTreeSet::from([(0, net("10.0.0.0/24")), (5, net("10.0.0.0/25"))]);
    assert_eq!(topology.view().bridges["br0"].prefixes, on_link);
    topology.apply(Notice::LinkGone(7));
    assert_eq!(addresses(&topology), BTreeSet::from([(0, own)]));
}

#[test]
fn the_hosts_addresses_on_a_macvlan_are_those_of_the_bridge_at_another_mac() {
    let mut topology = topology();
    let shim = Link { lower: Some(2), mac: Some(Mac([2, 0, 0, 0, 0, 7])), ..link(7, "shim", None) };
    topology.apply(Notice::Link(shim));
    topology.apply(Notice::Address(7, net("10.0.0.9/24")));
    let [own, shim] = [1, 9].map(|host| (0, IpAddr::from([10, 0, 0, host])));
    let bridge = &topology.view().bridges["br0"];
    assert_eq!(bridge.addresses, BTreeSet::from([own, shim]));
    assert_eq!(bridge.own, BTreeSet::from([own]));
    assert!(!bridge.elsewhere.contains(&shim));
    topology.apply(Notice::LinkGone(7));
    assert_eq!(topology.view().bridges["br0"].addresses, BTreeSet::from([own]));
}

#[test]
fn the_hosts_addresses_on_other_devices_are_those_of_the_bridges_vrf() {
    let mut topology = topology();
    topology.apply(Notice::Link(link(1, "lo", None)));
    for address in ["127.0.0.1/8", "::1/128", "10.0.0.7/32", "fd00::7/128"] {
        topology.apply(Notice::Address(1, net(address)));
    }
    topology.apply(Notice::Address(4, net("fe80::4/64")));
    let elsewhere = |topology: &Topology| {
        let elsewhere = topology.view().bridges["br0"].elsewhere.clone();
        elsewhere.into_iter().map(|(_, address)| address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(elsewhere(&topology), ["10.0.0.7", "10.1.0.1", "fd00::7"]);
    // The bridge is in a VRF of its own.
    topology.apply(Notice::Link(Link { is_vrf: true, ..link(8, "vrf", None) }));
    topology.apply(Notice::Link(link(2, "br0", Some(8))));
    assert!(elsewhere(&topology).is_empty());
    topology.apply(Notice::Address(8, net("10.0.0.8/32")));
    assert_eq!(elsewhere(&topology), ["10.0.0.8"]);
}

#[test]
fn an_address_that_stands_alone_or_is_link_local_says_nothing_of_the_link() {
    let mut topology = topology();
    for address in ["10.9.0.1/32", "2001:db8::1/128", "fe80::1/64", "169.254.1.1/16"] {
        topology.apply(Notice::Address(2, net(address)));
    }
    topology.apply(Notice::Address(2, net("2001:db8:1::1/64")));
    topology.apply(Notice::AddressGone(2, net("10.0.0.1/24")));
    let bridge = &topology.view().bridges["br0"];
    assert_eq!(bridge.addresses.len(), 5);
    assert_eq!(bridge.prefixes, BTreeSet::from([(0, net("2001:db8:1::/64"))]));
}

#[test]
fn a_port_is_a_tap_or_a_veth_that_leads_away_or_something_else() {
    let mut topology = topology();
    let device = |topology: &Topology| topology.view().ports[&4].device.clone();
    let port = |kind: Option<&str>, device| Link {
        kind: kind.map(str::to_owned),
        device,
        ..link(4, "v4", Some(2))
    };
    let here = Device { peer: Some(9), ..Device::default() };
    for (kind, expected) in [
        (Some("tun"), PortDevice::Tap),
        (Some("veth"), PortDevice::Veth),
        (Some("bond"), PortDevice::Other("a device of kind bond".into())),
        (Some("vlan"), PortDevice::Other("a device of kind vlan".into())),
        (Some("dummy"), PortDevice::Other("a device of kind dummy".into())),
        (None, PortDevice::Other("a physical device".into())),
    ] {
        topology.apply(Notice::Link(port(kind, here)));
        assert_eq!(device(&topology), expected, "{kind:?}");
    }
    topology.apply(Notice::Link(port(Some("veth"), here)));
    topology.apply(Notice::Link(link(9, "peer", None)));
    topology.apply(Notice::Address(9, net("fe80::9/64")));
    assert_eq!(device(&topology), PortDevice::Veth, "the peer is not used");
    topology.apply(Notice::Address(9, net("10.2.0.1/24")));
    let used = "a veth whose peer peer has an address of the host";
    assert_eq!(device(&topology), PortDevice::Other(used.into()));
    topology.apply(Notice::Link(link(9, "peer", Some(3))));
    let used = "a veth whose peer peer is a port of br1";
    assert_eq!(device(&topology), PortDevice::Other(used.into()));
    // The number of its peer is another link's in another namespace.
    topology.apply(Notice::Link(port(Some("veth"), Device { netns: Some(0), ..here })));
    assert_eq!(device(&topology), PortDevice::Veth);
}

#[test]
fn a_port_forwards_when_its_bridge_says_so() {
    let mut topology = topology();
    let flow = Flow { forwards: false, learns: false, isolated: false };
    topology.apply(Notice::Port(4, PortVlans::default(), Some(flow)));
    assert!(!topology.view().ports[&4].flow.forwards);
    topology.apply(Notice::Port(4, PortVlans::default(), None));
    assert!(!topology.view().ports[&4].flow.forwards, "nothing was said of it");
    topology.apply(Notice::Port(4, PortVlans::default(), Some(Flow::default())));
    assert!(topology.view().ports[&4].flow.forwards);
}

#[test]
fn a_port_that_leaves_its_bridge_is_no_port() {
    let mut topology = topology();
    topology.apply(Notice::Link(link(4, "v4", None)));
    assert!(topology.view().ports.is_empty());
}

#[test]
fn a_bridge_that_vanishes_takes_its_ports_and_addresses_along() {
    let mut topology = topology();
    topology.apply(Notice::LinkGone(2));
    assert_eq!(topology.view(), View::default());
    topology.apply(Notice::Link(link(9, "br0", None)));
    let view = topology.view();
    assert!(view.bridges["br0"].addresses.is_empty() && view.ports.is_empty());
}

#[test]
fn a_port_with_the_name_of_an_earlier_one_is_another_port() {
    let mut topology = topology();
    topology.apply(Notice::LinkGone(4));
    topology.apply(Notice::Link(link(7, "v4", Some(2))));
    assert_eq!(topology.view().ports.keys().copied().collect::<Vec<_>>(), [7]);
    assert!(!topology.apply(Notice::Lost));
}
