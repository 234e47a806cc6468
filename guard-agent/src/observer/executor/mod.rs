//! The one place where the arbiter's effects are carried out: in the kernel's maps, in the evidence,
//! in the incidents, and out of ports.

mod carry;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use aya::maps::{HashMap as KernelMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use guard_core::{
    evidence::Station,
    mac::Mac,
    policy::{Allow, is_off_prefix},
    rules,
    segment::Segment,
};
use guard_ebpf::abi::{AddressKey, Challenger, ChallengerKey, FIRST_COME, GOVERNED, Live, Prefix};
use ipnet::IpNet;

pub(super) use carry::Carrier;

use super::{Deps, log_limiter::LogLimiter};
use crate::{
    clock,
    datapath::CountedMap,
    events::IncidentReporter,
    live::SharedEvidence,
    network::{
        PortVlans,
        ask::takes_frames,
        link::{exists, has_carrier},
        probe::Prober,
        topology::{Bridge, Port, View},
    },
    owners::Owners,
};

/// The maps of claims.
pub(super) struct ClaimMaps {
    pub(super) live: CountedMap<Live>,
    pub(super) challengers: KernelMap<MapData, ChallengerKey, Challenger>,
    pub(super) prefixes: LpmTrie<MapData, AddressKey, Prefix>,
}

/// What effects are carried out with.
pub(super) struct Executor {
    live: Arc<SharedEvidence>,
    reporter: Arc<IncidentReporter>,
    owners: Arc<Owners>,
    maps: ClaimMaps,
    /// The prefixes of pools, and those that the configuration names besides.
    prefixes: Vec<(Segment, IpNet)>,
    /// Those of them in which guests number themselves.
    first_come: Vec<(Segment, IpNet)>,
    /// The prefixes on each bridge that exists, with those of the host's addresses.
    on_link: HashMap<Arc<str>, Vec<(u16, IpNet)>>,
    /// The allow rules, by bridge.
    rules: HashMap<Arc<str>, Vec<Allow>>,
    /// The ports without a carrier.
    down: HashSet<u32>,
    /// The ports of bridges on which spanning tree runs.
    spanning: HashSet<u32>,
    /// The MACs that the host has on a bridge besides the bridge's own.
    host_macs: HashSet<(u32, Mac)>,
    /// The MACs that it has on devices beside its bridges.
    beside: BTreeSet<Mac>,
    /// The ports of bridges that filter VLANs.
    vlans: HashMap<u32, PortVlans>,
    /// The host's addresses at its bridges' MACs.
    own: BTreeSet<(Segment, IpAddr)>,
    prober: Arc<Prober>,
    /// The watched bridges that exist, by ifindex.
    bridges: HashMap<u32, (Arc<str>, Mac)>,
    /// Addresses in conflict, each with the claimant that the lease engine is yet to hear of.
    later: Vec<(Segment, IpAddr, Option<Station>)>,
    log: LogLimiter,
    /// The ports that have ended while no agent ran.
    ended: HashSet<u32>,
    /// When this agent began to watch, on `CLOCK_MONOTONIC`.
    since: Duration,
}

impl Executor {
    pub(super) fn new(deps: &Deps, maps: ClaimMaps, prober: Arc<Prober>) -> Self {
        Self {
            live: deps.live.clone(),
            reporter: deps.reporter.clone(),
            owners: deps.owners.clone(),
            maps,
            prefixes: deps.prefixes.clone(),
            first_come: deps.first_come.clone(),
            on_link: HashMap::new(),
            rules: deps.bridges.iter().map(|b| (b.name.clone(), b.allow.clone())).collect(),
            down: HashSet::new(),
            spanning: HashSet::new(),
            host_macs: HashSet::new(),
            beside: BTreeSet::new(),
            vlans: HashMap::new(),
            own: BTreeSet::new(),
            prober,
            bridges: HashMap::new(),
            later: Vec::new(),
            log: LogLimiter::default(),
            ended: HashSet::new(),
            since: clock::monotonic(),
        }
    }

    /// The live claimant of an address, as the program has it now.
    pub(super) fn live(&self, key: &AddressKey) -> Option<Live> {
        self.maps.live.get(key, 0).ok()
    }

    /// Whether something waits for [`Executor::follow_up`].
    pub(super) fn must_follow_up(&self) -> bool {
        !self.later.is_empty()
    }

