//! What the wire and the kernel show: claims, ports, links and the host's own addresses.
//!
//! A claim lasts as long as its port exists, or until it is withdrawn because it aged out.

mod links;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use self::links::Link;
use super::{Device, Evidence, Inventory, PortName, Source, Station};
use crate::{mac::Mac, segment::Segment, time::Now};

/// How strongly a frame speaks, in the words of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// No frame was seen: the host's neighbour table has it.
    Neighbour,
    /// The address was the source of a packet.
    Use,
    /// The protocol says that the address is at the MAC.
    Assert,
}

impl Strength {
    fn source(self) -> Source {
        if self == Self::Neighbour { Source::Kernel } else { Source::Wire }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Neighbour => "in the host's neighbour table",
            Self::Use => "source of a packet",
            Self::Assert => "claimed by ARP",
        }
    }
}

/// One station's claim of one address. Times are `CLOCK_MONOTONIC`, as the program stamps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who claims it.
    pub station: Station,
    /// The strongest claim so far.
    pub strength: Strength,
    /// The first frame.
    pub first: Duration,
    /// The last one that was stored.
    pub seen: Duration,
}

impl Claim {
    fn is_first_frame(&self, next: &Self) -> bool {
        self.strength == Strength::Neighbour && next.strength > self.strength
    }
}

/// The host's own addresses on a bridge, each with its VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// Those of the bridge, of VLAN devices and of macvlans on it.
    pub here: BTreeSet<(u16, IpAddr)>,
    /// Those of other devices, for which the host may answer here as well.
    pub elsewhere: BTreeSet<(u16, IpAddr)>,
}

/// What is in use now by the wire and the kernel, and where listed addresses can be.
#[derive(Debug, Default)]
pub struct Live {
    claims: BTreeMap<(Segment, IpAddr), Vec<Claim>>,
    by_port: HashMap<u32, HashSet<(Segment, IpAddr)>>,
    /// An address of each station, by port and MAC.
    by_station: HashMap<(u32, Mac), (Segment, IpAddr)>,
    ports: HashMap<u32, PortName>,
    /// The VLANs that ports are in, where their bridge filters them.
    port_vlans: HashMap<u32, BTreeSet<u16>>,
    /// The ports by bridge and name.
    port_names: HashMap<(Arc<str>, Arc<str>), u32>,
    hosts: HashMap<Arc<str>, HostAddresses>,
    /// What macvlans over bridges have in other network namespaces, each with its MAC.
    above: HashMap<Arc<str>, BTreeMap<(u16, IpAddr), Mac>>,
    /// Every link of the namespace.
    links: HashMap<u32, Link>,
    /// Those with their other end in a namespace.
    by_netns: HashMap<i32, BTreeSet<u32>>,
    /// Who has a name. While two are renamed it can be both.
    names: HashMap<String, HashSet<u32>>,
    /// The pools' prefixes.
    prefixes: Vec<(Segment, IpNet)>,
    /// Until when addresses are held back that somebody probes for.
    held_back: HashMap<(Segment, IpAddr), Duration>,
}

impl Live {
    /// A claim was seen. Returns whether the address was not live by this station before.
    ///
    /// An address has one claim from each port, that of the MAC seen last: a port cannot make the
    /// set grow by changing MACs, nor crowd out the claim of another port.
    pub fn claimed(&mut self, segment: &Segment, address: IpAddr, claim: Claim) -> bool {
        let ifindex = claim.station.ifindex;
        if !self.ports.contains_key(&ifindex) {
            return false; // Its port is gone: what it said is over.
        }
        let station = (ifindex, claim.station.mac);
        self.by_station.entry(station).or_insert_with(|| (segment.clone(), address));
        let claims = self.claims.entry((segment.clone(), address)).or_default();
        match claims.iter_mut().find(|known| known.station.ifindex == ifindex) {
            // A first frame is news, whatever the host has known before it.
            Some(known)
                if known.station.mac == claim.station.mac && !known.is_first_frame(&claim) =>
            {
                known.seen = known.seen.max(claim.seen);
                known.strength = known.strength.max(claim.strength);
                false
            }
            Some(known) => {
                let before = (ifindex, std::mem::replace(known, claim).station.mac);
                if before != station {
                    self.by_station.remove(&before);
                }
                true
            }
            None => {
                claims.push(claim);
                self.by_port.entry(ifindex).or_default().insert((segment.clone(), address));
                true
            }
        }
    }

    /// The claim from a port is over: it aged out, or its holder moved.
    pub fn withdraw(&mut self, segment: &Segment, address: IpAddr, ifindex: u32) {
        self.withdraw_key(&(segment.clone(), address), ifindex);
    }

