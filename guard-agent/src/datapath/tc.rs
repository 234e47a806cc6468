//! Traffic control, as route netlink has it (tc(8), rtnetlink(7)): which filters an interface has,
//! and the qdisc that holds them. aya adds and removes filters, and asks for none.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};

use crate::network::ask::ask;

/// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of the clsact qdisc (linux/pkt_sched.h).
pub(super) const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };

/// A filter on one of the hooks of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// The lower, the earlier.
    pub priority: u16,
    /// Unique within its priority.
    pub handle: u32,
    /// The program, if it is one.
    pub program_id: Option<u32>,
    /// What whoever made it calls that.
    pub name: Option<String>,
}

/// The filters on a hook, in the order in which they run. There are none where there is no qdisc.
///
/// # Errors
/// The kernel's refusal: there is no such interface.
pub(super) fn filters(ifindex: u32, hook: TcHandle) -> io::Result<Vec<Filter>> {
    let request = RouteNetlinkMessage::GetTrafficFilter(message(ifindex, TcHandle::UNSPEC, hook)?);
    let answers = ask(request, NLM_F_DUMP)?;
    Ok(answers.iter().filter_map(filter).collect())
}

/// Takes the clsact qdisc off an interface, unless there are filters in it. Gives back whether it
/// is gone.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn remove_clsact(ifindex: u32) -> io::Result<bool> {
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
    // Of the others, frames meet only what one of the first chain sends them to.
    let elsewhere = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, TcAttribute::Chain(chain) if *chain != 0));
    // The kernel tells of each priority once without a filter.
    if handle == 0 || elsewhere {
        return None;
    }
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let (mut program_id, mut name) = (None, None);
    for option in options.flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program_id = Some(*id),
            TcOption::Bpf(TcFilterBpfOption::ProgName(given)) => name = Some(given.clone()),
            _ => {}
        }
    }
    Some(Filter { priority, handle, program_id, name })
}
