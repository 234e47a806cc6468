//! What a bridge is set to.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
};

use serde::{Deserialize, Serialize};

/// What becomes of a frame that breaks the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is counted and passes.
    #[default]
    Observe,
    /// It is dropped.
    Enforce,
}

impl Mode {
    /// The word for it in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }

    /// Whether frames are dropped.
    pub fn enforces(self) -> bool {
        self == Self::Enforce
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom the rules bind that go beyond what another has: ports that may use their own addresses and MACs
/// and no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strict {
    /// Nobody.
    None,
    /// Ports that a declared binding names.
    #[default]
    Bound,
    /// Every access port.
    All,
}

impl Strict {
    /// The word for it in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bound => "bound",
            Self::All => "all",
        }
    }
}

/// Frames that no sandbox has a reason to send, whoever has which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A router's advertisements and redirects.
    Router,
    /// What only a DHCP server says.
    DhcpServer,
    /// Spanning tree and its kin, queries of multicast.
    Control,
    /// Neither ARP nor IP.
    Ethertype,
    /// VLAN tags, and VLANs that the port is not in.
    Tagged,
    /// What a receiver may read further than the program does.
    Opaque,
    /// What cannot be read, and sources that no host can have.
    Malformed,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 7] = [
        Self::Router,
        Self::DhcpServer,
        Self::Control,
        Self::Ethertype,
        Self::Tagged,
        Self::Opaque,
        Self::Malformed,
    ];

    /// The word for it in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::DhcpServer => "dhcp_server",
            Self::Control => "control",
            Self::Ethertype => "ethertype",
            Self::Tagged => "tagged",
            Self::Opaque => "opaque",
            Self::Malformed => "malformed",
        }
    }
}

/// The classes that are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Hygiene(BTreeSet<Class>);

impl Default for Hygiene {
    /// All but other ethertypes, which only `strict = "all"` drops.
    fn default() -> Self {
        Class::ALL.into_iter().filter(|class| *class != Class::Ethertype).collect()
    }
}

impl Hygiene {
    /// Whether a class is dropped.
    pub fn contains(&self, class: Class) -> bool {
        self.0.contains(&class)
    }

    /// The classes that are.
    pub fn iter(&self) -> impl Iterator<Item = Class> {
        self.0.iter().copied()
    }
}

impl FromIterator<Class> for Hygiene {
    fn from_iter<I: IntoIterator<Item = Class>>(classes: I) -> Self {
        Self(classes.into_iter().collect())
    }
}

/// What a bridge is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What becomes of a frame that breaks the rules.
    pub mode: Mode,
    /// Whom the stricter rules bind.
    pub strict: Strict,
    /// What is dropped, whoever has which address.
    pub hygiene: Hygiene,
}
