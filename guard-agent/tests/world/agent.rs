//! The agent: its engine with a real store, its real evidence, and what it has read of the machine
//! since it started.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use guard_agent::{
    ledger::{self, Worth},
    live::SharedEvidence,
    store::{Boot, KernelHolder, Known, Store, epoch_of, recover},
};
use guard_core::{
    evidence::{Claim, EvidenceView, HostAddresses},
    lease::{Binding, Carry, Contents, Engine, Lease, Notice, Place, Row, State, reason},
    reconcile::Recent,
};

use super::{
    SOURCES, World,
    node::{BRIDGES, bridge_of, link_name, segment},
    rules::Given,
};

/// How much the agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does not run.
    Down,
    /// It runs, and has not read everything yet.
    Blind,
    /// The boot pass is over.
    Up,
}

/// What the observer reads after the start, besides the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Which links there are, and which of the known ones have ended.
    Links,
    Ports(u8),
    Hosts(u8),
    /// The kernel's map of claims, which counts for ports that are known.
    Claims(u8),
}

const PARTS: [Part; 7] = [
    Part::Links,
    Part::Ports(0),
    Part::Ports(1),
    Part::Hosts(0),
    Part::Hosts(1),
    Part::Claims(0),
    Part::Claims(1),
];

impl World {
    pub(super) fn has_read(&self, part: Part) -> bool {
        self.phase != Phase::Down && !self.unread.contains(&part)
    }

    fn boot_now(&self) -> Boot {
        Boot { id: format!("boot-{}", self.boot), now: self.now }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("leases.db")
    }

    /// Ends the agent: in order, or by `SIGKILL`.
    pub(super) fn stop(&mut self, in_order: bool) {
        let Some(store) = self.store.take() else { return };
        self.fails = false;
        self.lag = false;
        if in_order {
            store.close().unwrap();
        } else {
            drop(store);
        }
        self.phase = Phase::Down;
        for source in &mut self.sources {
            source.ended();
        }
    }

    /// Starts the agent, which knows nothing of the machine yet.
    pub(super) fn start(&mut self) -> Option<Carry> {
        if self.phase != Phase::Down {
            return None;
        }
        let before = self.contents();
        let carry = self.open();
        if carry.is_none() && self.opened {
            assert_eq!(self.contents(), before, "a restart changed something");
        }
        self.opened = true;
        carry
    }

    pub(super) fn open(&mut self) -> Option<Carry> {
        let mut store = Store::open(&self.path(), &self.boot_now()).unwrap();
        let restored = store.take_restored();
        let carry = restored.carry;
        let pools = self.setup.pools(self.vlan);
        let (engine, changes, notices) = Engine::restore(pools, restored);
        let draining = |notice: &Notice| matches!(notice, Notice::Draining(_));
        assert!(notices.iter().all(draining));
        store.commit(&changes, engine.high_water(), self.now).unwrap();
        (self.engine, self.store) = (engine, Some(store));
        self.shadow = self.rows().into_iter().collect();
        self.engine.set_subscribers(&self.setup.subscribers());
        self.live = SharedEvidence::default();
        self.recent = Recent::default();
        (self.phase, self.unread) = (Phase::Blind, PARTS.to_vec());
        for which in 0..SOURCES.len() {
            self.tell_answered(which);
        }
        carry
    }

    /// The store is lost, and made anew from what the kernel knows.
    pub(super) fn lose_store(&mut self) {
        if self.phase != Phase::Down {
            return;
        }
        self.remove_store();
        // What an earlier loss has left is in the kernel, too.
        let had = |lease: &Lease| {
            lease.state.is_owned()
                || lease.state == State::Releasing
                || lease.state == State::Quarantined && *lease.reason == *reason::RECOVERED
        };
        let rows = self.rows();
        let leases: Vec<_> = rows.iter().filter_map(|(_, row)| row.lease()).cloned().collect();
        let had: Vec<_> = leases.into_iter().filter(|lease| had(lease)).collect();
        // Who gave what back is lost with it.
        self.gave_back.clear();
        let kernel = had.iter().map(|lease| self.holder(lease)).collect();
        let given = vec![self.engine.high_water().generation];
        let path = self.path();
        let epoch = epoch_of(&path, &self.boot_now());
        self.is_noticed(&had);
        let known = Known { memory: None, kernel, given, epoch };
        recover(&path, None, known, &self.boot_now(), false).unwrap();
        self.open();
        for lease in had {
            self.recovered(&lease);
        }
    }

