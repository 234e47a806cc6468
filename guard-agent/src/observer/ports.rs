//! The ports of the watched bridges: on each the program, and in the kernel's map of ports its
//! segment.

mod coverage;
mod maps;

use std::{
    collections::{self, BTreeMap},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::MapError;
use guard_core::{
    arbiter::PortUse,
    evidence::Device,
    homes,
    incident::{Claimant, Role},
    mac::Mac,
    policy::{Allow, Quota},
    rules,
    segment::Segment,
};
use guard_ebpf::abi::{
    self, AddressKey, MAX_PORTS, MacKey, NO_VLAN, PORT_ACCESS, PORT_ALLOW_ROUTER,
    PORT_ALLOW_TAGGED, PORT_FILTERS_VLANS, PORT_UPLINK, PORT_VLANS_8021AD,
};
use parking_lot::RwLock;

pub(super) use self::maps::PortMaps;
use super::{
    Deps,
    hook::{Counts, Hook},
    kind::{self, PortKind},
};
use crate::{
    clock,
    config::Bridge,
    datapath::{Coverage, Kernel, KernelError, Place, Same, Snapshot},
    events::IncidentReporter,
    health::Health,
    metrics::Counters,
    network::{
        Link,
        ask::received,
        link::{exists, has_carrier},
        topology::{self, View},
    },
    owners::{Judged, Owners},
};

/// Events a second that an access port can cause about what others have.
const EVENTS: u32 = 64;
/// So many times as many for an uplink, behind which are the ports of others.
const HOSTS_OF_UPLINK: u32 = 16;

/// Ethernet sources are counted for as long as a bridge remembers them (`ageing_time`, by default).
const AGEING: Duration = Duration::from_secs(300);

/// A port, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortStatus {
    /// What netlink says.
    pub port: topology::Port,
    /// What it leads to, and why that is thought.
    pub kind: (PortKind, Arc<str>),
    /// Index into the counters of frames.
    pub slot: u32,
    /// The program is on it.
    pub coverage: Option<Coverage>,
    /// Why the program does not see every frame of it, if so: it is not there, or another is before it.
    pub why: Option<Arc<str>>,
}

impl PortStatus {
    /// The program sees every frame of the port.
    pub(crate) fn is_covered(&self) -> bool {
        self.coverage.is_some() && self.why.is_none()
    }
}

/// The ports by ifindex, shared with those who ask.
pub(crate) type SharedPorts = Arc<RwLock<BTreeMap<u32, PortStatus>>>;

/// The ports, and the hand that puts the program on them.
pub(super) struct Ports {
    kernel: Kernel,
    maps: PortMaps,
    bridges: Vec<Bridge>,
    /// Their places in the arrays by bridge.
    slots: BTreeMap<Arc<str>, u32>,
    quota: Quota,
    /// The MACs of the bridges, by ifindex.
    bridge_macs: collections::HashMap<u32, Mac>,
    shared: SharedPorts,
    free_slots: Vec<u32>,
    /// Since when Ethernet sources are counted.
    sources_since: Instant,
    hooks: BTreeMap<u32, Hook>,
    counters: Arc<Counters>,
    owners: Arc<Owners>,
    reporter: Arc<IncidentReporter>,
    health: Arc<Health>,
}

impl Ports {
    /// Takes over what an earlier agent left: ports keep their counters.
    ///
    /// # Errors
    /// The map of ports cannot be read.
    pub(super) fn new(
        kernel: Kernel,
        maps: PortMaps,
        deps: &Deps,
        slots: BTreeMap<Arc<str>, u32>,
        shared: SharedPorts,
        counters: Arc<Counters>,
    ) -> Result<Self, KernelError> {
        let mut used = vec![false; MAX_PORTS as usize];
        for entry in maps.ports.iter() {
            let (_, port) = entry.map_err(refuses(abi::MAP_PORTS))?;
            if let Some(slot) = used.get_mut(port.port_slot as usize) {
                *slot = true;
            }
        }
        let free_slots = (0..MAX_PORTS).rev().filter(|slot| !used[*slot as usize]).collect();
        Ok(Self {
            kernel,
            maps,
            bridges: deps.bridges.clone(),
            slots,
            quota: deps.quota,
            bridge_macs: collections::HashMap::new(),
            shared,
            free_slots,
            sources_since: Instant::now(),
            hooks: BTreeMap::new(),
            counters,
            owners: deps.owners.clone(),
            reporter: deps.reporter.clone(),
            health: deps.health.clone(),
        })
    }

