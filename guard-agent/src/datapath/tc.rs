//! Traffic control, as route netlink has it (tc(8), rtnetlink(7)): which filters an interface has,
//! and the qdisc that holds them. aya adds and removes filters, and asks for none.
//!
//! Each call is one request and its answer, a few microseconds in the kernel, and blocks for that
//! long.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of the clsact qdisc (linux/pkt_sched.h).
pub const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };

/// A filter on one of the hooks of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The lower, the earlier.
    pub priority: u16,
    /// Unique within its priority.
    pub handle: u32,
    /// The program, if it is one.
    pub program_id: Option<u32>,
}

/// The filters on a hook. There are none where there is no qdisc.
///
/// # Errors
/// The kernel's refusal: there is no such interface.
pub fn filters(ifindex: u32, hook: TcHandle) -> io::Result<Vec<Filter>> {
    let request = RouteNetlinkMessage::GetTrafficFilter(message(ifindex, TcHandle::UNSPEC, hook)?);
    let answers = ask(request, NLM_F_DUMP)?;
    Ok(answers.iter().filter_map(filter).collect())
}

/// Takes the clsact qdisc off an interface, unless there are filters in it. Gives back whether it
/// is gone.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_clsact(ifindex: u32) -> io::Result<bool> {
    for hook in [INGRESS, EGRESS] {
        if !filters(ifindex, hook)?.is_empty() {
            return Ok(false);
        }
    }
    let handle = TcHandle { major: 0xffff, minor: 0 };
    let message = message(ifindex, handle, TcHandle::CLSACT)?;
    ask(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK)?;
    Ok(true)
}

fn message(ifindex: u32, handle: TcHandle, parent: TcHandle) -> io::Result<TcMessage> {
    let index = ifindex.try_into().map_err(io::Error::other)?;
    let header = TcHeader { index, handle, parent, ..TcHeader::default() };
    Ok(TcMessage::from_parts(header, Vec::new()))
}

fn filter(answer: &RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = answer else { return None };
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    let handle = u32::from(message.header.handle);
    // The kernel tells of each priority once without a filter.
    (handle != 0).then(|| Filter { priority, handle, program_id: program_id(message) })
}

fn program_id(message: &TcMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| {
        let TcAttribute::Options(options) = attribute else { return None };
        options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        })
    })
}

fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
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
