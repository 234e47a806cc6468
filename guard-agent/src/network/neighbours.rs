//! What the kernel knows of stations by itself: the host's neighbour tables, and where a bridge has learned
//! their MACs (its FDB). And what of a bridge's own list of MACs belongs to no link of this namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use guard_core::mac::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use super::{
    ask::ask,
    topology::{Bridge, View, called},
};

/// What the kernel calls a second in what it tells of neighbours (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// All that is known of neighbours at one moment.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    entries: Vec<Entry>,
    learned: Vec<Learned>,
    /// The MACs that bridges take frames for besides their own, by ifindex.
    taken: BTreeMap<u32, BTreeSet<Mac>>,
}

/// An entry of a neighbour table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    device: u32,
    address: IpAddr,
    mac: Mac,
    /// How long ago it was confirmed.
    age: Duration,
}

/// An entry of an FDB.
#[derive(Clone, Copy, Debug)]
struct Learned {
    bridge: u32,
    vlan: Option<u16>,
    mac: Mac,
    port: u32,
}

/// An entry of a neighbour table on a watched bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The bridge's ifindex.
    pub bridge: u32,
    /// The VLAN.
    pub vlan: u16,
    /// The host's device that the entry is of.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// The station's MAC.
    pub mac: Mac,
    /// The port behind which the bridge has learned it.
    pub port: Option<u32>,
    /// How long ago it was confirmed.
    pub age: Duration,
}

impl Neighbours {
    /// Reads the neighbour tables, and the FDBs of these bridges.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn read(bridges: &BTreeSet<u32>) -> io::Result<Self> {
        let mut all = Self::of_bridges(bridges)?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            all.entries.extend(dump(family, 0)?.iter().filter_map(entry));
        }
        Ok(all)
    }

    /// Reads the FDBs alone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn of_bridges(bridges: &BTreeSet<u32>) -> io::Result<Self> {
        let mut all = Self::default();
        for bridge in bridges {
            let fdb = match dump(AddressFamily::Bridge, *bridge) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => continue,
                fdb => fdb?,
            };
            all.learned.extend(fdb.iter().filter_map(|message| learned(message, *bridge)));
            let taken = fdb.iter().filter_map(|message| taken(message, *bridge)).collect();
            all.taken.insert(*bridge, taken);
        }
        Ok(all)
    }

    /// The entries on the watched bridges.
    pub(crate) fn on(&self, view: &View) -> Vec<Known> {
        let devices: BTreeMap<u32, (&Bridge, u16)> = view
            .bridges
            .values()
            .flat_map(|bridge| bridge.devices.iter().map(move |(vlan, on)| (*on, (bridge, *vlan))))
            .collect();
        let known = self.entries.iter().filter_map(|Entry { device, address, mac, age }| {
            let (bridge, vlan) = *devices.get(device)?;
            let is_there = |learned: &&Learned| {
                let Some(port) = view.ports.get(&learned.port) else { return false };
                let native = port.vlans.as_ref().map_or(0, |vlans| vlans.native);
                (learned.bridge, learned.mac) == (bridge.ifindex, *mac)
                    && learned.vlan.is_none_or(|id| called(id, native) == vlan)
            };
            let port = self.learned.iter().find(is_there).map(|learned| learned.port);
            let (bridge, device) = (bridge.ifindex, *device);
            Some(Known { bridge, vlan, device, address: *address, mac: *mac, port, age: *age })
        });
        known.collect()
    }

    /// The MACs for which a bridge takes frames, and that no link of this namespace has: those of its
    /// macvlans in others.
    pub(crate) fn macvlans_elsewhere(&self, bridge: u32, here: &BTreeSet<Mac>) -> BTreeSet<Mac> {
        let taken = self.taken.get(&bridge).into_iter().flatten();
        taken.filter(|mac| !here.contains(mac)).copied().collect()
    }
}

/// Has the kernel ask a neighbour whether it is there (RFC 4861 §7.3.3, and ARP likewise): at its MAC
/// first.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn have_asked(device: u32, address: IpAddr, Mac(mac): Mac) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    (message.header.family, message.header.ifindex) = (family, device);
    message.header.state = NeighbourState::Probe;
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_REPLACE).map(drop)
}

fn dump(family: AddressFamily, device: u32) -> io::Result<Vec<NeighbourMessage>> {
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex) = (family, device);
    let answers = ask(RouteNetlinkMessage::GetNeighbour(message), NLM_F_DUMP)?;
    let neighbours = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
        _ => None,
    });
    Ok(neighbours.collect())
}

fn entry(message: &NeighbourMessage) -> Option<Entry> {
    let is_fixed = message.header.state == NeighbourState::Permanent;
    let is_known = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
    );
    let age = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::CacheInfo(info) => Some(TICK * info.confirmed),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some((*address).into())
        }
        _ => None,
    })?;
    // Whoever made a fixed one has confirmed it.
    let age = if is_fixed { Some(Duration::ZERO) } else { age.filter(|_| is_known) }?;
    Some(Entry { device: message.header.ifindex, address, mac: mac(message)?, age })
}

/// A station that a bridge has learned. Its own MACs and those of its ports are permanent.
fn learned(message: &NeighbourMessage, bridge: u32) -> Option<Learned> {
    let is_of = message.attributes.contains(&NeighbourAttribute::Controller(bridge));
    let is_station = is_of && message.header.state != NeighbourState::Permanent;
    let vlan = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Vlan(id) => Some(*id),
        _ => None,
    });
    let mac = mac(message).filter(|_| is_station)?;
    Some(Learned { bridge, vlan, mac, port: message.header.ifindex })
}

fn taken(message: &NeighbourMessage, bridge: u32) -> Option<Mac> {
    let header = &message.header;
    let is_own = header.ifindex == bridge && header.flags.contains(NeighbourFlags::Own);
    mac(message).filter(|mac| is_own && mac.is_host())
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes[..].try_into().ok().map(Mac),
        _ => None,
    })
}
