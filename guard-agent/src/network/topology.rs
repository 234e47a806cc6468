//! Which bridges, ports and host addresses there are: pure bookkeeping over netlink's notices.

mod vlans;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use guard_core::{evidence::Device, mac::Mac, policy::is_link_local};
use ipnet::{IpNet, Ipv4Net};

use self::vlans::called;
use super::{Dump, Flow, Link, Notice, PortVlans, VlanFilter};

/// A watched bridge that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its ifindex.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// How it filters VLANs, if it does.
    pub vlan_filter: Option<VlanFilter>,
    /// The VLANs that it is in itself or a port of it, where it filters them.
    pub carried: BTreeSet<u16>,
    /// Spanning tree runs on it.
    pub spans: bool,
    /// The MACs of the host's devices on it.
    pub macs: BTreeSet<Mac>,
    /// The host's devices on it by their VLANs: itself, in VLAN 0 unless it filters VLANs, and the VLAN
    /// devices on it.
    pub devices: BTreeMap<u16, u32>,
    /// The host's addresses on these and on macvlans of them, each with the VLAN.
    pub addresses: BTreeSet<(u16, IpAddr)>,
    /// Those among them that the host has at the bridge's MAC.
    pub own: BTreeSet<(u16, IpAddr)>,
    /// The host's addresses on other devices of the same VRF, in each VLAN in which it has a device:
    /// for those of IPv4 it answers there as well (`arp_ignore` is 0 by default).
    pub elsewhere: BTreeSet<(u16, IpAddr)>,
    /// What its addresses say is on the link.
    pub prefixes: BTreeSet<(u16, IpNet)>,
}

/// A port of a watched bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub interface: Arc<str>,
    /// The bridge's name.
    pub bridge: Arc<str>,
    /// The bridge's ifindex.
    pub bridge_ifindex: u32,
    /// It is up and so is its carrier.
    pub running: bool,
    /// What it is a port by.
    pub device: PortDevice,
    /// Its VLANs, where the bridge filters them.
    pub vlans: Option<PortVlans>,
    /// What the bridge does with its frames.
    pub flow: Flow,
    /// Not all that the kernel says of it could be read.
    pub unreadable: bool,
}

/// What sort of device a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortDevice {
    /// A tap, as a virtual machine has it.
    Tap,
    /// One end of a veth pair whose other end the host does not use itself.
    Veth,
    /// Any other, by what it is.
    Other(Arc<str>),
}

/// What there is to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By name.
    pub bridges: BTreeMap<Arc<str>, Bridge>,
    /// By ifindex.
    pub ports: BTreeMap<u32, Port>,
}

impl View {
    /// Whether spanning tree lets nothing in from a port, as far as it is known.
    pub fn is_blocked(&self, ifindex: u32) -> bool {
        let Some(port) = self.ports.get(&ifindex) else { return false };
        let bridge = self.bridges.get(&port.bridge);
        bridge.is_some_and(|bridge| bridge.spans) && !port.flow.learns
    }
}

/// All links and addresses of the namespace, and the view of the watched bridges among them.
#[derive(Debug)]
pub struct Topology {
    /// The bridges by name, each with the VLANs that the configuration names on it.
    watched: BTreeMap<Arc<str>, BTreeSet<u16>>,
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpNet)>,
    vlans: BTreeMap<u32, PortVlans>,
}

impl Topology {
    /// Knows nothing yet of these bridges, each with the VLANs that the configuration names on it.
    pub fn new(watched: BTreeMap<Arc<str>, BTreeSet<u16>>) -> Self {
        let (links, addresses, vlans) = Default::default();
        Self { watched, links, addresses, vlans }
    }

    /// Replaces all that was known.
    pub fn reset(&mut self, Dump { links, addresses, vlans }: Dump) {
        self.links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        self.addresses = addresses.into_iter().collect();
        self.vlans = vlans.into_iter().collect();
    }

