//! What an incident is about.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::mac::Mac;

/// An address that two have, a MAC that is on two ports and claimed no address, or a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// An address of the segment.
    Address(IpAddr),
    /// A MAC on the segment.
    Mac(Mac),
    /// A port of the bridge, by its ifindex.
    Port(u32),
}

impl Target {
    /// The address, where there is one.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Mac(_) | Self::Port(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
            Self::Port(ifindex) => write!(f, "ifindex {ifindex}"),
        }
    }
}
