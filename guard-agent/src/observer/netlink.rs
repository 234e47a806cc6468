//! The kernel's links and addresses, as route netlink tells them (rtnetlink(7)).
//!
//! The subscription comes before the dump, so that nothing falls between the two; after a lost
//! message the dump is taken anew.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use futures_util::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{BoxStream, unfold},
};
use guard_core::{evidence::Device, mac::Mac};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        AfSpecBridge, BridgePortState, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge,
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute, LinkExtentMask,
        LinkFlags, LinkInfo, LinkMessage, Prop,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::time::{error::Elapsed, timeout};

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
    /// It is a bridge.
    pub is_bridge: bool,
    /// It is a bridge that filters VLANs.
    pub filters_vlans: bool,
    /// The ifindex of the link that it is a VLAN of, and the VLAN's id.
    pub vlan: Option<(u32, u16)>,
    /// Its MAC, if it is an Ethernet device.
    pub mac: Option<Mac>,
    /// What it is known by, where its number may be another's by now.
    pub device: Device,
    /// It is up and so is its carrier.
    pub running: bool,
    /// What its bridge does with its frames.
    pub flow: Flow,
}

/// What a bridge does with the frames of a port (`IFLA_BRPORT_STATE`, `IFLA_BRPORT_ISOLATED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// It forwards them: with STP not before it has listened and learned.
    pub forwards: bool,
    /// It forwards none to other ports that are isolated.
    pub isolated: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Self { forwards: true, isolated: false }
    }
}

/// The VLANs of a bridge's port, or of the bridge itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortVlans {
    /// That of its untagged frames (PVID), if they are let in.
    pub untagged: Option<u16>,
    /// Those that it is in.
    pub member: BTreeSet<u16>,
    /// Those whose frames leave it without a tag.
    pub bare: BTreeSet<u16>,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A link is new, or not what it was.
    Link(Link),
    /// A link is gone.
    LinkGone(u32),
    /// A port (or a bridge) is in these VLANs of its bridge, and this is what becomes of its frames,
    /// where that is said.
    Port(u32, PortVlans, Option<Flow>),
    /// The host has an address on a link.
    Address(u32, IpAddr),
    /// It has it no more.
    AddressGone(u32, IpAddr),
    /// Messages were lost: take the dump anew.
    Lost,
}

/// All links and all addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The links.
    pub links: Vec<Link>,
    /// The addresses, each with the ifindex of its link.
    pub addresses: Vec<(u32, IpAddr)>,
    /// The VLANs of bridges and their ports, each with its ifindex.
    pub vlans: Vec<(u32, PortVlans)>,
}

/// How long the kernel may take to answer: a thousand ports are listed within a tenth of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections to route netlink in the process's network namespace: one for questions, and one for
/// notices. On a single one, a burst of notices that fills the receive buffer can take the end of an
/// answer with it, and whoever waits for that waits for ever.
#[derive(Debug, Clone)]
pub struct Netlink {
    questions: Handle,
    /// Keeps the notices coming.
    _notices: Handle,
}

