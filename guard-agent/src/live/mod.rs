//! The live set: what is in use now, by address and source, answered from memory.
//!
//! Fed by the observer, read by the lease engine and the API. A claim lasts as long as its port
//! exists, or until the observer has seen it age out; nothing here reads a clock or the kernel.

mod changes;
mod known;
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
use parking_lot::RwLock;

use self::known::Known;
pub use self::{
    changes::ChangeQueue,
    known::{Answered, EventStream},
};
pub use crate::evidence::PortName;
use crate::{
    clock,
    evidence::{Evidence, EvidenceView, Source, Station, Unknown},
    inventory::{Listing, Listings, News},
    lease::{Owner, model::Device},
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

/// What is in use now.
#[derive(Debug, Default)]
pub struct LiveSet {
    inner: RwLock<Inner>,
    listings: Listings,
    known: Known,
    /// The pools' prefixes.
    prefixes: RwLock<Vec<(Segment, IpNet)>>,
    changes: Arc<ChangeQueue>,
}

#[derive(Debug, Default)]
struct Inner {
    claims: BTreeMap<(Segment, IpAddr), Vec<Claim>>,
    by_port: HashMap<u32, HashSet<(Segment, IpAddr)>>,
    ports: HashMap<u32, PortName>,
    /// The VLANs that ports are in, where their bridge filters them.
    port_vlans: HashMap<u32, BTreeSet<u16>>,
    /// The ports by bridge and name.
    port_names: HashMap<(Arc<str>, Arc<str>), u32>,
    hosts: HashMap<Arc<str>, BTreeSet<(u16, IpAddr)>>,
    /// Every link of the namespace.
    links: HashMap<u32, Link>,
    /// Those with their other end in a namespace.
    by_netns: HashMap<i32, BTreeSet<u32>>,
    /// Who has a name. While two are renamed it can be both.
    names: HashMap<String, HashSet<u32>>,
}

/// A link of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    /// Its name, and alternative ones.
    names: Vec<String>,
    device: Device,
}

impl LiveSet {
    /// What the inventory and the controller list.
    pub fn listings(&self) -> &Listings {
        &self.listings
    }

    /// What the ledger has to look at again.
    pub fn changes(&self) -> &Arc<ChangeQueue> {
        &self.changes
    }

    /// The boot pass has ended: from now on absence may prove something.
    pub fn boot_pass_ended(&self) {
        if self.known.boot_pass_ended() {
            self.changes.tell(|changes| changes.known = true);
        }
    }

    /// A bridge is watched from now on, or is no more.
    pub fn set_watched(&self, bridge: &Arc<str>, watched: bool) {
        if self.known.bridge(bridge, watched) {
            self.changes.tell(|changes| changes.known = true);
        }
    }

    /// A configured source, and what its answers prove now.
    pub fn set_answered(&self, source: &'static str, answered: Answered) {
        self.known.source(source, answered);
        self.changes.tell(|changes| changes.known = true);
    }

    /// Takes an answer of a source over. Those addresses of which it says something else than before
    /// are looked at on each of these segments, since a label names none.
    pub fn listed(&self, source: Source, listing: &Listing, segments: &[Segment]) {
        let News { any, addresses } = self.listings.take(source, listing, clock::Now::read());
        if !any {
            return;
        }
        self.changes.tell(|changes| {
            changes.owners = true;
            for segment in segments {
                changes.places.extend(addresses.iter().map(|a| (segment.clone(), *a)));
            }
        });
    }

    /// A claim was seen. True if the address was not live by this station before; then the ledger
    /// looks at it once it is woken.
    ///
    /// An address has one claim from each port, that of the MAC seen last: a port cannot make the
    /// set grow by changing MACs, nor crowd out the claim of another port.
    pub fn claimed(&self, segment: &Segment, address: IpAddr, claim: Claim) -> bool {
        let new = self.inner.write().claimed(segment, address, claim);
        if new {
            self.mark(segment, address);
        }
        new
    }

    fn mark(&self, segment: &Segment, address: IpAddr) {
        self.changes.mark(|changes| {
            changes.places.insert((segment.clone(), address));
        });
    }

