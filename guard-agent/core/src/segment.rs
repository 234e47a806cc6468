//! Where an address lives: a bridge and a VLAN.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A broadcast domain. The same prefix on two segments is two pools; evidence counts for the
/// address of its own segment only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// The bridge's name.
    pub bridge: Arc<str>,
    /// The VLAN id, 0 for untagged.
    pub vlan: u16,
}

impl Segment {
    /// The segment of one VLAN of a bridge.
    pub fn new(bridge: impl Into<Arc<str>>, vlan: u16) -> Self {
        Self { bridge: bridge.into(), vlan }
    }

    /// That of what is on no bridge.
    pub fn none() -> Self {
        Self::new("", 0)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vlan {
            0 => f.write_str(&self.bridge),
            vlan => write!(f, "{}.{vlan}", self.bridge),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
