//! From netlink messages to values.

use futures_util::{Stream, StreamExt as _, stream::unfold};
use guard_core::{evidence::Device, mac::Mac};
use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, Nla as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        AfSpecBridge, BridgePortState, BridgeStpState, BridgeVlanInfo, BridgeVlanInfoFlags,
        InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage, Prop, VlanProtocol,
    },
};

use super::{Flow, Link, Notice, PortVlans, VlanFilter, readable::UNREADABLE};

/// The notices, and [`Notice::Lost`] once more when the connection itself ends.
pub(super) fn notices(
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
        // A port that leaves its bridge is reported as a deletion in the family AF_BRIDGE; the link
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

pub(super) fn link(message: LinkMessage) -> Option<Link> {
    let LinkMessage { header, attributes, .. } = message;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        ifindex: header.index,
        name: String::new(),
        alternative: Vec::new(),
        controller: None,
        kind: None,
        is_bridge: false,
        vlan_filter: None,
        spans: false,
        vlan: None,
        lower: None,
        is_vrf: false,
        mac: None,
        device: Device::default(),
        running: header.flags.contains(LinkFlags::Running),
        flow: Flow::default(),
        unreadable: is_unreadable(&attributes),
    };
    let (mut parent, mut vlan, mut elsewhere) = (None, None, None);
    let mut has_lower = false;
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
                link.kind = infos.iter().find_map(kind);
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
                link.is_bridge = kind == Some(&InfoKind::Bridge);
                link.is_vrf = kind == Some(&InfoKind::Vrf);
                has_lower =
                    matches!(kind, Some(InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan));
                link.vlan_filter = infos.iter().find_map(vlan_filter);
                link.spans = infos.iter().any(spans);
                vlan = infos.iter().find_map(vlan_id);
                link.flow = infos.iter().find_map(flow).unwrap_or_default();
            }
            _ => {}
        }
    }
    link.vlan = parent.zip(vlan).filter(|_| elsewhere.is_none());
    link.lower = parent.filter(|_| has_lower && elsewhere.is_none());
    link.device = Device { mac: link.mac, peer: parent, netns: elsewhere };
    (!link.name.is_empty()).then_some(link)
}

/// Whether there was more in a message, which could not be read.
fn is_unreadable(attributes: &[LinkAttribute]) -> bool {
    attributes.iter().any(|attribute| attribute.kind() == UNREADABLE)
}

fn kind(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None }
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(settings)) = info else { return None };
    settings.iter().find_map(|setting| match setting {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

fn vlan_filter(info: &LinkInfo) -> Option<VlanFilter> {
    let LinkInfo::Data(InfoData::Bridge(settings)) = info else { return None };
    let mut filter = VlanFilter::default();
    for setting in settings {
        match setting {
            InfoBridge::VlanProtocol(protocol) => {
                filter.provider = *protocol == VlanProtocol::Ieee8021Ad;
            }
            InfoBridge::VlanDefaultPvid(id) => filter.default_pvid = *id,
            _ => {}
        }
    }
    settings.contains(&InfoBridge::VlanFiltering(true)).then_some(filter)
}

fn spans(info: &LinkInfo) -> bool {
    let LinkInfo::Data(InfoData::Bridge(settings)) = info else { return false };
    settings.iter().any(|setting| {
        matches!(setting, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled)
    })
}

pub(in crate::network) fn flow(info: &LinkInfo) -> Option<Flow> {
    let LinkInfo::PortData(InfoPortData::BridgePort(settings)) = info else { return None };
    let mut flow = Flow::default();
    for setting in settings {
        match setting {
            InfoBridgePort::State(state) => {
                flow.forwards = *state == BridgePortState::Forwarding;
                flow.learns = flow.forwards || *state == BridgePortState::Learning;
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
    const LEARNING: u8 = 2;
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
            STATE => {
                flow.forwards = value == [FORWARDING];
                flow.learns = flow.forwards || value == [LEARNING];
            }
            ISOLATED => flow.isolated = value != [0],
            _ => {}
        }
    }
    Some(flow)
}

/// What a message in the family AF_BRIDGE says of the VLANs of a port; ranges are given by their ends
/// (net/bridge/br_netlink.c, br_fill_ifvlaninfo_compressed).
pub(super) fn vlans(message: &LinkMessage) -> Option<(u32, PortVlans)> {
    if message.header.interface_family != AddressFamily::Bridge {
        return None;
    }
    let unreadable = is_unreadable(&message.attributes);
    let mut vlans = PortVlans { unreadable, ..PortVlans::default() };
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
pub(super) fn address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn how_a_bridge_filters_vlans_is_among_its_settings() {
        let of = |settings: &[InfoBridge]| {
            let mut message = LinkMessage::default();
            let data = LinkInfo::Data(InfoData::Bridge(settings.to_vec()));
            message.attributes = vec![
                LinkAttribute::IfName("br0".to_owned()),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), data]),
            ];
            link(message).unwrap().vlan_filter
        };
        let [on, off] = [true, false].map(InfoBridge::VlanFiltering);
        let protocol = InfoBridge::VlanProtocol(VlanProtocol::Ieee8021Ad);
        let pvid = InfoBridge::VlanDefaultPvid(10);
        assert_eq!(of(&[off, protocol.clone()]), None);
        assert_eq!(of(&[InfoBridge::VlanFiltering(true)]), Some(VlanFilter::default()));
        let provider = VlanFilter { provider: true, default_pvid: 10 };
        assert_eq!(of(&[protocol, pvid, on]), Some(provider));
    }

    #[test]
    fn a_macvlan_is_known_by_its_parent_here() {
        let of = |kind: InfoKind, more: Option<LinkAttribute>| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName("shim".to_owned()),
                LinkAttribute::Link(2),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
            ];
            message.attributes.extend(more);
            link(message).unwrap()
        };
        assert_eq!(of(InfoKind::MacVlan, None).lower, Some(2));
        assert_eq!(of(InfoKind::MacVlan, Some(LinkAttribute::LinkNetNsId(0))).lower, None);
        let veth = of(InfoKind::Veth, None);
        assert_eq!((veth.lower, veth.is_vrf), (None, false));
        assert!(of(InfoKind::Vrf, None).is_vrf);
    }
}
