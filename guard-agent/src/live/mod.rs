//! The evidence, shared between tasks: what is in use now, by address and source, in memory.
//!
//! Fed by the observer and the inventories, read by the lease engine and the API. It shares the
//! evidence of guard-core between tasks, reads the clocks for it, and tells the ledger what to look at
//! again. Whoever needs both locks takes that of the listings first.

mod changes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use guard_core::{
    evidence::{
        Answered, CONTAINERD, Claim, Completeness, Device, Evidence, EvidenceView, HostAddresses,
        Inventory, Listing, ListingDiff, Live, PortName, Source, Unknown,
    },
    mac::Mac,
    owner::Owner,
    segment::Segment,
};
use ipnet::IpNet;
use parking_lot::{RwLock, RwLockReadGuard};

pub use self::changes::ChangeQueue;
use crate::clock;

/// What is in use now.
#[derive(Debug, Default)]
pub struct SharedEvidence {
    inventory: RwLock<Inventory>,
    live: RwLock<Live>,
    completeness: RwLock<Completeness>,
    changes: Arc<ChangeQueue>,
}

impl SharedEvidence {
    /// What the inventory and the controller list.
    pub fn inventory(&self) -> RwLockReadGuard<'_, Inventory> {
        self.inventory.read()
    }

    /// What the ledger has to look at again.
    pub fn changes(&self) -> &Arc<ChangeQueue> {
        &self.changes
    }

    /// The boot pass has ended: from now on absence may prove something.
    pub fn boot_pass_ended(&self) {
        if self.completeness.write().boot_pass_ended() {
            self.changes.tell(|changes| changes.known = true);
        }
    }

    /// A bridge is watched from now on, or is no more.
    pub fn set_watched(&self, bridge: &Arc<str>, watched: bool) {
        if self.completeness.write().bridge(bridge, watched) {
            self.changes.tell(|changes| changes.known = true);
        }
    }

    /// A configured source, and what its answers prove now.
    pub fn set_answered(&self, source: &'static str, answered: Answered) {
        self.completeness.write().source(source, answered);
        self.changes.tell(|changes| changes.known = true);
    }

    /// Takes in a list of a source. Those addresses of which it says something else than before
    /// are looked at on each of these segments, since a label names none.
    pub fn listed(&self, source: Source, listing: &Listing, segments: &[Segment]) {
        let ListingDiff { any, addresses } =
            self.inventory.write().take(source, listing, clock::now());
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
    pub fn claimed(&self, segment: &Segment, address: IpAddr, claim: Claim) -> bool {
        let new = self.live.write().claimed(segment, address, claim);
        if new {
            self.changes.mark(|changes| {
                changes.places.insert((segment.clone(), address));
            });
        }
        new
    }

    /// The claim from a port is over: it aged out, or its holder moved.
    pub fn withdraw(&self, segment: &Segment, address: IpAddr, ifindex: u32) {
        self.live.write().withdraw(segment, address, ifindex);
        self.changes.tell(|changes| {
            changes.places.insert((segment.clone(), address));
        });
    }

    /// An address is held back until then, on `CLOCK_MONOTONIC`: somebody probes for it.
    pub fn hold_back(&self, segment: Segment, address: IpAddr, until: Duration) {
        self.live.write().hold_back(segment, address, until, clock::monotonic());
    }

    /// A port exists, or has another name now.
    pub fn port_added(&self, ifindex: u32, port: PortName) {
        let netns = self.live.write().port_added(ifindex, port);
        self.look_at_places(netns);
        self.changes.tell(|changes| {
            changes.ports.insert(ifindex);
        });
    }

    /// A port has left its bridge. What was claimed behind it stays until its link ends. Returns
    /// those addresses.
    pub fn port_left(&self, ifindex: u32) -> Vec<(Segment, IpAddr)> {
        let (netns, claimed) = self.live.write().port_left(ifindex);
        self.look_at_places(netns);
        claimed
    }

    /// A link has ended, and with it all that was claimed behind it. Returns those addresses. The next
    /// link with this ifindex is another one.
    pub fn link_ended(&self, ifindex: u32) -> Vec<(Segment, IpAddr)> {
        let (netns, claimed) = self.live.write().link_ended(ifindex);
        self.look_at_places(netns);
        self.changes.tell(|changes| {
            changes.ended.insert(ifindex);
            changes.places.extend(claimed.iter().cloned());
        });
        claimed
    }

    /// A link exists, with these names.
    pub fn set_link(&self, ifindex: u32, names: Vec<String>, device: Device) {
        let netns = self.live.write().set_link(ifindex, names, device);
        self.look_at_places(netns);
    }

    /// A port is in these VLANs, where its bridge filters them.
    pub fn set_port_vlans(&self, ifindex: u32, vlans: Option<BTreeSet<u16>>) {
        let netns = self.live.write().set_port_vlans(ifindex, vlans);
        self.look_at_places(netns);
    }

    /// A link was found to have this name as well, before any notice of it.
    pub fn add_name(&self, ifindex: u32, name: &str) {
        self.live.write().add_name(ifindex, name);
    }

    /// There are these links and no others. Those that were there before have been ended.
    pub fn set_links(&self, links: impl IntoIterator<Item = (u32, Vec<String>, Device)>) {
        let netns = self.live.write().set_links(links);
        self.look_at_places(netns);
    }

    /// The host's own addresses on a bridge, from netlink.
    pub fn set_host_addresses(&self, bridge: &Arc<str>, addresses: HostAddresses) {
        self.live.write().set_host_addresses(bridge, addresses);
        self.changes.tell(|changes| changes.hosts = true);
    }

    /// Whether the host has an address, on the bridge or on another device.
    pub fn is_host(&self, segment: &Segment, address: IpAddr) -> bool {
        self.live.read().is_host(segment, address)
    }

    /// What macvlans over a bridge have in other network namespaces, with their VLANs and MACs. These of
    /// them have changed.
    pub fn set_above(
        &self,
        bridge: &Arc<str>,
        above: BTreeMap<(u16, IpAddr), Mac>,
        changed: impl IntoIterator<Item = (Segment, IpAddr)>,
    ) {
        self.live.write().set_above(bridge, above);
        self.changes.tell(|changes| changes.places.extend(changed));
    }

    /// The MAC of the macvlan over the bridge that has an address.
    pub fn above(&self, segment: &Segment, address: IpAddr) -> Option<Mac> {
        self.live.read().above(segment, address)
    }

    /// The pools have these prefixes.
    pub fn set_prefixes(&self, prefixes: Vec<(Segment, IpNet)>) {
        self.live.write().set_prefixes(prefixes);
    }

    /// Whether several segments have an address.
    pub fn is_ambiguous(&self, address: IpAddr) -> bool {
        self.live.read().is_ambiguous(address)
    }

    /// All claims, or those on one bridge, in order of their addresses.
    pub fn claims(&self, bridge: Option<&str>) -> Vec<(Segment, IpAddr, Vec<Claim>)> {
        self.live.read().claims(bridge)
    }

    /// The segments on which the wire or the kernel has an address.
    pub fn segments_of(&self, address: IpAddr) -> BTreeSet<Segment> {
        self.live.read().segments_of(address)
    }

    /// The claims on one address.
    pub fn claims_on(&self, segment: &Segment, address: IpAddr) -> Vec<Claim> {
        self.live.read().claims_on(segment, address)
    }

    /// An address that a station has claimed, if it has.
    pub fn address_of(&self, mac: Mac, ifindex: u32) -> Option<(Segment, IpAddr)> {
        self.live.read().address_of(mac, ifindex)
    }

    /// The places with claims after one of them, in order, at most so many: of one bridge, or of all.
    pub fn claimed_after(
        &self,
        bridge: Option<&Arc<str>>,
        after: Option<&(Segment, IpAddr)>,
        most: usize,
    ) -> Vec<(Segment, IpAddr)> {
        self.live.read().claimed_after(bridge, after, most)
    }

    /// How many addresses claim to be behind a port.
    pub fn addresses_behind(&self, ifindex: u32) -> usize {
        self.live.read().addresses_behind(ifindex)
    }

    /// How many addresses of a bridge are live by the wire, and how many are the host's.
    pub fn count(&self, bridge: &str) -> (usize, usize) {
        self.live.read().count(bridge)
    }

    /// Something has changed about the links to these namespaces: what is listed of containers in them
    /// may be about another segment now. Those whose namespace had no link are asked for anew.
    fn look_at_places(&self, netns: impl IntoIterator<Item = i32>) {
        for netns in netns {
            let inventory = self.inventory.read();
            let places = self.live.read().places_in(&inventory, netns);
            if !places.is_empty() {
                self.changes.tell(|changes| changes.places.extend(places));
            }
            if inventory.has_unplaced() {
                self.changes.want(CONTAINERD);
            }
        }
    }
}

