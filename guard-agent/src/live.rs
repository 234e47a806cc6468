//! The live set: what is in use now, by address and source, answered from memory.
//!
//! Fed by the observer, read by the lease engine and the API. A claim lasts as long as its port
//! exists, or until the observer has seen it age out; nothing here reads a clock or the kernel.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;

use crate::{
    clock,
    evidence::{Evidence, EvidenceView, Source, Station},
    inventory::Listings,
    lease::Owner,
    segment::Segment,
};

/// How strongly a frame speaks, in the words of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// The address was the source of a packet.
    Use,
    /// The protocol says that the address is at the MAC.
    Assert,
}

impl Strength {
    fn detail(self) -> &'static str {
        match self {
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

/// A port of a watched bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// Its name.
    pub interface: Arc<str>,
    /// The bridge it belongs to.
    pub bridge: Arc<str>,
    /// It leads to other hosts.
    pub uplink: bool,
}

/// What is in use now.
#[derive(Debug, Default)]
pub struct LiveSet(RwLock<Inner>, Listings);

#[derive(Debug, Default)]
struct Inner {
    claims: BTreeMap<(Segment, IpAddr), Vec<Claim>>,
    by_port: HashMap<u32, HashSet<(Segment, IpAddr)>>,
    ports: HashMap<u32, PortName>,
    hosts: HashMap<Arc<str>, BTreeSet<(u16, IpAddr)>>,
    /// The names of every link of the namespace, alternative ones included.
    links: HashMap<u32, Vec<String>>,
    /// Who has a name. While two are renamed it can be both.
    names: HashMap<String, HashSet<u32>>,
}

impl LiveSet {
    /// What the inventory and the controller list.
    pub fn listings(&self) -> &Listings {
        &self.1
    }

    /// A claim was seen. True if the address was not live by this station before.
    ///
    /// An address has one claim from each port, that of the MAC seen last: a port cannot make the
    /// set grow by changing MACs, nor crowd out the claim of another port.
    pub fn claimed(&self, segment: &Segment, address: IpAddr, claim: Claim) -> bool {
        let inner = &mut *self.0.write();
        let ifindex = claim.station.ifindex;
        if !inner.ports.contains_key(&ifindex) {
            return false; // Its port is gone: what it said is over.
        }
        let claims = inner.claims.entry((segment.clone(), address)).or_default();
        match claims.iter_mut().find(|known| known.station.ifindex == ifindex) {
            Some(known) if known.station.mac == claim.station.mac => {
                known.seen = known.seen.max(claim.seen);
                known.strength = known.strength.max(claim.strength);
                false
            }
            Some(known) => {
                *known = claim;
                true
            }
            None => {
                claims.push(claim);
                inner.by_port.entry(ifindex).or_default().insert((segment.clone(), address));
                true
            }
        }
    }

    /// The claim from a port is over: it aged out, or its holder moved.
    pub fn withdraw(&self, segment: &Segment, address: IpAddr, ifindex: u32) {
        self.0.write().withdraw(&(segment.clone(), address), ifindex);
    }

    /// A port exists, or has another name now.
    pub fn port_added(&self, ifindex: u32, port: PortName) {
        self.0.write().ports.insert(ifindex, port);
    }

    /// A port is gone, and with it all that was claimed behind it. Gives back those addresses.
    pub fn port_gone(&self, ifindex: u32) -> Vec<(Segment, IpAddr)> {
        let inner = &mut *self.0.write();
        inner.ports.remove(&ifindex);
        let keys = inner.by_port.remove(&ifindex).unwrap_or_default();
        for key in &keys {
            inner.withdraw(key, ifindex);
        }
        keys.into_iter().collect()
    }

    /// The host's own addresses on a bridge, each with its VLAN, from netlink.
    pub fn set_host_addresses(&self, bridge: &Arc<str>, addresses: BTreeSet<(u16, IpAddr)>) {
        self.0.write().hosts.insert(bridge.clone(), addresses);
    }

    /// A link has these names now; none if it is gone.
    pub fn set_link(&self, ifindex: u32, names: Vec<String>) {
        self.0.write().set_link(ifindex, names);
    }

    /// A link was found to have this name as well, before any notice of it.
    pub fn add_name(&self, ifindex: u32, name: &str) {
        let inner = &mut *self.0.write();
        let mut names = inner.links.get(&ifindex).cloned().unwrap_or_default();
        names.push(name.to_owned());
        inner.set_link(ifindex, names);
    }

    /// There are these links and no others.
    pub fn set_links(&self, links: impl IntoIterator<Item = (u32, Vec<String>)>) {
        let inner = &mut *self.0.write();
        inner.links.clear();
        inner.names.clear();
        for (ifindex, names) in links {
            inner.set_link(ifindex, names);
        }
    }