    /// The claim from a port is over: it aged out, or its holder moved.
    pub fn withdraw(&self, segment: &Segment, address: IpAddr, ifindex: u32) {
        self.inner.write().withdraw(&(segment.clone(), address), ifindex);
        self.changes.tell(|changes| {
            changes.places.insert((segment.clone(), address));
        });
    }

    /// A port exists, or has another name now.
    pub fn port_added(&self, ifindex: u32, port: PortName) {
        let netns = {
            let inner = &mut *self.inner.write();
            inner.forget_name(ifindex);
            let name = (port.bridge.clone(), port.interface.clone());
            inner.port_names.insert(name, ifindex);
            inner.ports.insert(ifindex, port);
            inner.netns(ifindex)
        };
        self.look_at_place(netns);
        self.changes.tell(|changes| {
            changes.ports.insert(ifindex);
        });
    }

    /// A port has left its bridge. What was claimed behind it stays until its link ends: it may come
    /// back, and whoever is behind it has the address still.
    ///
    /// Returns those addresses.
    pub fn port_left(&self, ifindex: u32) -> Vec<(Segment, IpAddr)> {
        let (netns, claimed) = {
            let inner = &mut *self.inner.write();
            inner.forget_name(ifindex);
            inner.ports.remove(&ifindex);
            let claimed = inner.by_port.get(&ifindex).into_iter().flatten().cloned();
            (inner.netns(ifindex), claimed.collect())
        };
        self.look_at_place(netns);
        claimed
    }

    /// A link has ended, and with it all that was claimed behind it. Returns those addresses. The next
    /// link with this ifindex is another one.
    pub fn link_ended(&self, ifindex: u32) -> Vec<(Segment, IpAddr)> {
        let (netns, keys) = {
            let inner = &mut *self.inner.write();
            let netns = inner.netns(ifindex);
            inner.forget_name(ifindex);
            inner.ports.remove(&ifindex);
            inner.port_vlans.remove(&ifindex);
            inner.set_link(ifindex, Link::default());
            let keys = inner.by_port.remove(&ifindex).unwrap_or_default();
            for key in &keys {
                inner.withdraw(key, ifindex);
            }
            (netns, keys)
        };
        self.look_at_place(netns);
        self.changes.tell(|changes| {
            changes.ended.insert(ifindex);
            changes.places.extend(keys.iter().cloned());
        });
        keys.into_iter().collect()
    }

    /// The host's own addresses on a bridge, each with its VLAN, from netlink.
    pub fn set_host_addresses(&self, bridge: &Arc<str>, addresses: BTreeSet<(u16, IpAddr)>) {
        self.inner.write().hosts.insert(bridge.clone(), addresses);
        self.changes.tell(|changes| changes.hosts = true);
    }

    /// All claims, or those on one bridge, in order of their addresses.
    pub fn claims(&self, bridge: Option<&str>) -> Vec<(Segment, IpAddr, Vec<Claim>)> {
        let inner = self.inner.read();
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
        let inner = self.inner.read();
        let places = inner.claims.range((from, Bound::Unbounded)).map(|(place, _)| place);
        places
            .take_while(|(segment, _)| bridge.is_none_or(|bridge| segment.bridge == *bridge))
            .take(most)
            .cloned()
            .collect()
    }

    /// How many addresses claim to be behind a port.
    pub fn addresses_behind(&self, ifindex: u32) -> usize {
        self.inner.read().by_port.get(&ifindex).map_or(0, HashSet::len)
    }

    /// How many addresses of a bridge are live by the wire, and how many are the host's.
    pub fn count(&self, bridge: &str) -> (usize, usize) {
        let inner = self.inner.read();
        let wire = inner.claims.keys().filter(|(segment, _)| *segment.bridge == *bridge).count();
        (wire, inner.hosts.get(bridge).map_or(0, BTreeSet::len))
    }
}

impl Inner {
    /// The namespace at a link's other end.
    fn netns(&self, ifindex: u32) -> Option<i32> {
        self.links.get(&ifindex)?.device.netns
    }