    /// Takes one notice in. False if only a new dump can tell.
    pub fn apply(&mut self, notice: Notice) -> bool {
        match notice {
            Notice::Link(link) => {
                let (ifindex, filters) = (link.ifindex, link.vlan_filter.is_some());
                let known = self.links.insert(ifindex, link);
                // Which VLANs it and its ports are in is not told with it.
                return match known {
                    Some(known) => known.vlan_filter.is_some() == filters,
                    None => !filters || self.vlans.contains_key(&ifindex),
                };
            }
            Notice::Port(ifindex, vlans, flow) => {
                self.vlans.insert(ifindex, vlans);
                if let (Some(link), Some(flow)) = (self.links.get_mut(&ifindex), flow) {
                    link.flow = flow;
                }
            }
            Notice::LinkGone(ifindex) => {
                self.links.remove(&ifindex);
                self.vlans.remove(&ifindex);
                self.addresses.retain(|(of, _)| *of != ifindex);
            }
            Notice::Address(ifindex, address) => {
                self.addresses.insert((ifindex, address));
            }
            Notice::AddressGone(ifindex, address) => {
                self.addresses.remove(&(ifindex, address));
            }
            Notice::Lost => return false,
        }
        true
    }

    /// All links of the namespace.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// One of them.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// What they are known by, by ifindex.
    pub fn devices(&self) -> BTreeMap<u32, Device> {
        self.links.values().map(|link| (link.ifindex, link.device)).collect()
    }

    /// The watched bridges, their ports and the host's addresses on them.
    pub fn view(&self) -> View {
        let mut view = View::default();
        let mut names = BTreeMap::new();
        for link in self.links.values().filter(|link| link.is_bridge) {
            let Some((name, _)) = self.watched.get_key_value(&*link.name) else { continue };
            let own = self.vlans_of(link, link);
            let native = own.as_ref().map_or(0, |own| own.native);
            let vlans = self.links.values().filter_map(|vlan| {
                let (_, id) = vlan.vlan.filter(|(of, _)| *of == link.ifindex)?;
                Some((called(id, native), vlan.ifindex))
            });
            // Where it filters VLANs, its own untagged frames may be in none.
            let untagged = own.as_ref().map_or(Some(0), |own| own.untagged);
            let carried = own.map(|own| own.member).unwrap_or_default();
            let untagged = untagged.map(|id| (id, link.ifindex));
            let devices: BTreeMap<_, _> = vlans.chain(untagged).collect();
            let macvlans = devices.iter().flat_map(|(id, on)| {
                let over = self.links.values().filter(|link| link.lower == Some(*on));
                over.map(|over| (*id, over.ifindex))
            });
            let all: Vec<_> = devices.iter().map(|(id, on)| (*id, *on)).chain(macvlans).collect();
            let nets: BTreeSet<_> = all
                .iter()
                .flat_map(|(id, on)| self.addresses_on(*on).map(|net| (*id, net)))
                .collect();
            let at_its_mac = |on: &u32| self.links.get(on).is_some_and(|on| on.mac == link.mac);
            let own = devices.iter().filter(|(_, on)| at_its_mac(on));
            let own = own.flat_map(|(id, on)| self.addresses_on(*on).map(|net| (*id, net.addr())));
            let addresses: BTreeSet<_> = nets.iter().map(|(id, net)| (*id, net.addr())).collect();
            let elsewhere = devices
                .iter()
                .flat_map(|(id, on)| self.elsewhere(*on).map(|address| (*id, address)));
            let bridge = Bridge {
                ifindex: link.ifindex,
                mac: link.mac.unwrap_or_default(),
                vlan_filter: link.vlan_filter,
                carried,
                spans: link.spans,
                macs: all.iter().filter_map(|(_, on)| self.links.get(on)?.mac).collect(),
                own: own.collect(),
                elsewhere: elsewhere.filter(|place| !addresses.contains(place)).collect(),
                addresses,
                prefixes: nets
                    .into_iter()
                    .filter_map(|(id, net)| Some((id, on_link(net)?)))
                    .collect(),
                devices,
            };
            names.insert(link.ifindex, (name, link));
            view.bridges.insert(name.clone(), bridge);
        }
        let of_its_vlans = |ifindex| self.vlans.get(&ifindex).is_some_and(|vlans| vlans.unreadable);
        for link in self.links.values() {
            let Some((bridge_ifindex, (name, bridge))) =
                link.controller.and_then(|controller| names.get_key_value(&controller))
            else {
                continue;
            };
            let port = Port {
                interface: link.name.as_str().into(),
                bridge: (*name).clone(),
                bridge_ifindex: *bridge_ifindex,
                running: link.running,
                device: self.device(link),
                vlans: self.vlans_of(link, bridge),
                flow: link.flow,
                unreadable: link.unreadable || of_its_vlans(link.ifindex),
            };
            if let Some(bridge) = view.bridges.get_mut(*name) {
                bridge.carried.extend(port.vlans.iter().flat_map(|vlans| &vlans.member));
            }
            view.ports.insert(link.ifindex, port);
        }
        view
    }