    fn withdraw_key(&mut self, key: &(Segment, IpAddr), ifindex: u32) {
        let Some(claims) = self.claims.get_mut(key) else { return };
        for over in claims.extract_if(.., |claim| claim.station.ifindex == ifindex) {
            let station = (ifindex, over.station.mac);
            if self.by_station.get(&station) == Some(key) {
                self.by_station.remove(&station);
            }
        }
        if claims.is_empty() {
            self.claims.remove(key);
        }
        if let Some(keys) = self.by_port.get_mut(&ifindex) {
            keys.remove(key);
        }
    }

    /// An address is held back until then, on `CLOCK_MONOTONIC`: somebody probes for it.
    pub fn hold_back(&mut self, segment: Segment, address: IpAddr, until: Duration, now: Duration) {
        self.held_back.retain(|_, until| *until > now);
        self.held_back.insert((segment, address), until);
    }

    /// For how long an address is held back still. `now` is asked for only where one is.
    pub fn held_back(
        &self,
        segment: &Segment,
        address: IpAddr,
        now: impl FnOnce() -> Duration,
    ) -> Option<Duration> {
        if self.held_back.is_empty() {
            return None;
        }
        let until = self.held_back.get(&(segment.clone(), address))?;
        until.checked_sub(now()).filter(|rest| !rest.is_zero())
    }

    /// The host's own addresses on a bridge, each with its VLAN.
    pub fn set_host_addresses(&mut self, bridge: &Arc<str>, addresses: HostAddresses) {
        self.hosts.insert(Arc::clone(bridge), addresses);
    }

    /// What macvlans over a bridge have in other network namespaces, with their VLANs and MACs.
    pub fn set_above(&mut self, bridge: &Arc<str>, above: BTreeMap<(u16, IpAddr), Mac>) {
        self.above.insert(Arc::clone(bridge), above);
    }

    /// The MAC of the macvlan over the bridge that has an address.
    pub fn above(&self, segment: &Segment, address: IpAddr) -> Option<Mac> {
        let above = self.above.get(&segment.bridge).filter(|_| segment.inner_vlan == 0)?;
        above.get(&(segment.vlan, address)).copied()
    }

    /// All claims, or those on one bridge, in order of their addresses.
    pub fn claims(&self, bridge: Option<&str>) -> Vec<(Segment, IpAddr, Vec<Claim>)> {
        self.claims
            .iter()
            .filter(|((segment, _), _)| bridge.is_none_or(|bridge| *segment.bridge == *bridge))
            .map(|((segment, address), claims)| (segment.clone(), *address, claims.clone()))
            .collect()
    }

    /// The claims on one address.
    pub fn claims_on(&self, segment: &Segment, address: IpAddr) -> Vec<Claim> {
        self.claims.get(&(segment.clone(), address)).cloned().unwrap_or_default()
    }

    /// An address that a station has claimed, if it has.
    pub fn address_of(&self, mac: Mac, ifindex: u32) -> Option<(Segment, IpAddr)> {
        self.by_station.get(&(ifindex, mac)).cloned()
    }

