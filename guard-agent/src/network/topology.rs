//! Which bridges, ports and host addresses there are: pure bookkeeping over netlink's notices.

mod vlans;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use guard_core::{evidence::Device, mac::Mac, policy::is_link_local};
use ipnet::{IpNet, Ipv4Net};

pub(super) use self::vlans::called;
use super::{Dump, Flow, Link, Notice, PortVlans, VlanFilter};

/// A watched bridge that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
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
pub(crate) struct Port {
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
pub(crate) enum PortDevice {
    /// A tap, as a virtual machine has it.
    Tap,
    /// One end of a veth pair whose other end the host does not use itself.
    Veth,
    /// Any other, by what it is.
    Other(Arc<str>),
}

/// What there is to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// By name.
    pub bridges: BTreeMap<Arc<str>, Bridge>,
    /// By ifindex.
    pub ports: BTreeMap<u32, Port>,
}

impl View {
    /// Whether spanning tree lets nothing in from a port, as far as it is known.
    pub(crate) fn is_blocked(&self, ifindex: u32) -> bool {
        let Some(port) = self.ports.get(&ifindex) else { return false };
        let bridge = self.bridges.get(&port.bridge);
        bridge.is_some_and(|bridge| bridge.spans) && !port.flow.learns
    }
}

/// All links and addresses of the namespace, and the view of the watched bridges among them.
#[derive(Debug)]
pub(crate) struct Topology {
    /// The bridges by name, each with the VLANs that the configuration names on it.
    watched: BTreeMap<Arc<str>, BTreeSet<u16>>,
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpNet)>,
    vlans: BTreeMap<u32, PortVlans>,
}

impl Topology {
    /// Knows nothing yet of these bridges, each with the VLANs that the configuration names on it.
    pub(crate) fn new(watched: BTreeMap<Arc<str>, BTreeSet<u16>>) -> Self {
        let (links, addresses, vlans) = Default::default();
        Self { watched, links, addresses, vlans }
    }

    /// Replaces all that was known.
    pub(crate) fn reset(&mut self, Dump { links, addresses, vlans }: Dump) {
        self.links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        self.addresses = addresses.into_iter().collect();
        self.vlans = vlans.into_iter().collect();
    }

    /// Takes one notice in. False if only a new dump can tell.
    pub(crate) fn apply(&mut self, notice: Notice) -> bool {
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
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// One of them.
    pub(crate) fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// What they are known by, by ifindex.
    pub(crate) fn devices(&self) -> BTreeMap<u32, Device> {
        self.links.values().map(|link| (link.ifindex, link.device)).collect()
    }

    /// The watched bridges, their ports and the host's addresses on them.
    pub(crate) fn view(&self) -> View {
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

    /// The MACs of links that are in no bridge nor anything else: by one of them the host can be on a
    /// segment besides.
    pub(crate) fn beside(&self) -> BTreeSet<Mac> {
        let beside = self.links.values().filter(|link| link.controller.is_none());
        beside.filter_map(|link| link.mac).filter(|mac| mac.is_host()).collect()
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
mod tests;
