//! `[[bridge.allow]]`, as it stands in the file.

use documented::{Documented, DocumentedFields};
use guard_core::enforcement::ExceptionKind;
use serde::{Deserialize, Serialize};

/// Who may claim what another has, so that it is no conflict, and what ports may send besides.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    /// "vrrp", "shared", "router" or "proxy"; "address", "macs", "group", "dhcp_server", "bpdu", "tagged" or
    /// "ethertypes".
    pub kind: ExceptionKind,
    /// The VLAN of the addresses; 0 for untagged.
    #[serde(default)]
    pub vlan: u16,
    /// Addresses or prefixes.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Of "macs" and "group": MACs, or the first three octets of them.
    #[serde(default)]
    pub macs: Vec<String>,
    /// Of "macs": so many, whichever they are.
    #[serde(default)]
    pub any: u16,
    /// Of "vrrp": ids of virtual routers; any where none is named.
    #[serde(default)]
    pub vrids: Vec<u8>,
    /// Ports of the bridge, by name, in which "*" stands for any text and "?" for any character. With "vrrp"
    /// and "shared" any where neither these nor sandboxes are named, unless the bridge is enforced.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Sandboxes, the same way: the ports that their leases are bound to.
    #[serde(default)]
    pub sandboxes: Vec<String>,
}
