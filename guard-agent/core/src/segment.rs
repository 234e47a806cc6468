//! Where an address lives: a bridge and a VLAN.

use std::{fmt, net::IpAddr, sync::Arc};

use guard_ebpf::abi::AddressKey;
use serde::{Deserialize, Serialize};

/// A broadcast domain. The same prefix on two segments is two pools; evidence counts for the
/// address of its own segment only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// The bridge's name.
    pub bridge: Arc<str>,
    /// The VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The inner VLAN id of doubly tagged frames, else 0: no pool and no host address is there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inner_vlan: u16,
}

fn is_zero(id: &u16) -> bool {
    *id == 0
}

impl Segment {
    /// The segment of one VLAN of a bridge.
    pub fn new(bridge: impl Into<Arc<str>>, vlan: u16) -> Self {
        Self { bridge: bridge.into(), vlan, inner_vlan: 0 }
    }

    /// That of an address in the program's maps.
    pub fn of(bridge: impl Into<Arc<str>>, key: &AddressKey) -> Self {
        Self { inner_vlan: key.inner_vlan, ..Self::new(bridge, key.vlan) }
    }

    /// An address of it in the program's maps, where the bridge has this ifindex.
    pub fn key(&self, bridge: u32, address: IpAddr) -> AddressKey {
        AddressKey { inner_vlan: self.inner_vlan, ..AddressKey::new(bridge, self.vlan, address) }
    }

    /// That of what is on no bridge.
    pub fn none() -> Self {
        Self::new("", 0)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.vlan, self.inner_vlan) {
            (0, 0) => f.write_str(&self.bridge),
            (vlan, 0) => write!(f, "{}.{vlan}", self.bridge),
            (vlan, inner) => write!(f, "{}.{vlan}.{inner}", self.bridge),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