    /// The port with this ifindex.
    pub fn port(&self, ifindex: u32) -> Option<PortName> {
        self.0.read().ports.get(&ifindex).cloned()
    }

    /// All claims, or those on one bridge, in order of their addresses.
    pub fn claims(&self, bridge: Option<&str>) -> Vec<(Segment, IpAddr, Vec<Claim>)> {
        let inner = self.0.read();
        inner
            .claims
            .iter()
            .filter(|((segment, _), _)| bridge.is_none_or(|bridge| *segment.bridge == *bridge))
            .map(|((segment, address), claims)| (segment.clone(), *address, claims.clone()))
            .collect()
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
        let inner = self.0.read();
        let places = inner.claims.range((from, Bound::Unbounded)).map(|(place, _)| place);
        places
            .take_while(|(segment, _)| bridge.is_none_or(|bridge| segment.bridge == *bridge))
            .take(most)
            .cloned()
            .collect()
    }

    /// How many addresses claim to be behind a port.
    pub fn addresses_behind(&self, ifindex: u32) -> usize {
        self.0.read().by_port.get(&ifindex).map_or(0, HashSet::len)
    }

    /// How many addresses of a bridge are live by the wire, and how many are the host's.
    pub fn count(&self, bridge: &str) -> (usize, usize) {
        let inner = self.0.read();
        let wire = inner.claims.keys().filter(|(segment, _)| *segment.bridge == *bridge).count();
        (wire, inner.hosts.get(bridge).map_or(0, BTreeSet::len))
    }
}

impl Inner {
    fn set_link(&mut self, ifindex: u32, names: Vec<String>) {
        for name in self.links.remove(&ifindex).unwrap_or_default() {
            if let Some(having) = self.names.get_mut(&name) {
                having.remove(&ifindex);
                if having.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for name in &names {
            self.names.entry(name.clone()).or_default().insert(ifindex);
        }
        if !names.is_empty() {
            self.links.insert(ifindex, names);
        }
    }

    fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        let hosts = self.hosts.get(&segment.bridge);
        hosts.is_some_and(|hosts| hosts.contains(&(segment.vlan, address)))
    }

    fn withdraw(&mut self, key: &(Segment, IpAddr), ifindex: u32) {
        let Some(claims) = self.claims.get_mut(key) else { return };
        claims.retain(|claim| claim.station.ifindex != ifindex);
        if claims.is_empty() {
            self.claims.remove(key);
        }
        if let Some(keys) = self.by_port.get_mut(&ifindex) {
            keys.remove(key);
        }
    }
}

impl EvidenceView for LiveSet {
    fn evidence(&self, segment: &Segment, address: IpAddr) -> Vec<Evidence> {
        let inner = self.0.read();
        let mut evidence = Vec::new();
        let is_host = inner.is_host(segment, address);
        if let Some(claims) = inner.claims.get(&(segment.clone(), address)) {
            let now = clock::Now::read();
            let monotonic = clock::monotonic();
            evidence.extend(claims.iter().map(|claim| wire(claim, now, monotonic)));
        }
        if is_host {
            evidence.push(Evidence {
                source: Source::Kernel,
                detail: format!("address of the host on {segment}"),
                mac: None,
                interface: Some(segment.bridge.clone()),
                ifindex: None,
                owner: None,
                since: clock::Now::read().wall,
                age: Duration::ZERO,
            });
        }
        drop(inner);
        // A label names an address and no segment: it counts wherever the address can be.
        evidence.extend(self.1.of_address(address));
        evidence
    }

    fn addresses(&self, segment: &Segment) -> Vec<IpAddr> {
        let inner = self.0.read();
        let first = (segment.clone(), IpAddr::from([0; 4]));
        inner
            .claims
            .range(first..)
            .take_while(|((other, _), _)| other == segment)
            .map(|((_, address), _)| *address)
            .chain(self.1.addresses())
            .collect()
    }

    fn owner(&self, owner: &Owner) -> Vec<Evidence> {
        self.1.of_owner(owner)
    }

    fn is_live(&self, segment: &Segment, address: IpAddr) -> bool {
        let of_node = {
            let inner = self.0.read();
            inner.claims.contains_key(&(segment.clone(), address))
                || inner.is_host(segment, address)
        };
        of_node || self.1.names(address)
    }

    fn knows(&self, owner: &Owner) -> bool {
        self.1.knows(owner)
    }

    fn port_exists(&self, ifindex: u32) -> bool {
        self.0.read().ports.contains_key(&ifindex)
    }

