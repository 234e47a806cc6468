//! Ports, bridges and addresses as netlink reports them: applies what is new.

use std::collections::BTreeMap;

use guard_core::evidence::{Device, HostAddresses, PortName};

use super::{ports::unread, *};
use crate::{
    datapath::Same,
    network::{Dump, VlanFilter, link::exists, topology::Bridge as Present},
};

/// Of more links than these all are read at once.
const ASKED_ONE_BY_ONE: usize = 16;

impl Observer {
    pub(super) async fn notice(&mut self, notice: Option<Notice>) {
        match notice {
            // What the buffer still holds is older than a dump, and would be taken for newer.
            Some(Notice::Lost) => self.reconnect().await,
            Some(notice) => {
                for notice in self.now(notice).await {
                    if self.apply(notice) {
                        self.update();
                    } else {
                        self.dump_again = true;
                        self.try_resync().await;
                    }
                }
            }
            None => {
                // Opened anew with the next second, so that a socket that cannot be had costs little.
                self.notices = stream::pending().boxed();
                self.deps.health.degraded(NETLINK, "the connection has ended");
            }
        }
    }

    /// A notice is a hint, and may be older than what is known: what would take a port away is read in the
    /// kernel, by the port's number.
    async fn now(&mut self, notice: Notice) -> Vec<Notice> {
        let ifindex = match &notice {
            Notice::LinkGone(ifindex) if exists(*ifindex) => *ifindex,
            Notice::Link(link) => {
                let port = self.view.ports.get(&link.ifindex);
                if port.is_none_or(|port| Some(port.bridge_ifindex) == link.controller) {
                    return vec![notice];
                }
                link.ifindex
            }
            _ => return vec![notice],
        };
        let Ok(Some(link)) = self.netlink.link_at(ifindex).await else { return vec![notice] };
        let before = self.topology.link(ifindex).map(|before| before.device);
        let ended =
            matches!(notice, Notice::LinkGone(_)) && self.ports.is_same(&link, before) != Same::Yes;
        ended.then_some(notice).into_iter().chain([Notice::Link(link)]).collect()
    }

    /// The kernel lists other ports than the observer: these are asked for by their numbers. What cannot
    /// be made out stays listed as degraded until it is.
    pub(super) async fn look_at(&mut self, differing: Vec<u32>) {
        if differing.len() > ASKED_ONE_BY_ONE {
            return self.try_resync().await;
        }
        for ifindex in differing {
            let notice = match self.netlink.link_at(ifindex).await {
                Ok(Some(link)) => Notice::Link(link),
                Ok(None) if exists(ifindex) => {
                    let why = "it is a port, and what the kernel says of it cannot be read";
                    self.deps.health.degraded(&unread(ifindex), why);
                    continue;
                }
                Ok(None) => Notice::LinkGone(ifindex),
                Err(error) => return self.deps.health.degraded(NETLINK, &error.to_string()),
            };
            if !self.apply(notice) || self.topology.lacks_vlans(ifindex) {
                self.try_resync().await;
            }
            self.update();
        }
    }

    fn apply(&mut self, notice: Notice) -> bool {
        match &notice {
            Notice::Link(link) => {
                self.deps.live.set_link(link.ifindex, link.names(), link.device);
            }
            Notice::LinkGone(ifindex) => self.link_ended(*ifindex),
            Notice::Port(..) | Notice::Address(..) | Notice::AddressGone(..) | Notice::Lost => {}
        }
        self.topology.apply(notice)
    }

    pub(super) async fn try_resync(&mut self) {
        match self.resync().await {
            Ok(()) => self.deps.health.recovered(NETLINK),
            Err(error) => self.deps.health.degraded(NETLINK, &error.to_string()),
        }
    }

    /// After a failure: a new connection, and a dump of all that was missed.
    pub(super) async fn reconnect(&mut self) {
        match Netlink::open() {
            Ok((netlink, notices)) => {
                (self.netlink, self.notices) = (netlink, notices);
                self.try_resync().await;
            }
            Err(error) => self.deps.health.degraded(NETLINK, &error.to_string()),
        }
    }