    /// What a conflict leads to, once those who wait for news of it have been notified.
    pub(super) fn follow_up(&mut self) {
        for (segment, address, new) in std::mem::take(&mut self.later) {
            // From here on the program tells when the owner is heard again.
            self.owners.listen(&segment, address);
            if let Some(station) = new {
                self.news(&segment, address, &station);
            }
        }
    }

    fn news(&self, segment: &Segment, address: IpAddr, station: &Station) {
        self.owners.heard(segment, address, station);
        self.live.changes().wake();
    }

    fn rules_of(&self, segment: &Segment) -> &[Allow] {
        self.rules.get(&segment.bridge).map_or(&[], |rules| rules)
    }

    /// Takes a claimant out of the program's map, unless another has taken its place there.
    fn forget(&mut self, key: &AddressKey, ifindex: u32) {
        if self.live(key).is_some_and(|live| live.ifindex == ifindex) {
            let _ = self.maps.live.remove(key);
        }
    }

    /// Forgets what the program has noted behind a port that has ended without anyone watching.
    pub(super) fn forget_port(&mut self, ifindex: u32) {
        let keys: Vec<_> = self.maps.live.keys().filter_map(Result::ok).collect();
        for key in keys {
            self.forget(&key, ifindex);
        }
    }

    /// These ports have ended while no agent ran.
    pub(super) fn set_ended(&mut self, ended: Vec<u32>) {
        self.ended = ended.into_iter().collect();
    }

    /// A port has found or lost its carrier. Of one that is gone neither is known.
    pub(super) fn set_carrier(&mut self, ifindex: u32, has: bool) {
        if has {
            self.down.remove(&ifindex);
        } else {
            self.down.insert(ifindex);
        }
    }

    /// Takes in what there is of bridges and ports.
    pub(super) fn set_view(&mut self, View { bridges, ports }: &View) {
        let spans = |port: &Port| bridges.get(&port.bridge).is_some_and(|bridge| bridge.spans);
        self.spanning = ports.iter().filter(|(_, port)| spans(port)).map(|(at, _)| *at).collect();
        let macs = bridges.values().flat_map(|bridge| {
            let macs = bridge.macs.iter();
            macs.map(|mac| (bridge.ifindex, *mac))
        });
        self.host_macs = macs.collect();
    }

    /// Whether spanning tree lets nothing in from a port now.
    pub(super) fn is_blocked(&self, ifindex: u32) -> bool {
        // One that cannot be asked is judged as any.
        self.spanning.contains(&ifindex) && takes_frames(ifindex).is_ok_and(|takes| !takes)
    }

    /// A port is in these VLANs, where its bridge filters them.
    pub(super) fn set_vlans(&mut self, ifindex: u32, vlans: Option<PortVlans>) {
        match vlans {
            Some(vlans) => drop(self.vlans.insert(ifindex, vlans)),
            None => drop(self.vlans.remove(&ifindex)),
        }
    }

    /// The host has these MACs on devices beside its bridges.
    pub(super) fn set_beside(&mut self, beside: BTreeSet<Mac>) {
        self.beside = beside;
    }

    /// The host has these addresses at its bridges' MACs.
    pub(super) fn set_own(&mut self, own: BTreeSet<(Segment, IpAddr)>) {
        self.own = own;
    }

    /// In whose name a station is asked for an address: an address of the host that the station has a
    /// way back to, or else none.
    fn sender(&self, segment: &Segment, address: IpAddr) -> Option<IpAddr> {
        let is_local = |address: IpAddr| match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let near = |host: &IpAddr| match host {
            IpAddr::V4(_) => self.prefixes.iter().any(|(of, prefix)| {
                of == segment && prefix.contains(host) && prefix.contains(&address)
            }),
            IpAddr::V6(_) => address.is_ipv6() && is_local(*host),
        };
        let mut hosts = self.own.iter().filter(|(of, _)| of == segment).map(|(_, host)| *host);
        hosts.find(|host| *host != address && near(host))
    }

    /// Whether a port exists and can be the holder of anything now.
    fn port_works(&self, ifindex: u32) -> bool {
        exists(ifindex)
            && (!self.down.contains(&ifindex) || has_carrier(ifindex))
            && !self.is_blocked(ifindex)
    }