    fn remove_store(&self) {
        for file in fs::read_dir(self.dir.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }

    /// The agent goes on with no new store beside a kernel that knows of leases, whoever made it.
    fn is_noticed(&self, had: &[Arc<Lease>]) {
        let (path, boot) = (self.path(), self.boot_now());
        let high = self.engine.high_water();
        let pinned = if high.gave_nothing() { 0 } else { high.generation };
        let given = [pinned, had.iter().map(|lease| lease.generation).max().unwrap_or(0)];
        for made_before in [false, true] {
            if made_before {
                Store::open(&path, &boot).unwrap().close().unwrap();
            }
            if let Ok(mut store) = ledger::open(&path, &boot, &given) {
                let new = store.take_restored().high_water;
                let begins_anew = Worth::of(&new, &given, self.now.wall) == Worth::Current;
                assert!(!begins_anew || had.is_empty(), "lost without a word: {had:?}");
            }
            self.remove_store();
        }
    }

    /// What the kernel's map of owners has of a lease.
    fn holder(&self, lease: &Lease) -> KernelHolder {
        let Binding { mac, ifindex, interface, .. } = lease.binding.clone();
        let place = Place { segment: lease.segment.clone(), address: lease.address };
        let binding = Binding { mac, interface, ifindex, ..Binding::default() };
        KernelHolder { place, generation: lease.generation, binding }
    }

    fn recovered(&mut self, lease: &Lease) {
        let place = Place { segment: lease.segment.clone(), address: lease.address };
        let now = self.engine.lease_at(&place.segment, place.address).expect("it is kept");
        assert_eq!((now.state, &*now.reason), (State::Quarantined, reason::RECOVERED));
        assert_eq!(now.generation, lease.generation);
        if let Some(given) = self.given.get_mut(&lease.generation) {
            given.ended.get_or_insert(self.now.boot);
        }
    }

    /// The machine starts again. What was left of a lease's time is left again.
    pub(super) fn reboot(&mut self, containers_stay: bool) {
        // The time of the last write is what counts.
        if let Some(store) = &mut self.store {
            store.commit([], self.engine.high_water(), self.now).unwrap();
        }
        let running = self.phase != Phase::Down;
        self.stop(false);
        if !running {
            // Nobody wrote since it ended.
            return;
        }
        let left = |world: &Self| -> Vec<_> {
            let rows = world.rows().into_iter();
            let left = rows.filter_map(|(place, row)| Some((place, row.lease()?.until?)));
            left.map(|(place, until)| (place, until.saturating_sub(world.now.boot))).collect()
        };
        let before = left(self);
        let then = self.now.boot;
        self.boot += 1;
        self.now.boot = Duration::from_secs(10);
        self.node.reboot(containers_stay);
        self.known_ports.clear();
        self.noted_ends.clear();
        for given in self.given.values_mut() {
            given.rebooted(then, self.now.boot);
        }
        assert!(self.start().is_some());
        assert_eq!(left(self), before, "what was left of the time is not left again");
    }

    /// Reads the n-th of the parts that can be read next. Returns whether there was one.
    pub(super) fn read(&mut self, n: usize) -> bool {
        let needs = |part: &Part| match part {
            Part::Links | Part::Hosts(_) => true,
            Part::Ports(_) => self.has_read(Part::Links),
            Part::Claims(bridge) => self.has_read(Part::Ports(*bridge)),
        };
        let can: Vec<_> = self.unread.iter().filter(|part| needs(part)).copied().collect();
        if self.phase != Phase::Blind || can.is_empty() {
            return false;
        }
        let part = can[n % can.len()];
        self.unread.retain(|other| *other != part);
        match part {
            Part::Links => self.read_links(),
            Part::Ports(bridge) => {
                self.tell_watched(bridge);
                for number in self.ports_of(bridge) {
                    self.tell_link(number);
                }
            }
            Part::Hosts(bridge) => self.tell_hosts(bridge),
            Part::Claims(bridge) => {
                for (place, claims) in self.node.claims.clone() {
                    for (_, claim) in claims {
                        if bridge_of(&place.segment) == usize::from(bridge) {
                            self.read_claim(&place, claim);
                        }
                    }
                }
            }
        }
        true
    }

    /// What is behind a port that has left its bridge is forgotten with the agent.
    fn read_claim(&mut self, place: &Place, claim: Claim) {
        let number = claim.station.ifindex;
        self.live.claimed(&place.segment, place.address, claim);
        let mut live = self.live.evidence(&place.segment, place.address).into_iter();
        if !live.any(|evidence| evidence.ifindex == Some(number)) {
            self.node.forget_claim(place, number);
        }
    }

    fn ports_of(&self, bridge: u8) -> Vec<u32> {
        let links = self.node.links.iter();
        links.filter(|(_, link)| link.bridge == Some(bridge)).map(|(n, _)| *n).collect()
    }

    /// Netlink tells of a link as it is now.
    pub(super) fn tell_link(&mut self, number: u32) {
        if !self.has_read(Part::Links) {
            return;
        }
        let link = self.node.links[&number].clone();
        self.known_ports.insert(number, link.serial);
        let names = vec![link_name(link.name).to_string()];
        self.live.set_link(number, names, self.node.device(number));
        match (link.bridge, self.node.port(number)) {
            (Some(bridge), Some(port)) if self.has_read(Part::Ports(bridge)) => {
                self.live.port_added(number, port);
            }
            (Some(_), _) => {}
            (None, _) => drop(self.live.port_left(number)),
        }
    }

    pub(super) fn tell_link_ended(&mut self, number: u32) {
        if self.has_read(Part::Links) {
            self.known_ports.remove(&number);
            self.note_end(number);
            self.live.link_ended(number);
        }
    }

    pub(super) fn tell_watched(&mut self, bridge: u8) {
        if self.has_read(Part::Ports(bridge)) {
            let there = !self.node.absent[usize::from(bridge)];
            self.live.set_watched(&Arc::from(BRIDGES[usize::from(bridge)]), there);
        }
    }

    pub(super) fn tell_hosts(&mut self, bridge: u8) {
        if self.has_read(Part::Hosts(bridge)) {
            let hosts = &self.node.hosts[usize::from(bridge)];
            let here = hosts.iter().map(|address| (0, *address)).collect();
            let hosts = HostAddresses { here, ..HostAddresses::default() };
            self.live.set_host_addresses(&segment(bridge).bridge, hosts);
        }
    }

    /// The boot pass, as the agent runs it: nothing is left unread when absence begins to count.
    pub(super) fn end_boot_pass(&mut self) {
        if self.phase != Phase::Blind {
            return;
        }
        while self.read(0) {}
        for which in 0..SOURCES.len() {
            if self.sources[which].waits() {
                self.answer_completely(which);
            }
        }
        self.recheck_all();
        self.pass();
        self.live.boot_pass_ended();
        self.phase = Phase::Up;
        self.recheck_all();
    }

    pub(super) fn contents(&self) -> Contents {
        Contents { rows: self.rows(), ..self.engine.contents() }
    }

    pub(super) fn rows(&self) -> Vec<(Place, Row)> {
        let mut rows: Vec<_> =
            self.engine.rows().map(|(place, row)| (place, row.clone())).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }

    pub(super) fn lease_at(&self, place: &Place) -> Option<Arc<Lease>> {
        self.engine.lease_at(&place.segment, place.address).cloned()
    }

    /// What is given for a generation.
    pub(super) fn given(&self, generation: u64) -> Option<&Given> {
        self.given.get(&generation)
    }
}