    /// The ports by ifindex.
    pub(super) fn shared(&self) -> &SharedPorts {
        &self.shared
    }

    /// The ports that an earlier agent has put the program on.
    pub(super) fn pinned(&self) -> impl Iterator<Item = u32> {
        self.kernel.pinned().unwrap_or_default().into_iter()
    }

    /// Whether a link is the one that had its ifindex before; see [`Kernel::is_same`].
    pub(super) fn is_same(&self, link: &Link, device: Option<Device>) -> Same {
        self.kernel.is_same(link, device)
    }

    /// A link has ended that leases are bound to; see [`Kernel::note_end`].
    pub(super) fn note_end(&mut self, ifindex: u32) {
        self.kernel.note_end(ifindex);
    }

    /// Keeps the notes of those ends that the store does not have.
    pub(super) fn forget_ends(&mut self, is_pending: impl Fn(u32) -> bool) {
        self.kernel.forget_ends(is_pending);
    }

    /// Forgets the ports of an earlier agent that are none of ours now.
    pub(super) fn forget_others(&mut self, view: &View) {
        let in_map = self.maps.ports.keys().filter_map(Result::ok);
        let pinned = self.kernel.pinned().unwrap_or_default();
        let known: Vec<_> = in_map.chain(pinned).collect();
        for ifindex in known.into_iter().filter(|ifindex| !view.ports.contains_key(ifindex)) {
            self.remove(ifindex);
        }
    }