    pub(super) async fn resync(&mut self) -> Result<(), NetlinkError> {
        let dump = self.netlink.dump().await?;
        let before = self.topology.devices();
        self.reset(dump, before.into_iter().map(|(ifindex, device)| (ifindex, Some(device))));
        self.read_all_neighbours = true;
        Ok(())
    }

    /// The first dump: the links of an earlier agent may have ended since.
    pub(super) async fn begin(&mut self) -> Result<(), NetlinkError> {
        let dump = self.netlink.dump().await?;
        let bound = self.deps.owners.devices();
        let with_modes = self.deps.owners.ports_with_modes();
        let before = self.ports.pinned().chain(with_modes).map(|port| (port, None));
        let mut before: BTreeMap<_, _> = before.collect();
        before.extend(bound.iter().map(|(port, device)| (*port, *device)));
        let (ended, unproven) = self.reset(dump, before);
        self.executor.set_ended(ended);
        self.deps.owners.end_port_modes(&unproven);
        for ifindex in unproven.iter().filter(|ifindex| bound.contains_key(ifindex)) {
            tracing::info!(
                ifindex,
                "the program was not on a port that leases are bound to; bound anew"
            );
        }
        Ok(())
    }

    /// There are these links and no others. Those that were known before have ended if they are not
    /// among them, or if another has their number. Returns these, and those of which that cannot be told.
    fn reset(
        &mut self,
        dump: Dump,
        before: impl IntoIterator<Item = (u32, Option<Device>)>,
    ) -> (Vec<u32>, Vec<u32>) {
        self.topology.reset(dump);
        let (mut ended, mut unproven) = (Vec::new(), Vec::new());
        for (ifindex, device) in before {
            let link = self.topology.link(ifindex);
            match link.map_or(Same::No, |link| self.ports.is_same(link, device)) {
                Same::Yes => {}
                Same::Unproven => unproven.push(ifindex),
                Same::No => ended.push(ifindex),
            }
        }
        for ifindex in ended.iter().copied() {
            self.executor.forget_port(ifindex);
            self.link_ended(ifindex);
            // What has its number now comes anew.
            self.view.ports.remove(&ifindex);
        }
        let links = self.topology.links().map(|link| (link.ifindex, link.names(), link.device));
        self.deps.live.set_links(links);
        self.update();
        (ended, unproven)
    }

    /// A link has ended, and all that was behind it.
    fn link_ended(&mut self, ifindex: u32) {
        if self.deps.owners.link_ended(ifindex) {
            self.ports.note_end(ifindex);
        }
        let addresses = self.deps.live.link_ended(ifindex);
        self.claims_gone(ifindex, addresses);
        self.deps.reporter.port_gone(ifindex, clock::now());
        self.ports.remove(ifindex);
    }

    pub(super) async fn ensure(&mut self, Ensure { interface, bridge, reply }: Ensure) {
        // Netlink's notice of a port that was just made may still be on its way.
        let mut obstacle = None;
        match self.netlink.link(&interface).await {
            Ok(Some(link)) => {
                let ifindex = link.ifindex;
                if !self.apply(Notice::Link(link)) || self.topology.lacks_vlans(ifindex) {
                    self.try_resync().await;
                }
                self.update();
                obstacle = never_port::obstacle(&self.topology, ifindex, &bridge);
            }
            Ok(None) => {}
            Err(error) => {
                let why = error.to_string();
                let _ = reply.send(Err(EnsureError::NotCovered { interface, why }));
                return;
            }
        }
        let ports = self.ports.shared().read();
        let port = ports.iter().find(|(_, status)| {
            *status.port.interface == *interface && status.port.bridge == bridge
        });
        let answer = match port {
            Some((ifindex, status)) if status.is_covered() => Ok(*ifindex),
            Some((_, PortStatus { why, .. })) => {
                let why = why.as_deref().unwrap_or_default().to_owned();
                Err(EnsureError::NotCovered { interface, why })
            }
            None => Err(match (bridge.to_string(), obstacle) {
                (bridge, Some(why)) => EnsureError::NeverPort { interface, bridge, why },
                (bridge, None) => EnsureError::NoSuchPort { interface, bridge },
            }),
        };
        drop(ports);
        // The caller is gone: nobody wants it.
        let _ = reply.send(answer);
    }