    /// A bridge exists (again), or is not as it was: its prefixes go into the kernel.
    pub(super) fn bridge_present(&mut self, name: &Arc<str>, bridge: &Bridge) {
        let new = self.bridges.insert(bridge.ifindex, (name.clone(), bridge.mac)).is_none();
        let own = self.prefixes.iter().filter(|(segment, _)| segment.bridge == *name);
        let own = own.map(|(segment, prefix)| (segment.vlan, prefix.trunc()));
        let on_link: Vec<_> = own.chain(bridge.prefixes.iter().copied()).collect();
        if !new && self.on_link.get(name) == Some(&on_link) {
            return;
        }
        self.on_link.insert(name.clone(), on_link);
        let wanted = self.wanted_prefixes(name, bridge.ifindex);
        self.clear_prefixes(bridge.ifindex, |key| wanted.contains_key(key));
        for ((len, key), prefix) in wanted {
            if let Err(error) = self.maps.prefixes.insert(&Key::new(len, key), prefix, 0) {
                tracing::warn!(bridge = %name, %error, "cannot write a prefix into the kernel");
            }
        }
    }

    /// What the kernel is to have of the prefixes of a bridge.
    fn wanted_prefixes(&self, name: &str, ifindex: u32) -> HashMap<(u32, AddressKey), Prefix> {
        let rules = self.rules.get(name).map_or(&[][..], |rules| rules);
        let on_link = self.on_link.get(name).map_or(&[][..], |on_link| on_link);
        let own = self.prefixes.iter().filter(|(segment, _)| *segment.bridge == *name);
        let governed = own.map(|prefix| {
            let how = if self.first_come.contains(prefix) { FIRST_COME } else { GOVERNED };
            (prefix.0.vlan, prefix.1.trunc(), how)
        });
        let governed: Vec<_> = governed.collect();
        let prefixes = rules::prefixes(rules, on_link, &governed);
        let wanted = prefixes.into_iter().map(|(vlan, net, prefix)| {
            let key = AddressKey::new(ifindex, vlan, net.network());
            ((key.prefix_len(net.prefix_len()), key), prefix)
        });
        wanted.collect()
    }

    /// Puts right the prefixes that are not as they were written. Returns how many those were.
    pub(super) fn repair_prefixes(&mut self) -> Result<usize, MapError> {
        let mut there = HashMap::new();
        for entry in self.maps.prefixes.iter() {
            let (key, prefix) = entry?;
            there.insert((key.prefix_len(), key.data()), prefix);
        }
        let wanted = self.bridges.iter();
        let wanted = wanted.flat_map(|(at, (name, _))| self.wanted_prefixes(name, *at));
        let wanted: HashMap<_, _> = wanted.collect();
        let mut repaired = 0;
        for ((len, key), prefix) in wanted {
            if there.remove(&(len, key)) != Some(prefix) {
                self.maps.prefixes.insert(&Key::new(len, key), prefix, 0)?;
                repaired += 1;
            }
        }
        for (len, key) in there.into_keys() {
            self.maps.prefixes.remove(&Key::new(len, key))?;
            repaired += 1;
        }
        Ok(repaired)
    }

    /// Whether the segment has prefixes of an address's family, and it is in none of them.
    pub(super) fn is_off_prefix(&self, segment: &Segment, address: IpAddr) -> bool {
        let of_bridge = self.on_link.get(&segment.bridge).filter(|_| segment.inner_vlan == 0);
        let of_vlan = of_bridge.into_iter().flatten().filter(|(vlan, _)| *vlan == segment.vlan);
        is_off_prefix(of_vlan.map(|(_, net)| *net), address)
    }

    /// A bridge is gone.
    pub(super) fn bridge_absent(&mut self, ifindex: u32) {
        self.bridges.remove(&ifindex);
        self.clear_prefixes(ifindex, |_| false);
        let keys: Vec<_> = self.maps.live.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| key.bridge == ifindex) {
            let _ = self.maps.live.remove(key);
        }
    }

    fn clear_prefixes(&mut self, bridge: u32, but: impl Fn(&(u32, AddressKey)) -> bool) {
        let keys: Vec<_> = self.maps.prefixes.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| key.data().bridge == bridge) {
            if !but(&(key.prefix_len(), key.data())) {
                let _ = self.maps.prefixes.remove(key);
            }
        }
    }
}
