//! Reading the maps anew: at boot, from time to time, and after any loss. The maps are the truth,
//! the ring is only a hint.

use std::{
    collections::{self, HashSet},
    path::Path,
};

use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use guard_ebpf::abi::{
    self, AddressKey, CLAIM_RESERVED, Challenger, ChallengerKey, EVENT_BRIDGE_MAC, EVENT_CLONE,
    Event, LAYOUT_VERSION, Live, MAX_LIVE, MAX_MACS, MacHolder, MacKey, Owned, PortMac, Prefix,
};

use super::{entries, mac_keys};

/// All that the program has noted.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// First claimants of addresses that have no declared owner.
    pub live: Vec<(AddressKey, Live)>,
    /// Owners that were heard.
    pub owned: Vec<(AddressKey, Owned)>,
    /// What each port has in the maps, by ifindex.
    pub used: collections::HashMap<u32, Used>,
    /// Those who claim what another has.
    pub challengers: Vec<(ChallengerKey, Challenger)>,
    /// The events of MACs on a second port, as the program told them, or had no room to.
    pub clones: Vec<Event>,
    /// A map that the program inserts into has no room.
    pub full: bool,
}

/// What a port has in the maps, of what it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Live addresses that nobody owns.
    pub addresses: u32,
    /// Challengers.
    pub challengers: u32,
    /// Addresses of the gateway or the host that it claims.
    pub reserved: u32,
}

/// Reads the maps through handles of its own, so that a thread can do it while the observer goes on
/// draining the ring.
///
/// # Errors
/// A pin is gone: someone has removed it.
pub(crate) fn read(bpffs: &Path) -> Result<Snapshot, MapError> {
    let pins = bpffs.join(format!("v{LAYOUT_VERSION}"));
    let live = map::<AddressKey, Live>(&pins, abi::MAP_LIVE)?;
    let owned = map::<AddressKey, Owned>(&pins, abi::MAP_OWNED)?;
    let challengers = map::<ChallengerKey, Challenger>(&pins, abi::MAP_CHALLENGERS)?;
    let live = entries(&live)?;
    let mut owned = entries(&owned)?;
    owned.retain(|(_, owned)| owned.flags != 0);
    let owned_keys: HashSet<_> = owned.iter().map(|(key, _)| *key).collect();
    let mut used = collections::HashMap::<u32, Used>::new();
    // What a rule leaves to some counts for nobody's quota.
    let prefixes = LpmTrie::<_, AddressKey, Prefix>::try_from(open(&pins, abi::MAP_PREFIXES)?)?;
    let is_declared = |key: &AddressKey| {
        let prefix = prefixes.get(&Key::new(AddressKey::FULL_LEN, *key), 0);
        prefix.is_ok_and(|prefix| prefix.declared != 0)
    };
    let of_nobody = |key: &AddressKey| !owned_keys.contains(key) && !is_declared(key);
    for (_, live) in live.iter().filter(|(key, _)| of_nobody(key)) {
        used.entry(live.ifindex).or_default().addresses += 1;
    }
    owned.retain(|(_, owned)| owned.seen_ns != 0);
    let macs = map::<MacKey, MacHolder>(&pins, abi::MAP_MACS)?;
    let challengers = entries(&challengers)?;
    for (ChallengerKey { ifindex, mac, .. }, Challenger { flags, .. }) in &challengers {
        let used = used.entry(*ifindex).or_default();
        if flags & CLAIM_RESERVED == 0 {
            used.challengers += 1;
        } else if *mac != [0; 6] {
            used.reserved += 1;
        }
    }
    let clones = challengers.iter().filter_map(|(key, challenger)| clone(key, challenger, &macs));
    let clones = clones.collect();
    let full = |entries: usize, room: u32| u32::try_from(entries).is_ok_and(|many| many >= room);
    let full = full(live.len(), MAX_LIVE) || full(entries(&macs)?.len(), MAX_MACS);
    Ok(Snapshot { live, owned, used, challengers, clones, full })
}

/// The owners, through a handle of its own.
///
/// # Errors
/// As [`read`].
pub(crate) fn owned(bpffs: &Path) -> Result<collections::HashMap<AddressKey, Owned>, MapError> {
    let pins = bpffs.join(format!("v{LAYOUT_VERSION}"));
    Ok(entries(&map::<AddressKey, Owned>(&pins, abi::MAP_OWNED)?)?.into_iter().collect())
}

/// The MACs that live on ports, and those that bindings name there.
pub(crate) struct BoundThere {
    pub(crate) macs: collections::HashMap<MacKey, MacHolder>,
    pub(crate) stations: HashSet<PortMac>,
}

/// What the kernel has of them, through a handle of its own.
///
/// # Errors
/// As [`read`].
pub(crate) fn bound(bpffs: &Path) -> Result<BoundThere, MapError> {
    let pins = bpffs.join(format!("v{LAYOUT_VERSION}"));
    let macs = entries(&map::<MacKey, MacHolder>(&pins, abi::MAP_MACS)?)?.into_iter().collect();
    let stations = entries(&map::<PortMac, u32>(&pins, abi::MAP_BOUND_MACS)?)?;
    Ok(BoundThere { macs, stations: stations.into_iter().map(|(station, _)| station).collect() })
}

/// The event that a challenger was, if it was about a MAC that lives on another port still.
fn clone(
    challenger: &ChallengerKey,
    Challenger { seen_ns, strength, flags, about, .. }: &Challenger,
    macs: &HashMap<MapData, MacKey, MacHolder>,
) -> Option<Event> {
    let ChallengerKey { key, ifindex, mac, kind, .. } = *challenger;
    // The entry for all MACs of a port has none.
    let holder_ifindex = match kind {
        _ if mac == [0; 6] => return None,
        EVENT_BRIDGE_MAC => key.bridge,
        EVENT_CLONE => mac_keys(key, mac).iter().find_map(|key| macs.get(key, 0).ok())?.ifindex,
        _ => return None,
    };
    (holder_ifindex != ifindex).then_some(Event {
        time_ns: *seen_ns,
        key: *about,
        ifindex,
        holder_ifindex,
        mac,
        eth_src: mac,
        holder_mac: mac,
        kind,
        strength: *strength,
        flags: *flags,
        reserved: [0; 2],
    })
}

fn map<K: Pod, V: Pod>(pins: &Path, name: &str) -> Result<HashMap<MapData, K, V>, MapError> {
    HashMap::try_from(open(pins, name)?)
}

fn open(pins: &Path, name: &str) -> Result<Map, MapError> {
    Map::from_map_data(MapData::from_pin(pins.join(name))?)
}
