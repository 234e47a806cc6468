//! What is true of the machine, whatever the agent has read of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use guard_core::{
    evidence::{self, Claim, Death, Device, Entry, PortName, Station, Strength, Unread},
    lease::Place,
    mac::Mac,
    owner::Owner,
    segment::Segment,
};
use jiff::Timestamp;

/// The bridges; each has a pool with the same prefix.
pub(super) const BRIDGES: [&str; 2] = ["br0", "br1"];

/// A link that never comes again: what has its number or its name later is another one.
pub(super) type Serial = u64;

/// A link of the namespace.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub serial: Serial,
    pub name: u8,
    pub bridge: Option<u8>,
}

/// What others list: containers, or sandboxes of the directory.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub owner: Owner,
    /// A label names it.
    pub address: Option<IpAddr>,
    pub dead: bool,
    /// Since when there has been such an entry, on `CLOCK_BOOTTIME`.
    pub since: Duration,
    /// The same by the wall clock.
    pub wall: Timestamp,
}

/// A sandbox that runs with an address that was handed out to it.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    pub owner: Owner,
    pub place: Place,
    pub generation: u64,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    /// By interface number.
    pub links: BTreeMap<u32, Link>,
    pub absent: [bool; 2],
    pub hosts: [BTreeSet<IpAddr>; 2],
    pub running: Vec<Sandbox>,
    /// What the program in the kernel has noted: who claims a place, by port.
    pub claims: BTreeMap<Place, BTreeMap<u32, Claim>>,
    /// The container runtime's, by a number of their own.
    pub containers: BTreeMap<u8, Listed>,
    /// The controller's own book.
    pub registered: BTreeMap<Owner, Listed>,
    /// The list that it gives, which follows the book at some time.
    pub index: BTreeMap<Owner, Listed>,
    serials: Serial,
}

pub(super) fn segment(bridge: u8) -> Segment {
    Segment::new(BRIDGES[usize::from(bridge)], 0)
}

pub(super) fn bridge_of(segment: &Segment) -> usize {
    BRIDGES.iter().position(|name| *name == &*segment.bridge).expect("one of the two")
}

/// The n-th address of a pool; some are reserved, some outside.
pub(super) fn address(n: u8, six: bool) -> IpAddr {
    let text = if six { format!("fd00::{:x}", n % 5) } else { format!("10.0.0.{n}") };
    text.parse().unwrap()
}

/// Of the pools of the tests.
pub(super) fn can_be_handed_out(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [10, 0, 0, last] => (2..=6).contains(&last),
            [_, _, _, last] => (2..=30).contains(&last),
        },
        IpAddr::V6(v6) => (2..=3).contains(&v6.segments()[7]),
    }
}

pub(super) fn owner((sandbox, run): (u8, u8)) -> Owner {
    Owner { sandbox: Arc::from(format!("s{sandbox}")), lifecycle: Arc::from(format!("{run}")) }
}

/// An owner of whom no lifecycle is said.
pub(super) fn any_run(sandbox: u8) -> Owner {
    Owner { lifecycle: Arc::from(""), ..owner((sandbox, 0)) }
}

pub(super) fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

pub(super) fn link_name(n: u8) -> Arc<str> {
    Arc::from(if n < 3 { format!("tap{n}") } else { format!("veth{}", n - 3) })
}

impl Node {
    pub(super) fn number_of(&self, serial: Serial) -> Option<u32> {
        self.links.iter().find(|(_, link)| link.serial == serial).map(|(number, _)| *number)
    }

