//! The allow rules of a bridge: who may claim what another has.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{CheckError, check_interface, file};

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
    /// The ports that may; any port of the bridge if there are none.
    pub ports: Vec<Arc<str>>,
}

impl Allow {
    pub(super) fn check(bridge: &str, section: file::Allow) -> Result<Self, CheckError> {
        let file::Allow { kind, vlan, addresses, ports } = section;
        let error = |why: &str| CheckError::Allow {
            bridge: bridge.to_owned(),
            kind: kind.name(),
            why: why.to_owned(),
        };
        if vlan > 4094 {
            return Err(error(&format!("vlan = {vlan} is not a VLAN id (0, or 1 to 4094)")));
        }
        for name in &ports {
            check_interface(name)?;
        }
        if matches!(kind, AllowKind::Router | AllowKind::Proxy) && ports.is_empty() {
            return Err(error("any port could be one; name its ports"));
        }
        if kind != AllowKind::Router && addresses.is_empty() {
            return Err(error("it allows nothing; name the addresses"));
        }
        let parse = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            let parsed = address.or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()));
            parsed.map_err(|_| error(&format!("{text:?} is neither an address nor a prefix")))
        };
        Ok(Self {
            kind,
            vlan,
            addresses: addresses.iter().map(parse).collect::<Result<_, _>>()?,
            ports: ports.into_iter().map(Arc::from).collect(),
        })
    }

    /// Whether it is about an address.
    pub fn names(&self, vlan: u16, address: IpAddr) -> bool {
        self.vlan == vlan && self.addresses.iter().any(|net| net.contains(&address))
    }

    /// Whether a port is in it.
    pub fn is_for(&self, interface: &str) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|port| **port == *interface)
    }

    /// Whether its addresses are for those alone whom it names.
    pub fn declares(&self) -> bool {
        self.kind != AllowKind::Proxy
    }
}
