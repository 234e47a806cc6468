//! What sort of incident it is, and how bad that is.

use serde::{Deserialize, Serialize};

/// The kinds, the worst last: an incident has the worst that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An address in a pool is live and nobody's.
    Unowned,
    /// A port says more about addresses that nobody owns than its quota lets it.
    Flood,
    /// An entry of a source cannot be read.
    Inventory,
    /// A port sends back what came from this bridge (claims.md L01b).
    Loop,
    /// A port claims the addresses of many (claims.md A19b).
    Proxy,
    /// A port sends what cannot be read to its end (claims.md A29, N12, N13).
    Opaque,
    /// A port that is no router's advertises one, or redirects (claims.md N09).
    Router,
    /// Another program is before guard's on a port.
    Coverage,
    /// A DHCP client has found an address to be another's (claims.md D09).
    Declined,
    /// An address went back and forth (claims.md A35).
    Flap,
    /// Two claimants of one address.
    Duplicate,
    /// One MAC on two ports.
    Clone,
    /// A claim on the gateway's or another host address.
    Gateway,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Unowned,
        Self::Flood,
        Self::Inventory,
        Self::Loop,
        Self::Proxy,
        Self::Opaque,
        Self::Router,
        Self::Coverage,
        Self::Declined,
        Self::Flap,
        Self::Duplicate,
        Self::Clone,
        Self::Gateway,
    ];

    /// Those that are about a bridge, or about none.
    pub fn about(bridge: &str) -> impl Iterator<Item = Self> {
        let none = bridge.is_empty();
        Self::ALL.into_iter().filter(move |kind| (*kind == Self::Inventory) == none)
    }

    /// The word for it in JSON, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Flood => "flood",
            Self::Loop => "loop",
            Self::Proxy => "proxy",
            Self::Opaque => "opaque",
            Self::Router => "router",
            Self::Coverage => "coverage",
            Self::Declined => "declined",
            Self::Unowned => "unowned",
            Self::Flap => "flap",
            Self::Duplicate => "duplicate",
            Self::Clone => "clone",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it is about a port, whatever the address.
    pub fn is_of_port(self) -> bool {
        matches!(
            self,
            Self::Flood | Self::Loop | Self::Proxy | Self::Opaque | Self::Router | Self::Coverage
        )
    }

    /// Whether it lasts for as long as it goes on, and nobody is asked whether it does.
    pub(super) fn lasts_as_told(self) -> bool {
        self.is_of_port() || self == Self::Declined
    }

    /// How bad it is, unless the incident itself is mild or critical.
    pub fn severity(self) -> Severity {
        match self {
            Self::Unowned => Severity::Info,
            Self::Inventory
            | Self::Flood
            | Self::Loop
            | Self::Proxy
            | Self::Opaque
            | Self::Router
            | Self::Coverage
            | Self::Declined
            | Self::Flap
            | Self::Duplicate
            | Self::Clone => Severity::Warning,
            Self::Gateway => Severity::Critical,
        }
    }
}

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nobody is hurt yet.
    Info,
    /// One address is at risk, or one port is hostile.
    Warning,
    /// Every sandbox on the segment is.
    Critical,
}

impl Severity {
    /// One less.
    #[must_use]
    pub fn less(self) -> Self {
        match self {
            Self::Critical => Self::Warning,
            Self::Warning | Self::Info => Self::Info,
        }
    }

    /// The word for it in JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}