/// Why route netlink does not answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a route netlink socket: {0}")]
    Open(#[from] io::Error),
    /// No answer.
    #[error("the kernel did not answer a route netlink request within {} s", PATIENCE.as_secs())]
    Late(#[from] Elapsed),
    /// A request failed.
    #[error("the kernel refused a route netlink request: {0}")]
    Request(#[from] rtnetlink::Error),
}

impl Link {
    /// All names that it answers to.
    pub fn names(&self) -> Vec<String> {
        std::iter::once(&self.name).chain(&self.alternative).cloned().collect()
    }
}

impl Netlink {
    /// Subscribes to links and addresses.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn open() -> Result<(Self, BoxStream<'static, Notice>), NetlinkError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, told, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let (asking, questions, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        tokio::spawn(asking);
        let notices = notices(messages.map(|(message, _)| message)).boxed();
        Ok((Self { questions, _notices: told }, notices))
    }

    /// Reads all links and addresses.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn dump(&self) -> Result<Dump, NetlinkError> {
        timeout(PATIENCE, self.read_all()).await?
    }

    async fn read_all(&self) -> Result<Dump, NetlinkError> {
        let Self { questions, .. } = self;
        let links = questions.link().get().execute().try_collect::<Vec<_>>().await?;
        let addresses = questions.address().get().execute().try_collect::<Vec<_>>().await?;
        let mask = vec![LinkExtentMask::BrvlanCompressed];
        let ports = questions.link().get().set_filter_mask(AddressFamily::Bridge, mask);
        let ports = ports.execute().try_collect::<Vec<_>>().await?;
        Ok(Dump {
            links: links.into_iter().filter_map(link).collect(),
            addresses: addresses.iter().filter_map(address).collect(),
            vlans: ports.iter().filter_map(vlans).collect(),
        })
    }

    /// Reads one link by name; none if there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut found = self.questions.link().get().match_name(name).execute().boxed();
        match timeout(PATIENCE, found.try_next()).await? {
            Ok(message) => Ok(message.and_then(link)),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -nix::libc::ENODEV =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a MAC in the place of another in the host's neighbour table. No entry is made: whom the
    /// host does not talk to it need not know. True if there was another.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn renew_neighbour(
        &self,
        bridge: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<bool, NetlinkError> {
        let ask = RouteNetlinkMessage::GetNeighbour(neighbour(bridge, address));
        let Some(RouteNetlinkMessage::NewNeighbour(entry)) = self.request(ask, 0).await? else {
            return Ok(false);
        };
        if !is_outdated(&entry, mac) {
            return Ok(false);
        }
        let mut message = neighbour(bridge, address);
        // As after an announcement: believed, and looked at again when it is used.
        message.header.state = NeighbourState::Stale;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let replace = RouteNetlinkMessage::NewNeighbour(message);
        self.request(replace, NLM_F_ACK | NLM_F_REPLACE).await?;
        Ok(true)
    }

    /// One request with one answer; none where what it is about does not exist.
    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.questions.clone().request(request)?;
        match timeout(PATIENCE, answers.next()).await?.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(answer)) => Ok(Some(answer)),
            Some(NetlinkPayload::Error(error)) if error.raw_code() == -nix::libc::ENOENT => {
                Ok(None)
            }
            Some(NetlinkPayload::Error(error)) if error.code.is_some() => {
                Err(rtnetlink::Error::NetlinkError(error).into())
            }
            _ => Ok(None),
        }
    }
}

/// The message about an entry of the host's neighbour table.
fn neighbour(bridge: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = bridge;
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    message
}

/// Whether the host would talk to another MAC. What an operator has set is right as it is.
fn is_outdated(entry: &NeighbourMessage, mac: Mac) -> bool {
    let fixed = matches!(entry.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
    let is_it = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    !fixed && !entry.attributes.contains(&is_it)
}

/// The notices, and [`Notice::Lost`] once more when the connection itself ends.
fn notices(
    messages: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + 'static,
) -> impl Stream<Item = Notice> + Send {
    unfold(messages.boxed(), |mut messages| async {
        loop {
            let message = messages.next().await?;
            if let Some(notice) = notice(message) {
                return Some((notice, messages));
            }
        }
    })
}

fn notice(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Notice> {
    match message.payload {
        NetlinkPayload::Overrun(_) => Some(Notice::Lost),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            let port = vlans(&message)
                .map(|(ifindex, vlans)| Notice::Port(ifindex, vlans, flow_of_port(&message)));
            port.or_else(|| link(message).map(Notice::Link))
        }
        // A port that leaves its bridge is told as a deletion in the family AF_BRIDGE; the link
        // itself lives on, and its new state follows (net/bridge/br_if.c, del_nbp).
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
            (message.header.interface_family == AddressFamily::Unspec)
                .then_some(Notice::LinkGone(message.header.index))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
            address(&message).map(|(ifindex, address)| Notice::Address(ifindex, address))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message)) => {
            address(&message).map(|(ifindex, address)| Notice::AddressGone(ifindex, address))
        }
        _ => None,
    }
}