    /// Takes over from agents of other layouts, once the program is on the ports.
    pub(super) fn retire_others(&self, bpffs: &Path) {
        match self.kernel.retire_others(bpffs) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "took over from an agent of another layout"),
            Err(error) => self.health.degraded("pins", &error.to_string()),
        }
    }

    /// Puts the program on a port that is new, or changed its name or bridge.
    pub(super) fn cover(&mut self, ifindex: u32, port: &topology::Port) {
        match self.try_cover(ifindex, port) {
            Ok(status) => self.set_status(ifindex, status),
            Err(error) if !exists(ifindex) => {
                tracing::debug!(port = %port.interface, ifindex, %error, "gone before it was covered");
                self.remove(ifindex);
            }
            Err(error) => {
                let why = format!("it is not watched: {error}");
                // One that is about to go refuses the program a moment before.
                if self.hooks.entry(ifindex).or_default().bare(Instant::now()) {
                    self.health.degraded(&what(port), &why);
                }
                let (kind, why) = (self.kind(port), Some(why.into()));
                let status = PortStatus { port: port.clone(), kind, slot: 0, coverage: None, why };
                self.shared.write().insert(ifindex, status);
            }
        }
    }

    fn set_status(&mut self, ifindex: u32, status: PortStatus) {
        let (what, unread) = (what(&status.port), unread(ifindex));
        if status.port.unreadable {
            let why = format!(
                "of what the kernel says of {} not all can be read: its kind, state or VLANs may not be known",
                status.port.interface
            );
            self.health.degraded(&unread, &why);
        } else {
            self.health.recovered(&unread);
        }
        match &status.why {
            Some(why) => self.health.degraded(&what, why),
            None => self.health.recovered(&what),
        }
        self.shared.write().insert(ifindex, status);
    }

    fn try_cover(
        &mut self,
        ifindex: u32,
        port: &topology::Port,
    ) -> Result<PortStatus, KernelError> {
        let kind = self.kind(port);
        let uplink = kind.0 != PortKind::Access;
        let slot = match self.maps.ports.get(&ifindex, 0) {
            Ok(known) => {
                if (known.kind == PORT_UPLINK) != uplink {
                    self.maps.stations.forget_on(ifindex);
                }
                known.port_slot
            }
            // Taken off the list once it is in the map.
            Err(_) => {
                let slot =
                    *self.free_slots.last().ok_or(KernelError::Missing("room for another port"))?;
                self.maps.stations.port_added(slot);
                slot
            }
        };
        let (allow, mut flags) = rules::of_port(self.rules(&port.bridge), &port.interface);
        let bridge = self.bridges.iter().find(|bridge| bridge.name == port.bridge);
        let homes = bridge.map_or(0, |bridge| homes::of_port(bridge.homes(), &port.interface));
        if homes != 0 {
            // It forwards, and says so.
            flags |= PORT_ALLOW_ROUTER;
        }
        let mut filters = 0;
        if let Some(vlans) = &port.vlans {
            // Which tags it may send is the bridge's affair then.
            let provider = if vlans.provider { PORT_VLANS_8021AD } else { 0 };
            filters = PORT_FILTERS_VLANS | PORT_ALLOW_TAGGED | provider;
            self.maps
                .insert_vlans(ifindex, vlans.member.iter().copied().collect())
                .map_err(refuses(abi::MAP_VLANS))?;
        }
        let bridge_mac = self.bridge_macs.get(&port.bridge_ifindex).copied().unwrap_or_default();
        let entry = abi::Port {
            ifindex,
            bridge: port.bridge_ifindex,
            bridge_slot: self.slots.get(&port.bridge).copied().unwrap_or_default(),
            port_slot: slot,
            pvid: port.vlans.as_ref().map_or(0, |vlans| vlans.untagged.unwrap_or(NO_VLAN)),
            kind: if uplink { PORT_UPLINK } else { PORT_ACCESS },
            flags: flags | filters,
            bridge_mac: bridge_mac.0,
            homes,
            quota_addresses: match uplink {
                true => self.quota.uplink_addresses.get(),
                false => self.quota.addresses_per_port.get(),
            },
            quota_frames: if uplink { 0 } else { self.quota.nd_per_second.get() },
            allow,
            quota_events: if uplink { EVENTS * HOSTS_OF_UPLINK } else { EVENTS },
            quota_macs: if uplink { 0 } else { self.quota.macs_per_port.get() },
            native: port.vlans.as_ref().map_or(0, |vlans| vlans.native),
            reserved: [0; 2],
        };
        let name = (Arc::clone(&port.bridge), Arc::clone(&port.interface));
        let judged = Judged { name, slot, is_access: !uplink };
        self.owners.port_judged(ifindex, judged).map_err(refuses(abi::MAP_POLICIES))?;
        self.maps.insert(entry).map_err(refuses(abi::MAP_PORTS))?;
        self.free_slots.pop_if(|free| *free == slot);
        let coverage = self.kernel.attach(ifindex, &port.interface)?;
        let status =
            PortStatus { port: port.clone(), kind, slot, coverage: Some(coverage), why: None };
        match coverage.place(ifindex).map_err(refused(port))? {
            Place::First => Ok(self.is_first(ifindex, status)),
            Place::Behind(other) => self.is_behind(ifindex, status, &other),
            // Another link has its number by now.
            Place::Off => Err(refused(port)(io::ErrorKind::NotFound.into())),
        }
    }

    /// A bridge has this MAC: a frame from it is nobody's on a port (claims.md L02).
    pub(super) fn bridge_mac(&mut self, bridge: u32, mac: Mac) {
        if self.bridge_macs.insert(bridge, mac) == Some(mac) {
            return;
        }
        let entries = self.maps.ports.iter().filter_map(Result::ok);
        let changed: Vec<_> = entries
            .map(|(_, port)| port)
            .filter(|port| port.bridge == bridge && port.bridge_mac != mac.0)
            .collect();
        for port in changed {
            if let Err(error) = self.maps.insert(abi::Port { bridge_mac: mac.0, ..port }) {
                tracing::warn!(ifindex = port.ifindex, %error, "cannot write a port's bridge into the kernel");
            }
        }
    }

    /// Takes in what the maps say of MACs, of addresses that nobody owns, and of challengers.
    pub(super) fn take_snapshot(&mut self, snapshot: &Snapshot) {
        self.maps.stations.forget_others(snapshot);
        let anew = self.sources_since.elapsed() >= AGEING;
        if anew {
            self.sources_since = Instant::now();
        }
        for (ifindex, PortStatus { slot, coverage, .. }) in &*self.shared.read() {
            if coverage.is_some() {
                let used = snapshot.used.get(ifindex).copied().unwrap_or_default();
                self.maps.stations.count(*slot, used, anew);
            }
        }
    }

    /// Puts right what the kernel has of ports where that is not what was written. Returns how many ports
    /// that were.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub(super) fn repair_entries(&mut self) -> Result<usize, MapError> {
        self.maps.repair()
    }

    /// The same of their VLANs.
    ///
    /// # Errors
    /// As [`Self::repair_entries`].
    pub(super) fn repair_vlans(&mut self) -> Result<usize, MapError> {
        self.maps.repair_vlans()
    }

    /// Forgets a port that is gone or left its bridge.
    pub(super) fn remove(&mut self, ifindex: u32) {
        if let Some(status) = self.shared.write().remove(&ifindex) {
            self.health.recovered(&what(&status.port));
        }
        self.health.recovered(&unread(ifindex));
        self.hooks.remove(&ifindex);
        if let Ok(entry) = self.maps.ports.get(&ifindex, 0) {
            self.free_slots.push(entry.port_slot);
        }
        self.maps.remove(ifindex);
        if let Err(error) = self.kernel.detach(ifindex) {
            tracing::warn!(ifindex, %error, "cannot take the program off a port");
        }
    }

    fn rules(&self, bridge: &str) -> &[Allow] {
        let bridge = self.bridges.iter().find(|known| *known.name == *bridge);
        bridge.map_or(&[], |bridge| &bridge.allow)
    }

    /// A MAC that lives on `holder` was seen on `port`. Whether it may move: the two are places of the
    /// same addresses, or the first has lost its carrier, as a bond's does that fails over (claims.md
    /// A17, A18), and no binding names its place.
    pub(super) fn may_move(&self, key: &AddressKey, mac: [u8; 6], holder: u32, port: u32) -> bool {
        let may = {
            let ports = self.shared.read();
            let (Some(from), Some(to)) = (ports.get(&holder), ports.get(&port)) else {
                return false;
            };
            let (from, to) = (&from.port, &to.port);
            let rules = self.rules(&from.bridge);
            from.bridge == to.bridge
                && (rules::are_one_group(rules, &from.interface, &to.interface)
                    || self.owners.are_one_group(holder, port, Mac(mac))
                    || (!from.running && !has_carrier(holder)))
        };
        may && !self.maps.stations.is_bound(key, mac)
    }

    /// A MAC is held on a port, unless a binding holds it on another.
    pub(super) fn hold_mac(&mut self, key: &AddressKey, mac: Mac, ifindex: u32) {
        let filters = self.shared.read().get(&ifindex).is_some_and(|s| s.port.vlans.is_some());
        let vlan = if filters { key.vlan } else { 0 };
        self.maps.stations.hold(MacKey::new(key.bridge, vlan, mac.0), ifindex);
    }

    /// A MAC has left a port for another, where the program finds it with its next claim.
    pub(super) fn forget_mac(&mut self, key: &AddressKey, mac: Mac, ifindex: u32) {
        self.maps.stations.moved(key, mac, ifindex);
    }

    /// A port has found or lost its carrier.
    pub(super) fn set_running(&self, ifindex: u32, running: bool) {
        if let Some(status) = self.shared.write().get_mut(&ifindex) {
            status.port.running = running;
        }
    }

    /// What a port has used of its quotas.
    pub(super) fn used(&self, ifindex: u32) -> PortUse {
        let used =
            |port: &abi::Port| Some(PortUse::new(port, &self.maps.stations.state(port.port_slot)?));
        self.maps.written.get(&ifindex).and_then(used).unwrap_or_default()
    }

    /// What it leads to, and why that is thought.
    pub(super) fn kind(&self, port: &topology::Port) -> (PortKind, Arc<str>) {
        kind::kind(self.bridges.iter().find(|bridge| bridge.name == port.bridge), port)
    }
}

/// How a port is listed that is not covered.
fn what(port: &topology::Port) -> String {
    format!("port {}", port.interface)
}

/// How a port is listed of which not all can be read.
pub(super) fn unread(ifindex: u32) -> String {
    format!("link {ifindex}")
}

fn refuses(name: &'static str) -> impl Fn(MapError) -> KernelError {
    move |source| KernelError::Map { name, source }
}

fn refused(port: &topology::Port) -> impl Fn(io::Error) -> KernelError {
    let interface = port.interface.to_string();
    move |source| KernelError::Attach { interface: interface.clone(), source: source.into() }
}

/// A port, as the one side of an incident.
fn claimant(ifindex: u32, port: &topology::Port) -> Claimant {
    let interface = Some(port.interface.clone());
    let new = Claimant::new(Role::Claimant, clock::now());
    Claimant { interface, ifindex: Some(ifindex), ..new }
}