    pub(super) fn named(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, link)| *link_name(link.name) == *name).map(|(n, _)| *n)
    }

    /// A link of another number and name is made.
    pub(super) fn add_link(&mut self, number: u32, name: u8, bridge: Option<u8>) -> bool {
        if self.links.contains_key(&number) || self.named(&link_name(name)).is_some() {
            return false;
        }
        self.serials += 1;
        let bridge = bridge.filter(|bridge| !self.absent[usize::from(*bridge)]);
        self.links.insert(number, Link { serial: self.serials, name, bridge });
        true
    }

    /// A link ends, with all that was claimed behind it.
    pub(super) fn remove_link(&mut self, number: u32) -> bool {
        for claims in self.claims.values_mut() {
            claims.remove(&number);
        }
        self.claims.retain(|_, claims| !claims.is_empty());
        self.links.remove(&number).is_some()
    }

    /// Its own addresses are on no VLAN.
    pub(super) fn host_has(&self, place: &Place) -> bool {
        place.segment.vlan == 0 && self.hosts[bridge_of(&place.segment)].contains(&place.address)
    }

    pub(super) fn device(&self, number: u32) -> Device {
        let serial = self.links[&number].serial;
        let [.., a, b] = serial.to_be_bytes();
        Device { mac: Some(Mac([6, 0, 0, 0, a, b])), peer: None, netns: None }
    }

    pub(super) fn port(&self, number: u32) -> Option<PortName> {
        let Link { name, bridge, serial: _ } = self.links.get(&number)?;
        let bridge = Arc::from(BRIDGES[usize::from((*bridge)?)]);
        Some(PortName { interface: link_name(*name), bridge, uplink: false })
    }

    /// A frame comes in on a port. Returns where it says that it is.
    pub(super) fn frame(
        &mut self,
        number: u32,
        address: IpAddr,
        mac: Mac,
        order: u64,
    ) -> Option<(Place, Claim)> {
        let bridge = self.links.get(&number)?.bridge?;
        let interface = self.port(number)?.interface;
        let station = Station { mac, interface, ifindex: number };
        let at = Duration::from_nanos(order);
        let claim = Claim { station, strength: Strength::Assert, first: at, seen: at };
        let place = Place { segment: segment(bridge), address };
        let known = self.claims.entry(place.clone()).or_default().entry(number);
        let known = known.and_modify(|known| {
            if known.station.mac == mac {
                known.seen = at;
            } else {
                *known = claim.clone();
            }
        });
        known.or_insert_with(|| claim.clone());
        Some((place, claim))
    }

    pub(super) fn forget_claim(&mut self, place: &Place, number: u32) {
        if let Some(claims) = self.claims.get_mut(place) {
            claims.remove(&number);
        }
        self.claims.retain(|_, claims| !claims.is_empty());
    }

    /// The entries that a source would list now.
    pub(super) fn containers_listed(&self) -> Vec<Entry> {
        let id = |n: &u8, listed: &Listed| format!("c{n}-{}", listed.since.as_nanos());
        self.containers.iter().map(|(n, listed)| entry(&id(n, listed), listed)).collect()
    }

    pub(super) fn index_listed(&self) -> Vec<Entry> {
        self.index.values().map(|listed| entry("", listed)).collect()
    }

    /// The machine starts again: links and frames are gone, and so is who ran. What the runtime and
    /// the directory know, they know still if they are of that kind.
    pub(super) fn reboot(&mut self, containers_stay: bool) {
        let Self { containers, registered, index, hosts, serials, .. } = std::mem::take(self);
        *self = Self { containers, registered, index, hosts, serials, ..Self::default() };
        if !containers_stay {
            self.containers.clear();
        }
        let listed = self.containers.values_mut().chain(self.registered.values_mut());
        for listed in listed.chain(self.index.values_mut()) {
            listed.since = Duration::ZERO;
        }
    }

    /// Nothing is left.
    pub(super) fn end_all(&mut self) {
        for number in self.links.keys().copied().collect::<Vec<_>>() {
            self.remove_link(number);
        }
        self.running.clear();
        self.containers.clear();
        self.registered.clear();
        self.index.clear();
        self.hosts = Default::default();
        self.absent = [false; 2];
    }
}

fn entry(id: &str, listed: &Listed) -> Entry {
    let Listed { owner, address, dead, since, wall } = listed;
    Entry {
        owner: owner.clone(),
        id: Arc::from(id),
        addresses: address.iter().copied().collect(),
        labelled: true,
        named: true,
        dead: dead.then_some(Death { listed: *since, at: None }),
        detail: Arc::from(format!("{id} {owner}")),
        since: *wall,
        place: evidence::Place::default(),
        unread: Unread::default(),
    }
}
