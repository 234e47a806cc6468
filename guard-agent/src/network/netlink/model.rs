//! What route netlink reports, as values.

use std::collections::BTreeSet;

use guard_core::{evidence::Device, mac::Mac};
use ipnet::IpNet;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its ifindex.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Names that it answers to as well, and that no other link can have.
    pub alternative: Vec<String>,
    /// The ifindex of the bridge (or other controller) that it is a port of.
    pub controller: Option<u32>,
    /// The kind of virtual device that it is (`IFLA_INFO_KIND`); none of a physical one.
    pub kind: Option<String>,
    /// It is a bridge.
    pub is_bridge: bool,
    /// How it filters VLANs, if it is a bridge that does.
    pub vlan_filter: Option<VlanFilter>,
    /// It is a bridge on which spanning tree runs, in the kernel or beside it.
    pub spans: bool,
    /// The ifindex of the link that it is a VLAN of, and the VLAN's id.
    pub vlan: Option<(u32, u16)>,
    /// The ifindex of the link that it is a macvlan, macvtap or ipvlan of.
    pub lower: Option<u32>,
    /// It is a VRF.
    pub is_vrf: bool,
    /// Its MAC, if it is an Ethernet device.
    pub mac: Option<Mac>,
    /// What it is known by, where its number may be another's by now.
    pub device: Device,
    /// It is up and so is its carrier.
    pub running: bool,
    /// What its bridge does with its frames.
    pub flow: Flow,
    /// There is more to it than could be read.
    pub unreadable: bool,
}

#[cfg(test)]
impl Link {
    /// A veth, or a bridge if it is called "br…", that is up; `controller` is what it is a port of.
    pub fn veth(ifindex: u32, name: &str, controller: Option<u32>) -> Self {
        Self {
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
}

/// What a bridge does with the frames of a port (`IFLA_BRPORT_STATE`, `IFLA_BRPORT_ISOLATED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// It forwards them: with STP not before it has listened and learned.
    pub forwards: bool,
    /// It learns from them: it takes them for where a station is, whether it forwards them yet or not.
    pub learns: bool,
    /// It forwards none to other ports that are isolated.
    pub isolated: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Self { forwards: true, learns: true, isolated: false }
    }
}

/// How a bridge filters VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanFilter {
    /// Its VLANs are a provider's, of 802.1ad tags (`vlan_protocol`).
    pub provider: bool,
    /// The VLAN of untagged frames on a new port, 0 for none (`vlan_default_pvid`).
    pub default_pvid: u16,
}

impl Default for VlanFilter {
    /// As a new bridge has it.
    fn default() -> Self {
        Self { provider: false, default_pvid: 1 }
    }
}

/// The VLANs of a bridge's port, or of the bridge itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortVlans {
    /// That of its untagged frames (PVID), if they are let in.
    pub untagged: Option<u16>,
    /// Those that it is in.
    pub member: BTreeSet<u16>,
    /// Those whose frames leave it without a tag.
    pub bare: BTreeSet<u16>,
    /// Their tags are a provider's, as its bridge has it.
    pub provider: bool,
    /// The one among them that is called 0 here (see `topology::vlans`), 0 for none.
    pub native: u16,
    /// There may be more: not all that was told could be read.
    pub unreadable: bool,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A link is new, or not what it was.
    Link(Link),
    /// A link is gone.
    LinkGone(u32),
    /// A port (or a bridge) is in these VLANs of its bridge, and this is what becomes of its frames,
    /// where that is said.
    Port(u32, PortVlans, Option<Flow>),
    /// The host has an address on a link.
    Address(u32, IpNet),
    /// It has it no more.
    AddressGone(u32, IpNet),
    /// Messages were lost: take the dump anew.
    Lost,
}

/// All links and all addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dump {
    /// The links.
    pub links: Vec<Link>,
    /// The addresses with their prefixes, each with the ifindex of its link.
    pub addresses: Vec<(u32, IpNet)>,
    /// The VLANs of bridges and their ports, each with its ifindex.
    pub vlans: Vec<(u32, PortVlans)>,
}

impl Link {
    /// All names that it answers to.
    pub fn names(&self) -> Vec<String> {
        std::iter::once(&self.name).chain(&self.alternative).cloned().collect()
    }
}
