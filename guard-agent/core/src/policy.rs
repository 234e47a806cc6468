//! What an operator decides beforehand: when two claimants are a conflict, how much an access port
//! may add, and who may claim what another has.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use documented::{Documented, DocumentedFields};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::homes;

/// When two claimants are a conflict, and how long an incident lasts.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Conflict {
    /// A wire claim without a frame for so long is no evidence any more.
    #[serde(with = "crate::duration")]
    pub live_window: Duration,
    /// A claimant of an incident that was silent for so long, and does not answer, is gone from it.
    #[serde(with = "crate::duration")]
    pub quiet: Duration,
    /// An address that goes back within so long to who had it has flapped.
    #[serde(with = "crate::duration")]
    pub flap_window: Duration,
    /// So many flaps within the window are an incident.
    pub flap_count: NonZeroU32,
    /// How long a doubt between undeclared claimants may be held.
    #[serde(with = "crate::duration")]
    pub grace: Duration,
}

impl Default for Conflict {
    fn default() -> Self {
        Self {
            live_window: Duration::from_secs(300),
            quiet: Duration::from_secs(60),
            flap_window: Duration::from_secs(60),
            flap_count: const { NonZeroU32::new(2).expect("it is not 0") },
            grace: Duration::from_secs(2),
        }
    }
}

/// What one port may add about addresses that nobody owns, and of MACs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// So many addresses can be live there at once.
    pub addresses_per_port: NonZeroU32,
    /// So many ARP and ND frames a second count.
    pub nd_per_second: NonZeroU32,
    /// More Ethernet sources than so many, up to 1,000, are a flood.
    pub macs_per_port: NonZeroU32,
    /// So many addresses can be live behind an uplink; link-local ones have half of the room.
    pub uplink_addresses: NonZeroU32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            addresses_per_port: const { NonZeroU32::new(16).expect("it is not 0") },
            nd_per_second: const { NonZeroU32::new(50).expect("it is not 0") },
            macs_per_port: const { NonZeroU32::new(64).expect("it is not 0") },
            uplink_addresses: const { NonZeroU32::new(65_536).expect("it is not 0") },
        }
    }
}

/// Whether an address is of the link alone (RFC 3927, RFC 4291 §2.5.6): on any link.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether an address is in none of a segment's prefixes, though some are of its family (claims.md
/// A14).
pub fn is_off_prefix(prefixes: impl IntoIterator<Item = IpNet>, address: IpAddr) -> bool {
    let family = |net: &IpNet| net.addr().is_ipv4() == address.is_ipv4();
    let mut family = prefixes.into_iter().filter(family).peekable();
    family.peek().is_some() && !is_link_local(address) && !family.any(|net| net.contains(&address))
}

/// The most rules that a bridge can have: each is a bit in the kernel's maps.
pub const MAX_RULES: usize = u32::BITS as usize;

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AllowKind {
    /// The addresses are virtual routers': they go with a virtual MAC from port to port, and no other
    /// MAC may claim them (claims.md A16, N18).
    Vrrp,
    /// The addresses go from MAC to MAC and from port to port (claims.md A17).
    Shared,
    /// A router is behind the ports: it advertises itself, forwards for others, and the addresses are
    /// its own (claims.md D05, N09).
    Router,
    /// The ports answer for the addresses, besides those who have them (claims.md A19, N08).
    Proxy,
}

impl AllowKind {
    /// The word for it in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vrrp => "vrrp",
            Self::Shared => "shared",
            Self::Router => "router",
            Self::Proxy => "proxy",
        }
    }
}

/// An allow rule that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// What it is for.
    pub kind: AllowKind,
    /// The VLAN of the addresses, 0 for untagged.
    pub vlan: u16,
    /// What may be claimed: an address is a prefix of its full length.
    pub addresses: Vec<IpNet>,
    /// Patterns of the ports that may; any port of the bridge if there are none.
    pub ports: Vec<Arc<str>>,
    /// It is exceptions that say who may: no port is in it by its name.
    pub by_exception: bool,
}

impl Allow {
    /// Whether it is about an address.
    pub fn names(&self, vlan: u16, address: IpAddr) -> bool {
        self.vlan == vlan && self.addresses.iter().any(|net| net.contains(&address))
    }

    /// Whether a port is in it.
    pub fn is_for(&self, interface: &str) -> bool {
        let named = || self.ports.iter().any(|port| homes::matches(port, interface));
        !self.by_exception && (self.ports.is_empty() || named())
    }

    /// Whether any port may, whatever its name is.
    pub fn is_open(&self) -> bool {
        self.ports.is_empty() && !self.by_exception
    }

    /// The port, if it can be no other.
    pub fn only_port(&self) -> Option<&Arc<str>> {
        match &self.ports[..] {
            [port] if !self.by_exception && !port.contains(['*', '?']) => Some(port),
            _ => None,
        }
    }

    /// Whether its addresses are for those alone whom it names.
    pub fn declares(&self) -> bool {
        self.kind != AllowKind::Proxy
    }
}