    /// Carries out what has changed since the last view.
    fn update(&mut self) {
        let new = self.topology.view();
        let old = std::mem::take(&mut self.view);
        for ifindex in old.ports.keys().filter(|ifindex| !new.ports.contains_key(ifindex)) {
            self.port_gone(*ifindex);
        }
        self.update_bridges(&old, &new);
        for (ifindex, port) in &new.ports {
            let known = old.ports.get(ifindex);
            if known.is_none_or(|known| known.running != port.running) {
                self.ports.set_running(*ifindex, port.running);
                self.executor.set_carrier(*ifindex, port.running);
                if !port.running {
                    self.arbitrate(arbiter::Event::CarrierLost { ifindex: *ifindex });
                }
            }
            if known.is_some_and(|known| {
                (&known.interface, known.bridge_ifindex, &known.device, &known.vlans)
                    == (&port.interface, port.bridge_ifindex, &port.device, &port.vlans)
                    && known.unreadable == port.unreadable
            }) {
                continue;
            }
            let (kind, why) = self.ports.kind(port);
            if kind == PortKind::Unknown {
                tracing::warn!(
                    port = %port.interface, bridge = %port.bridge, %why,
                    "what a port leads to is not known; it is judged as an uplink"
                );
            }
            let name = PortName {
                interface: port.interface.clone(),
                bridge: port.bridge.clone(),
                uplink: kind != PortKind::Access,
            };
            let vlans = port.vlans.as_ref().map(|vlans| vlans.member.clone());
            self.deps.live.set_port_vlans(*ifindex, vlans);
            self.executor.set_vlans(*ifindex, port.vlans.clone());
            self.deps.live.port_added(*ifindex, name);
            self.deps.owners.port_added(&port.bridge, &port.interface, *ifindex);
            self.ports.cover(*ifindex, port);
        }
        let own = new.bridges.iter().flat_map(|(name, bridge)| {
            let own = bridge.own.iter();
            own.map(|(vlan, address)| (Segment::new(name.clone(), *vlan), *address))
        });
        self.executor.set_own(own.collect());
        self.executor.set_view(&new);
        self.executor.set_beside(self.topology.beside());
        self.view = new;
        self.handed_over();
    }

    /// Bindings were written: whoever else is live there is an impostor, and the segment hears of new
    /// holders.
    pub(super) fn handed_over(&mut self) {
        let rebound = self.deps.owners.take_rebound();
        if !rebound.is_empty() {
            self.arbitrate(arbiter::Event::Bound(rebound));
        }
        self.announce();
    }

    fn update_bridges(&mut self, old: &View, new: &View) {
        for Bridge { name, .. } in self.deps.bridges.clone() {
            let (name, what) = (&name, health::bridge(&name));
            let (was, is) = (old.bridges.get(name), new.bridges.get(name));
            self.deps.live.set_watched(name, is.is_some());
            match is {
                None => {
                    let why = "it does not exist; it is picked up when it appears";
                    self.deps.health.degraded(&what, why);
                    for (pool, _) in self.pools_on(name) {
                        self.deps.health.recovered(&health::pool(pool));
                    }
                    if let Some(was) = was {
                        self.deps.owners.bridge_absent(name);
                        self.executor.bridge_absent(was.ifindex);
                        let ifindex = was.ifindex;
                        self.arbitrate(arbiter::Event::BridgeGone { ifindex });
                        self.host_addresses(name, None, Some(was));
                    }
                }
                Some(is) if was != Some(is) => {
                    self.look_for_vlans(name, is);
                    self.executor.bridge_present(name, is);
                    self.ports.bridge_mac(is.ifindex, is.mac);
                    if was.is_none_or(|was| {
                        (was.ifindex, was.vlan_filter, &was.addresses)
                            != (is.ifindex, is.vlan_filter, &is.addresses)
                    }) {
                        let Present { ifindex, vlan_filter, ref addresses, .. } = *is;
                        let owners = &self.deps.owners;
                        let filters = vlan_filter.is_some();
                        owners.bridge_present(name, ifindex, filters, addresses.clone());
                    }
                    self.host_addresses(name, Some(is), was);
                    self.deps.health.recovered(&what);
                }
                Some(_) => {}
            }
        }
    }

