//! One question to route netlink and its answer: a few microseconds in the kernel, and it blocks for that
//! long.

use std::{collections::BTreeSet, io};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::netlink::{flow, readable::readable};

/// Sends a request, and returns what comes before the end of the dump or the acknowledgement that the
/// flags ask for.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn ask(
    request: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let datagram = readable(&datagram);
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let len = usize::try_from(answer.header.length).map_err(io::Error::other)?;
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(error.to_io());
                }
                // The acknowledgement.
                NetlinkPayload::Error(_) => return Ok(answers),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// What is said of one link, by its number.
fn link(ifindex: u32) -> io::Result<LinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let answers = ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)?;
    let mut links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    });
    links.next().ok_or_else(|| io::Error::other("the kernel says nothing of it"))
}

/// Whether the bridge of a port takes frames of it: it learns from them, or forwards them.
///
/// # Errors
/// There is no such link, or the kernel's refusal.
pub(crate) fn takes_frames(ifindex: u32) -> io::Result<bool> {
    let link = link(ifindex)?;
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    Ok(infos.flatten().find_map(flow).unwrap_or_default().learns)
}

/// How many frames a link has received since it was made.
///
/// # Errors
/// There is no such link, or the kernel's refusal.
pub(crate) fn received(ifindex: u32) -> io::Result<u64> {
    let received = link(ifindex)?.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(stats.rx_packets),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("the kernel counts nothing of it"))
}

/// Whether a link is up and has its carrier.
///
/// # Errors
/// There is no such link, or the kernel's refusal.
pub(super) fn is_running(ifindex: u32) -> io::Result<bool> {
    Ok(link(ifindex)?.header.flags.contains(LinkFlags::Running))
}

/// The ports of a bridge by their numbers, as the kernel lists them.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn ports(bridge: u32) -> io::Result<BTreeSet<u32>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Controller(bridge));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answers = ask(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)?;
    // A kernel that does not know the filter lists all links.
    let is_port = |link: &LinkMessage| link.attributes.contains(&LinkAttribute::Controller(bridge));
    let ports = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) if is_port(link) => Some(link.header.index),
        _ => None,
    });
    Ok(ports.collect())
}