    /// The places with claims after one of them, in order, at most so many: of one bridge, or of all.
    pub fn claimed_after(
        &self,
        bridge: Option<&Arc<str>>,
        after: Option<&(Segment, IpAddr)>,
        most: usize,
    ) -> Vec<(Segment, IpAddr)> {
        let first =
            bridge.map(|bridge| (Segment::new(Arc::clone(bridge), 0), IpAddr::from([0; 4])));
        let from = match (after, &first) {
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        let places = self.claims.range((from, Bound::Unbounded)).map(|(place, _)| place);
        places
            .take_while(|(segment, _)| bridge.is_none_or(|bridge| segment.bridge == *bridge))
            .take(most)
            .cloned()
            .collect()
    }

    /// The segments on which the wire or the kernel has an address.
    pub fn segments_of(&self, address: IpAddr) -> BTreeSet<Segment> {
        let claimed = self.claims.keys().filter(|(_, claimed)| *claimed == address);
        let claimed = claimed.map(|(segment, _)| segment.clone());
        let hosts = self.hosts.iter().flat_map(|(bridge, hosts)| {
            let has = hosts.all().filter(move |(_, host)| *host == address);
            has.map(|(vlan, _)| Segment::new(bridge.clone(), *vlan))
        });
        let above = self.above.iter().flat_map(|(bridge, above)| {
            let has = above.keys().filter(move |(_, had)| *had == address);
            has.map(|(vlan, _)| Segment::new(bridge.clone(), *vlan))
        });
        claimed.chain(hosts).chain(above).collect()
    }

    /// How many addresses claim to be behind a port.
    pub fn addresses_behind(&self, ifindex: u32) -> usize {
        self.by_port.get(&ifindex).map_or(0, HashSet::len)
    }

    /// How many addresses of a bridge are live by the wire, and how many are the host's.
    pub fn count(&self, bridge: &str) -> (usize, usize) {
        let wire = self.claims.keys().filter(|(segment, _)| *segment.bridge == *bridge).count();
        (wire, self.hosts.get(bridge).map_or(0, |hosts| hosts.here.len()))
    }

    /// All evidence that an address is in use, at that moment on the wall and boot clocks and on
    /// `CLOCK_MONOTONIC`.
    pub fn evidence(
        &self,
        inventory: &Inventory,
        segment: &Segment,
        address: IpAddr,
        now: Now,
        monotonic: Duration,
    ) -> Vec<Evidence> {
        let claims = self.claims.get(&(segment.clone(), address)).into_iter().flatten();
        let mut evidence: Vec<_> = claims.map(|claim| self.wire(claim, now, monotonic)).collect();
        let kernel = |detail, mac, interface| Evidence {
            source: Source::Kernel,
            detail,
            mac,
            interface,
            ifindex: None,
            owner: None,
            id: None,
            unsure: false,
            since: now.wall,
            age: Duration::ZERO,
        };
        if let Some(here) = self.host(segment, address) {
            let of = if here { Some(segment.clone()) } else { self.home(address) };
            let on = of.as_ref().map_or_else(|| "another device".to_owned(), Segment::to_string);
            let detail = format!("address of the host on {on}");
            evidence.push(kernel(detail, None, of.map(|of| of.bridge)));
        }
        if let Some(mac) = self.above(segment, address) {
            let detail =
                format!("address of a macvlan over {segment} in another network namespace");
            evidence.push(kernel(detail, Some(mac), Some(segment.bridge.clone())));
        }
        evidence.extend(self.listed_on(inventory, segment, address, now));
        evidence
    }

    /// All addresses of a segment with current evidence.
    pub fn addresses(&self, inventory: &Inventory, segment: &Segment) -> Vec<IpAddr> {
        let first = (segment.clone(), IpAddr::from([0; 4]));
        let claimed = self.claims.range(first..).take_while(|((of, _), _)| of == segment);
        let claimed = claimed.map(|((_, address), _)| *address);
        let listed = inventory.addresses().into_iter();
        claimed
            .chain(listed.filter(|address| self.is_listed_on(inventory, segment, *address)))
            .collect()
    }

    /// Whether there is any evidence that an address is in use.
    pub fn is_live(&self, inventory: &Inventory, segment: &Segment, address: IpAddr) -> bool {
        self.claims.contains_key(&(segment.clone(), address))
            || self.is_host(segment, address)
            || self.above(segment, address).is_some()
            || self.is_listed_on(inventory, segment, address)
    }

    /// The host's own addresses on a segment.
    pub fn hosts(&self, segment: &Segment) -> Vec<IpAddr> {
        let all = self.hosts.get(&segment.bridge).into_iter().flat_map(HostAddresses::all);
        all.filter(|(vlan, _)| Segment::new(segment.bridge.clone(), *vlan) == *segment)
            .map(|(_, address)| *address)
            .collect()
    }

    /// Whether the host has an address, here or elsewhere.
    pub fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        self.host(segment, address).is_some()
    }

    /// Whether an address of the host is one here.
    fn host(&self, segment: &Segment, address: IpAddr) -> Option<bool> {
        let hosts = self.hosts.get(&segment.bridge).filter(|_| segment.inner_vlan == 0)?;
        let place = (segment.vlan, address);
        let here = hosts.here.contains(&place);
        (here || hosts.elsewhere.contains(&place)).then_some(here)
    }

    /// The watched segment on which an address is the host's own.
    fn home(&self, address: IpAddr) -> Option<Segment> {
        let all = self.hosts.iter().flat_map(|(bridge, hosts)| {
            let of = hosts.here.iter().filter(move |(_, host)| *host == address);
            of.map(|(vlan, _)| Segment::new(Arc::clone(bridge), *vlan))
        });
        all.min()
    }

    fn wire(&self, claim: &Claim, now: Now, monotonic: Duration) -> Evidence {
        let Claim { station: Station { mac, interface, ifindex }, strength, first, seen } = claim;
        let since = monotonic.saturating_sub(*first);
        Evidence {
            source: strength.source(),
            detail: strength.detail().to_owned(),
            mac: Some(*mac),
            interface: Some(self.name_now(*ifindex).unwrap_or_else(|| Arc::clone(interface))),
            ifindex: Some(*ifindex),
            owner: None,
            id: None,
            unsure: false,
            since: now.wall.checked_sub(since).unwrap_or(now.wall),
            age: monotonic.saturating_sub(*seen),
        }
    }
}

impl HostAddresses {
    fn all(&self) -> impl Iterator<Item = &(u16, IpAddr)> {
        self.here.iter().chain(&self.elsewhere)
    }
}