    fn claimed(&mut self, segment: &Segment, address: IpAddr, claim: Claim) -> bool {
        let inner = self;
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

    /// Replaces a link; one without a name is gone.
    fn set_link(&mut self, ifindex: u32, link: Link) {
        let before = self.links.remove(&ifindex).unwrap_or_default();
        if let Some(netns) = before.device.netns
            && let Some(links) = self.by_netns.get_mut(&netns)
        {
            links.remove(&ifindex);
            if links.is_empty() {
                self.by_netns.remove(&netns);
            }
        }
        if let Some(netns) = link.device.netns.filter(|_| !link.names.is_empty()) {
            self.by_netns.entry(netns).or_default().insert(ifindex);
        }
        for name in before.names {
            if let Some(having) = self.names.get_mut(&name) {
                having.remove(&ifindex);
                if having.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for name in &link.names {
            self.names.entry(name.clone()).or_default().insert(ifindex);
        }
        if !link.names.is_empty() {
            self.links.insert(ifindex, link);
        }
    }

    fn forget_name(&mut self, ifindex: u32) {
        if let Some(PortName { bridge, interface, .. }) = self.ports.get(&ifindex) {
            let name = (bridge.clone(), interface.clone());
            if self.port_names.get(&name) == Some(&ifindex) {
                self.port_names.remove(&name);
            }
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
        let inner = self.inner.read();
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
                id: None,
                unsure: false,
                since: clock::Now::read().wall,
                age: Duration::ZERO,
            });
        }
        drop(inner);
        evidence.extend(self.listed_on(segment, address));
        evidence
    }

    fn addresses(&self, segment: &Segment) -> Vec<IpAddr> {
        let first = (segment.clone(), IpAddr::from([0; 4]));
        let mut all: Vec<_> = {
            let inner = self.inner.read();
            let claimed = inner.claims.range(first..).take_while(|((of, _), _)| of == segment);
            claimed.map(|((_, address), _)| *address).collect()
        };
        let listed = self.listings.addresses().into_iter();
        all.extend(listed.filter(|address| self.is_listed_on(segment, *address)));
        all
    }

    fn owner(&self, owner: &Owner) -> Vec<Evidence> {
        self.listings.of_owner(owner)
    }

    fn is_live(&self, segment: &Segment, address: IpAddr) -> bool {
        let of_node = {
            let inner = self.inner.read();
            inner.claims.contains_key(&(segment.clone(), address))
                || inner.is_host(segment, address)
        };
        of_node || self.is_listed_on(segment, address)
    }

    fn knows(&self, owner: &Owner) -> bool {
        self.listings.knows(owner)
    }

    fn port_exists(&self, ifindex: u32) -> bool {
        let exists = {
            let inner = self.inner.read();
            inner.links.contains_key(&ifindex) || inner.ports.contains_key(&ifindex)
        };
        exists && !self.changes.has_ended(ifindex)
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        self.inner.read().ports.get(&ifindex).cloned()
    }

    fn port_named(&self, bridge: &str, interface: &str) -> Option<u32> {
        let name = (Arc::from(bridge), Arc::from(interface));
        self.inner.read().port_names.get(&name).copied()
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        self.inner.read().links.get(&ifindex).map(|link| link.device)
    }

    fn hosts(&self, segment: &Segment) -> Vec<IpAddr> {
        let inner = self.inner.read();
        let all = inner.hosts.get(&segment.bridge).into_iter().flatten();
        all.filter(|(vlan, _)| *vlan == segment.vlan).map(|(_, address)| *address).collect()
    }

    fn complete(&self, segment: &Segment, since: Duration) -> Result<(), Unknown> {
        self.known.complete(segment, since, || clock::Now::read().boot)
    }

    fn link_exists(&self, name: &str) -> bool {
        self.inner.read().names.contains_key(name)
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
        id: None,
        unsure: false,
        since: now.wall.checked_sub(since).unwrap_or(now.wall),
        age: monotonic.saturating_sub(*seen),
    }
}

#[cfg(test)]
mod tests;