    fn link_exists(&self, name: &str) -> bool {
        self.0.read().names.contains_key(name)
    }
}

fn wire(claim: &Claim, now: clock::Now, monotonic: Duration) -> Evidence {
    let Claim { station: Station { mac, interface, ifindex }, strength, first, seen } = claim;
    let since = monotonic.saturating_sub(*first);
    Evidence {
        source: Source::Wire,
        detail: strength.detail().to_owned(),
        mac: Some(*mac),
        interface: Some(interface.clone()),
        ifindex: Some(*ifindex),
        owner: None,
        since: now.wall.checked_sub(since).unwrap_or(now.wall),
        age: monotonic.saturating_sub(*seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::Mac;

    fn claim(ifindex: u32, mac: u8) -> Claim {
        let station = Station { mac: Mac([2, 0, 0, 0, 0, mac]), interface: "veth".into(), ifindex };
        Claim { station, strength: Strength::Use, first: Duration::ZERO, seen: Duration::ZERO }
    }

    fn set_with_port(ifindex: u32) -> LiveSet {
        let set = LiveSet::default();
        set.port_added(
            ifindex,
            PortName { interface: "veth".into(), bridge: "rt0".into(), uplink: false },
        );
        set
    }

    #[test]
    fn a_claim_lasts_as_long_as_its_port() {
        let set = set_with_port(7);
        let (segment, address) = (Segment::new("rt0", 0), IpAddr::from([10, 0, 0, 2]));
        assert!(set.claimed(&segment, address, claim(7, 1)));
        assert!(!set.claimed(&segment, address, claim(7, 1)), "known already");
        assert_eq!(set.evidence(&segment, address).len(), 1);
        assert!(set.is_live(&segment, address));
        assert_eq!(set.addresses(&segment), [address]);
        assert_eq!(set.port_gone(7), [(segment.clone(), address)]);
        assert!(set.evidence(&segment, address).is_empty());
        assert!(!set.is_live(&segment, address));
        assert!(!set.claimed(&segment, address, claim(7, 1)), "no port, no claim");
        assert!(set.addresses(&segment).is_empty());
    }

    #[test]
    fn evidence_counts_for_its_own_segment_only() {
        let set = set_with_port(7);
        let address = IpAddr::from([10, 0, 0, 2]);
        set.claimed(&Segment::new("rt0", 0), address, claim(7, 1));
        assert!(set.evidence(&Segment::new("rt0", 5), address).is_empty());
        assert!(set.evidence(&Segment::new("rt1", 0), address).is_empty());
        assert!(set.addresses(&Segment::new("rt", 0)).is_empty());
    }

    #[test]
    fn a_port_has_one_claim_of_an_address_and_leaves_the_others_alone() {
        let set = set_with_port(7);
        set.port_added(
            8,
            PortName { interface: "other".into(), bridge: "rt0".into(), uplink: false },
        );
        let (segment, address) = (Segment::new("rt0", 0), IpAddr::from([10, 0, 0, 2]));
        assert!(set.claimed(&segment, address, claim(7, 1)));
        assert!(set.claimed(&segment, address, claim(8, 2)));
        assert!(set.claimed(&segment, address, claim(7, 3)), "another MAC is news");
        assert_eq!(set.evidence(&segment, address).len(), 2);
        set.withdraw(&segment, address, 8);
        assert_eq!(set.evidence(&segment, address)[0].mac, Some(Mac([2, 0, 0, 0, 0, 3])));
        set.port_gone(7);
        assert!(set.evidence(&segment, address).is_empty());
    }

    #[test]
    fn a_name_is_taken_as_long_as_some_link_has_it() {
        let set = LiveSet::default();
        set.set_links([(2, vec!["veth0".to_owned(), "long-name".to_owned()])]);
        assert!(set.link_exists("veth0") && set.link_exists("long-name"));
        // Another takes the name before the first is known to have lost it.
        set.set_link(3, vec!["veth0".to_owned()]);
        set.set_link(2, vec!["veth9".to_owned()]);
        assert!(set.link_exists("veth0") && !set.link_exists("long-name"));
        set.add_name(3, "late");
        assert!(set.link_exists("veth0") && set.link_exists("late"));
        set.set_link(3, Vec::new());
        assert!(!set.link_exists("late"));
        assert!(!set.link_exists("veth0") && set.link_exists("veth9"));
        set.set_links([]);
        assert!(!set.link_exists("veth9"));
    }

    #[test]
    fn an_address_of_the_host_is_evidence() {
        let set = LiveSet::default();
        let (segment, address) = (Segment::new("rt0", 0), IpAddr::from([10, 0, 0, 1]));
        assert!(!set.is_live(&segment, address));
        set.set_host_addresses(&segment.bridge, BTreeSet::from([(0, address)]));
        assert_eq!(set.evidence(&segment, address)[0].source, Source::Kernel);
        assert!(set.is_live(&segment, address));
        assert!(!set.is_live(&Segment::new("rt0", 5), address), "it is in another segment");
    }
}