fn link(message: LinkMessage) -> Option<Link> {
    let LinkMessage { header, attributes, .. } = message;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        ifindex: header.index,
        name: String::new(),
        alternative: Vec::new(),
        controller: None,
        is_bridge: false,
        filters_vlans: false,
        vlan: None,
        mac: None,
        device: Device::default(),
        running: header.flags.contains(LinkFlags::Running),
        flow: Flow::default(),
    };
    let (mut parent, mut vlan, mut elsewhere) = (None, None, None);
    for attribute in attributes {
        match attribute {
            LinkAttribute::Link(ifindex) => parent = Some(ifindex),
            // Its parent is in another namespace, where the ifindex means another link.
            LinkAttribute::LinkNetNsId(namespace) => elsewhere = Some(namespace),
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::PropList(properties) => {
                link.alternative = properties.into_iter().filter_map(alternative).collect();
            }
            LinkAttribute::Controller(ifindex) => link.controller = Some(ifindex),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge =
                    infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)));
                link.filters_vlans = infos.iter().any(filters_vlans);
                vlan = infos.iter().find_map(vlan_id);
                link.flow = infos.iter().find_map(flow).unwrap_or_default();
            }
            _ => {}
        }
    }
    link.vlan = parent.zip(vlan).filter(|_| elsewhere.is_none());
    link.device = Device { mac: link.mac, peer: parent, netns: elsewhere };
    (!link.name.is_empty()).then_some(link)
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(settings)) = info else { return None };
    settings.iter().find_map(|setting| match setting {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

fn filters_vlans(info: &LinkInfo) -> bool {
    let LinkInfo::Data(InfoData::Bridge(settings)) = info else { return false };
    settings.contains(&InfoBridge::VlanFiltering(true))
}

fn flow(info: &LinkInfo) -> Option<Flow> {
    let LinkInfo::PortData(InfoPortData::BridgePort(settings)) = info else { return None };
    let mut flow = Flow::default();
    for setting in settings {
        match setting {
            InfoBridgePort::State(state) => {
                flow.forwards = *state == BridgePortState::Forwarding;
            }
            InfoBridgePort::Isolated(isolated) => flow.isolated = *isolated,
            _ => {}
        }
    }
    Some(flow)
}

/// The same in a message in the family AF_BRIDGE, the only one that tells of a change of it alone
/// (net/bridge/br_netlink.c, br_port_fill_attrs).
fn flow_of_port(message: &LinkMessage) -> Option<Flow> {
    /// linux/if_link.h, and linux/if_bridge.h.
    const STATE: u16 = 1;
    const ISOLATED: u16 = 33;
    const FORWARDING: u8 = 3;
    let settings = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::ProtoInfoBridge(settings) => Some(settings),
        _ => None,
    })?;
    let mut flow = Flow::default();
    for setting in settings {
        let mut value = [0];
        if setting.value_len() != value.len() {
            continue;
        }
        setting.emit_value(&mut value);
        match setting.kind() {
            STATE => flow.forwards = value == [FORWARDING],
            ISOLATED => flow.isolated = value != [0],
            _ => {}
        }
    }
    Some(flow)
}

/// What a message in the family AF_BRIDGE says of the VLANs of a port; ranges are told by their ends
/// (net/bridge/br_netlink.c, br_fill_ifvlaninfo_compressed).
fn vlans(message: &LinkMessage) -> Option<(u32, PortVlans)> {
    if message.header.interface_family != AddressFamily::Bridge {
        return None;
    }
    let mut vlans = PortVlans::default();
    let specs = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(specs) => Some(specs),
        _ => None,
    });
    let mut begin = None;
    for spec in specs.flatten() {
        let AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid }) = spec else { continue };
        if flags.contains(BridgeVlanInfoFlags::Pvid) {
            vlans.untagged = Some(*vid);
        }
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begin = Some(*vid);
            continue;
        }
        let first = begin.take().filter(|_| flags.contains(BridgeVlanInfoFlags::RangeEnd));
        let range = first.unwrap_or(*vid)..=*vid;
        if flags.contains(BridgeVlanInfoFlags::Untagged) {
            vlans.bare.extend(range.clone());
        }
        vlans.member.extend(range);
    }
    Some((message.header.index, vlans))
}

fn alternative(property: Prop) -> Option<String> {
    if let Prop::AltIfName(name) = property { Some(name) } else { None }
}

/// `IFA_LOCAL` is the host's own; on a broadcast link without it, `IFA_ADDRESS` is.
fn address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(address).map(|address| (message.header.index, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_replaced_unless_it_is_right_or_an_operators() {
        let entry = |state, mac: Mac| {
            let mut entry = neighbour(2, IpAddr::from([10, 8, 64, 2]));
            entry.header.state = state;
            entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
            entry
        };
        let (old, new) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Failed] {
            assert!(is_outdated(&entry(state, old), new));
            assert!(!is_outdated(&entry(state, new), new));
        }
        for state in [NeighbourState::Permanent, NeighbourState::Noarp] {
            assert!(!is_outdated(&entry(state, old), new));
        }
    }

    #[test]
    fn a_vlan_device_is_known_by_its_parent_here_and_its_id() {
        let info =
            [LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(5)]))];
        let message = |more: &[LinkAttribute]| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName("br0.5".to_owned()),
                LinkAttribute::Link(2),
                LinkAttribute::LinkInfo(info.to_vec()),
            ];
            message.attributes.extend_from_slice(more);
            message
        };
        assert_eq!(link(message(&[])).unwrap().vlan, Some((2, 5)));
        // There, 2 is the ifindex of another link.
        assert_eq!(link(message(&[LinkAttribute::LinkNetNsId(0)])).unwrap().vlan, None);
    }
}
