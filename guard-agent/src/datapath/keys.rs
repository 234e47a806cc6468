//! Keys of the maps that more than one room writes.

use guard_ebpf::abi::{AddressKey, MacKey};

/// The keys that a MAC may have: where the bridge filters VLANs, and where it does not. There are no
/// others of it in the map.
pub(crate) fn mac_keys(AddressKey { bridge, vlan, .. }: AddressKey, mac: [u8; 6]) -> [MacKey; 2] {
    [vlan, 0].map(|vlan| MacKey::new(bridge, vlan, mac))
}
