//! What an incident is about.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{evidence::Source, mac::Mac};

/// An address that two have, a MAC that is on two ports and claimed no address, a port, or what a
/// source lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// An address of the segment.
    Address(IpAddr),
    /// A MAC on the segment.
    Mac(Mac),
    /// A port of the bridge, by its ifindex.
    Port(u32),
    /// The addresses of an IPv6 network of 64 bits that are behind a port.
    Subnet(u32, Ipv6Addr),
    /// An entry of a source: a container by its id, or a sandbox by its name; empty for those that
    /// have none.
    Entry(Source, Arc<str>),
}

impl Target {
    /// The address, where there is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Mac(_) | Self::Port(_) | Self::Subnet(..) | Self::Entry(..) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
            Self::Port(ifindex) => write!(f, "ifindex {ifindex}"),
            Self::Subnet(ifindex, network) => write!(f, "ifindex {ifindex} {network}/64"),
            Self::Entry(source, entry) => write!(f, "{} {entry:?}", source.name()),
        }
    }
}