impl EvidenceView for SharedEvidence {
    fn evidence(&self, segment: &Segment, address: IpAddr) -> Vec<Evidence> {
        let inventory = self.inventory.read();
        let live = self.live.read();
        // Most addresses are silent, and no clock is read for those.
        if !live.is_live(&inventory, segment, address) {
            return Vec::new();
        }
        live.evidence(&inventory, segment, address, clock::now(), clock::monotonic())
    }

    fn held_back(&self, segment: &Segment, address: IpAddr) -> Option<Duration> {
        self.live.read().held_back(segment, address, clock::monotonic)
    }

    fn addresses(&self, segment: &Segment) -> Vec<IpAddr> {
        let inventory = self.inventory.read();
        self.live.read().addresses(&inventory, segment)
    }

    fn owner(&self, owner: &Owner) -> Vec<Evidence> {
        self.inventory.read().of_owner(owner, clock::now())
    }

    fn is_live(&self, segment: &Segment, address: IpAddr) -> bool {
        let inventory = self.inventory.read();
        self.live.read().is_live(&inventory, segment, address)
    }

    fn knows(&self, owner: &Owner) -> bool {
        self.inventory.read().knows(owner)
    }

    fn port_exists(&self, ifindex: u32) -> bool {
        let exists = self.live.read().port_exists(ifindex);
        exists && !self.changes.has_ended(ifindex)
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        self.live.read().port(ifindex)
    }

    fn name_now(&self, ifindex: u32) -> Option<Arc<str>> {
        self.live.read().name_now(ifindex)
    }

    fn port_named(&self, bridge: &str, interface: &str) -> Option<u32> {
        self.live.read().port_named(bridge, interface)
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        self.live.read().device(ifindex)
    }

    fn hosts(&self, segment: &Segment) -> Vec<IpAddr> {
        self.live.read().hosts(segment)
    }

    fn complete(&self, segment: &Segment, since: Duration) -> Result<(), Unknown> {
        self.completeness.read().complete(segment, since, clock::now().boot)
    }

    fn link_exists(&self, name: &str) -> bool {
        self.live.read().link_exists(name)
    }
}

#[cfg(test)]
mod place_tests;
#[cfg(test)]
pub(crate) mod tests;