    /// What a port is. The other end of a veth pair is the host's own where it is in this namespace and
    /// is used here. A link-local address, which every link that is up gets by itself, is no use.
    fn device(&self, link: &Link) -> PortDevice {
        let kind = link.kind.as_deref();
        match kind {
            Some("tun") => return PortDevice::Tap,
            Some("veth") => {}
            Some(kind) => return PortDevice::Other(format!("a device of kind {kind}").into()),
            None => return PortDevice::Other("a physical device".into()),
        }
        let peer = link.device.peer.filter(|_| link.device.netns.is_none());
        let Some(peer) = peer.and_then(|peer| self.links.get(&peer)) else {
            return PortDevice::Veth;
        };
        let master = peer.controller.and_then(|controller| self.links.get(&controller));
        let use_of_peer = match master.filter(|master| master.is_bridge) {
            Some(bridge) => format!("is a port of {}", bridge.name),
            None if self.addresses_on(peer.ifindex).any(|net| !is_link_local(net.addr())) => {
                "has an address of the host".to_owned()
            }
            None => return PortDevice::Veth,
        };
        PortDevice::Other(format!("a veth whose peer {} {use_of_peer}", peer.name).into())
    }

    /// The host's addresses in the VRF of a device that anybody else could have as well.
    fn elsewhere(&self, device: u32) -> impl Iterator<Item = IpAddr> {
        let vrf = self.vrf(device);
        let there = self.addresses.iter().filter(move |(on, _)| self.vrf(*on) == vrf);
        let addresses = there.map(|(_, net)| net.addr());
        addresses.filter(|address| !address.is_loopback() && !is_link_local(*address))
    }

    /// The VRF that a link is in, or is.
    fn vrf(&self, ifindex: u32) -> Option<u32> {
        let link = self.links.get(&ifindex)?;
        let is_vrf = |ifindex: &u32| self.links.get(ifindex).is_some_and(|link| link.is_vrf);
        link.controller.into_iter().chain([ifindex]).find(is_vrf)
    }

    /// The host's addresses on a link.
    fn addresses_on(&self, ifindex: u32) -> impl Iterator<Item = IpNet> {
        let addresses = self.addresses.range((ifindex, Ipv4Net::default().into())..);
        addresses.take_while(move |(of, _)| *of == ifindex).map(|(_, address)| *address)
    }
}

/// What an address of the host says is on the link: nothing if it stands alone, and link-local
/// addresses are on every link.
fn on_link(address: IpNet) -> Option<IpNet> {
    let alone = address.prefix_len() == address.max_prefix_len();
    (!alone && !is_link_local(address.addr())).then(|| address.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn link(ifindex: u32, name: &str, controller: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            alternative: Vec::new(),
            controller,
            kind: Some("veth".to_owned()),
            is_bridge: name.starts_with("br"),
            vlan_filter: None,
            spans: false,
            vlan: None,
            lower: None,
            is_vrf: false,
            mac: Some(Mac::default()),
            device: Device::default(),
            running: true,
            flow: Flow::default(),
            unreadable: false,
        }
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
        let shim =
            Link { lower: Some(2), mac: Some(Mac([2, 0, 0, 0, 0, 7])), ..link(7, "shim", None) };
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
}
