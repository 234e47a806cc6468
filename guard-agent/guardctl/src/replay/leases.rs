//! The leases at the time of a capture, as `guardctl leases -o json` has printed them.

use std::{io, net::IpAddr, path::Path};

use guard_api::files;
use guard_core::{bounds::Bound, enforcement, mac::Mac};
use guard_ebpf::abi::{
    AddressKey, MAC_BOUND, MacHolder, MacKey, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned, PortMac,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{ConfigError, Settings};

/// The most that a list of leases may have: those of the largest pools.
const LIST: Bound = Bound { most: 256 << 20, of: "bytes" };

/// A lease whose declared binding names a port.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Leased {
    /// The address.
    pub address: IpAddr,
    /// The bridge.
    pub bridge: String,
    /// The VLAN, 0 for untagged.
    #[serde(default)]
    pub vlan: u16,
    /// The MAC, where one is named.
    #[serde(default, deserialize_with = "mac")]
    pub mac: Option<Mac>,
    /// The port.
    pub interface: Option<String>,
    /// Who has it.
    pub sandbox: Option<String>,
    /// `declared` or `learned`.
    binding: Option<String>,
}

/// As it is written.
fn mac<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Mac>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

#[derive(Deserialize)]
struct File {
    leases: Vec<Leased>,
}

impl Settings {
    /// Adds the leases of a file that bind a port of the bridge, or of any where none is named.
    ///
    /// # Errors
    /// The file cannot be read, or is no list of leases.
    pub(crate) fn lease(&mut self, path: &Path) -> Result<(), ConfigError> {
        let name = || path.display().to_string();
        let text =
            files::read(path, LIST).map_err(|source| ConfigError::Read { path: name(), source })?;
        let file: File = serde_json::from_str(&text)
            .map_err(|error| ConfigError::Read { path: name(), source: io::Error::other(error) })?;
        let here = |lease: &Leased| self.bridge.is_empty() || lease.bridge == self.bridge;
        let is_bound = |lease: &Leased| lease.binding.as_deref() == Some("declared");
        let bound = file.leases.into_iter().filter(|lease| here(lease) && is_bound(lease));
        let bound: Vec<_> = bound.filter(|lease| lease.interface.is_some()).collect();
        self.leases.extend(bound);
        Ok(())
    }
}

impl Leased {
    pub(super) fn is_on(&self, interface: &str) -> bool {
        self.interface.as_deref() == Some(interface)
    }

    /// The kernel's entry, of a lease that names this port.
    pub(super) fn owned(&self, ifindex: u32) -> Owned {
        let named = if self.mac.is_some() { OWNED_MAC } else { 0 };
        let Mac(mac) = self.mac.unwrap_or_default();
        let flags = OWNED_LEASED | OWNED_PORT | named;
        Owned { generation: 1, seen_ns: 0, ifindex, mac, flags, homes: 0 }
    }

    /// Where the MAC is, in the kernel's maps.
    pub(super) fn bound_mac(
        &self,
        key: &AddressKey,
        ifindex: u32,
    ) -> Option<(MacKey, MacHolder, PortMac)> {
        let Mac(mac) = self.mac?;
        let holder = MacHolder { ifindex, flags: MAC_BOUND };
        Some((MacKey::new(key.bridge, key.vlan, mac), holder, PortMac::new(ifindex, mac)))
    }
}

/// What the leases name of an interface.
pub(super) fn bound(leases: &[Leased], interface: &str) -> enforcement::Bound {
    let mut bound = enforcement::Bound::default();
    for lease in leases.iter().filter(|lease| lease.is_on(interface)) {
        bound.ipv4 |= lease.address.is_ipv4();
        bound.ipv6 |= lease.address.is_ipv6();
        bound.any_mac |= lease.mac.is_none();
    }
    bound
}
