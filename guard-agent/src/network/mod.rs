//! The host's network as the kernel tells it: links, addresses and VLANs, one topology of the watched
//! bridges, and probes sent into them.

pub(crate) mod ask;
pub(crate) mod link;
pub(crate) mod neighbours;
mod netlink;
pub(crate) mod outgoing;
pub(crate) mod probe;
pub(crate) mod topology;

pub(crate) use netlink::NetlinkError;
pub(crate) use netlink::{Dump, Flow, Link, Netlink, Notice, PortVlans, VlanFilter};