    /// Whether the VLANs of the bridge's pools are those of any port of it, or of the host's.
    fn look_for_vlans(&self, name: &str, bridge: &Present) {
        for (pool, Segment { vlan, .. }) in self.pools_on(name) {
            let what = health::pool(pool);
            match bridge.vlan_filter {
                Some(VlanFilter { default_pvid, .. }) if !bridge.carried.contains(vlan) => {
                    let why = no_port_in(*vlan, name, default_pvid);
                    self.deps.health.degraded(&what, &why);
                }
                _ => self.deps.health.recovered(&what),
            }
        }
    }

    fn pools_on(&self, bridge: &str) -> impl Iterator<Item = &(Arc<str>, Segment)> {
        self.deps.pools.iter().filter(move |(_, segment)| *segment.bridge == *bridge)
    }

    fn host_addresses(&mut self, bridge: &Arc<str>, is: Option<&Present>, was: Option<&Present>) {
        let addresses = |of: &Present| HostAddresses {
            here: of.addresses.clone(),
            elsewhere: of.elsewhere.clone(),
        };
        let [before, now] = [was, is].map(|of| of.map(addresses).unwrap_or_default());
        if was.is_some() && before == now {
            return;
        }
        self.deps.live.set_host_addresses(bridge, now);
        let [before, now] = [was, is].map(answered_for);
        let new = now.difference(&before).copied().collect();
        let old = before.difference(&now).copied().collect();
        self.arbitrate(arbiter::Event::HostAddresses { bridge: Arc::clone(bridge), new, old });
    }

    /// A port has left its bridge, or has ended. What is behind it may be there still.
    fn port_gone(&mut self, ifindex: u32) {
        self.ports.remove(ifindex);
        self.deps.owners.port_left(ifindex);
        let addresses = self.deps.live.port_left(ifindex);
        self.claims_gone(ifindex, addresses);
        self.deps.reporter.port_left(ifindex, clock::now());
    }

    fn claims_gone(&mut self, ifindex: u32, addresses: Vec<(Segment, IpAddr)>) {
        self.executor.set_carrier(ifindex, true);
        self.executor.set_vlans(ifindex, None);
        self.arbitrate(arbiter::Event::PortGone { ifindex, addresses });
    }
}

/// Why nothing of a pool in a VLAN can be reached.
fn no_port_in(vlan: u16, bridge: &str, default_pvid: u16) -> String {
    match (vlan, default_pvid) {
        (0, 0) => format!("untagged frames are in no VLAN of {bridge}: its vlan_default_pvid is 0"),
        (0, id) => format!(
            "no port of {bridge} is in VLAN {id}, its vlan_default_pvid, or the configuration names \
             that VLAN by its number"
        ),
        (vlan, _) => format!("no port of {bridge} is in VLAN {vlan}"),
    }
}

/// The addresses for which the host answers on a bridge: those of IPv4 whatever device they are on.
fn answered_for(bridge: Option<&Present>) -> BTreeSet<(u16, IpAddr)> {
    let Some(Present { addresses, elsewhere, .. }) = bridge else { return BTreeSet::new() };
    let elsewhere = elsewhere.iter().filter(|(_, address)| address.is_ipv4());
    addresses.iter().chain(elsewhere).copied().collect()
}
