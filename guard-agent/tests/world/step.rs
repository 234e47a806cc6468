//! One step of a history.

use std::sync::Arc;

use guard_core::{
    lease::{
        State,
        command::{Command, Reply},
    },
    owner::Owner,
};
use jiff::SignedDuration;

use super::{
    DIRECTORY, Op, Outcome, RUNTIME, World,
    agent::{Part, Phase},
    node::{self, Listed, address, any_run, mac, owner, segment},
};

fn outcome(n: u8) -> Outcome {
    match n {
        0..=3 => Outcome::Complete,
        4..=6 => Outcome::Streaming,
        7 | 8 => Outcome::Unreadable,
        _ => Outcome::Failed,
    }
}

impl World {
    pub(crate) fn step(&mut self, op: Op) {
        self.later();
        match op {
            Op::Allocate { who, pools, address, port, mac } => {
                let ask = self.ask(who, pools, address, port, mac);
                self.allocate(ask);
            }
            Op::AskAgain(of) => {
                if !self.asked.is_empty() {
                    self.allocate(of.get(&self.asked).clone());
                }
            }
            Op::Confirm(of) => {
                let generation = self.generation(of);
                self.fenced(generation, &Command::Confirm(generation));
            }
            Op::Bind { of, number, mac } => self.bind(self.generation(of), number, mac),
            Op::Release(of) => self.release(self.generation(of)),
            Op::ReleaseOwner { sandbox, run } => {
                let Owner { sandbox, lifecycle } = owner((sandbox, run.unwrap_or_default()));
                let lifecycle = run.map(|_| lifecycle);
                let _ = self.run(Command::ReleaseOwner { sandbox, lifecycle });
            }
            Op::Ack { of, second } => {
                let subscriber = if second { "firewall" } else { "proxy" };
                self.ack(self.generation(of), Arc::from(subscriber));
            }
            Op::Force { bridge, address: n } => self.force(bridge, address(n, false)),
            Op::Quarantine { bridge, address: n, on } => {
                let (segment, address) = (segment(bridge), address(n, false));
                let _ = self.run(match on {
                    true => Command::Quarantine { segment, address },
                    false => Command::Unquarantine { segment, address },
                });
            }
            Op::Gc => self.gc(),
            Op::Carve { id, bits, at, six } => self.carve(id, bits, at, six),
            Op::Uncarve { id } => self.uncarve(id),
            Op::Name { id, tap } => self.name(id, tap),
            Op::Unname { n, tap } => self.unname(n, tap),
            Op::Time(minutes) => self.pass_time(minutes),
            Op::WallBack => self.now.wall -= SignedDuration::from_hours(24),
            Op::Reconcile { runtime, directory } => {
                self.pass_with([runtime, directory].map(outcome));
            }
            Op::Passes => {
                for _ in 0..3 {
                    self.pass_time(6);
                    self.pass();
                }
            }
            Op::RecheckAll => self.recheck_all(),
            Op::Lag => self.lag = true,
            Op::NextCommitFails => self.fails = self.phase != Phase::Down,
            Op::Stop { in_order } => self.stop(in_order),
            Op::Start => drop(self.start()),
            Op::Restart { in_order } => {
                self.stop(in_order);
                self.start();
                self.end_boot_pass();
            }
            Op::LoseStore { at_once } => {
                self.stop(false);
                self.lose_store();
                if at_once {
                    self.end_boot_pass();
                }
            }
            Op::Reboot { containers_stay } => self.reboot(containers_stay),
            Op::Read(n) => drop(self.read(usize::from(n))),
            Op::Story(story) => self.story(story),
            Op::BootPass => self.end_boot_pass(),
            op => self.happens(op),
        }
    }

    /// What happens on the machine, whether the agent runs or not.
    fn happens(&mut self, op: Op) {
        let order = self.frames;
        self.frames += 1;
        self.drained = false;
        match op {
            Op::Link { number, name, bridge } => self.add_link(number, name, bridge),
            Op::LinkEnds(number) => self.end_link(u32::from(number)),
            Op::LinkAnew { number, name, bridge } => {
                let old = self.node.links.get(&u32::from(number)).map(|link| link.name);
                self.end_link(u32::from(number));
                if let Some(name) = name.or(old) {
                    self.add_link(number, name, Some(bridge));
                }
            }
            Op::Rename { number, name } => {
                let free = self.node.named(&node::link_name(name)).is_none();
                if let Some(link) = self.node.links.get_mut(&u32::from(number)).filter(|_| free) {
                    link.name = name;
                    self.tell_link(u32::from(number));
                }
            }
            Op::Move { number, bridge } => {
                let bridge = bridge.filter(|bridge| !self.node.absent[usize::from(*bridge)]);
                if let Some(link) = self.node.links.get_mut(&u32::from(number)) {
                    link.bridge = bridge;
                    self.tell_link(u32::from(number));
                }
            }
            Op::Frame { number, address: n, six, mac: other } => {
                let mac = mac(other.unwrap_or(number));
                let claimed = self.node.frame(u32::from(number), address(n, six), mac, order);
                if let Some((place, claim)) = claimed
                    && self.has_read_port(u32::from(number))
                {
                    self.live.claimed(&place.segment, place.address, claim);
                }
            }
            Op::Fade { bridge, address: n, six } => self.fade(bridge, n, six),
            Op::Ends(of) => {
                if !self.node.running.is_empty() {
                    let n = of.index(self.node.running.len());
                    self.node.running.remove(n);
                }
            }
            Op::Host { bridge, address: n } => {
                let address = (n % 2 == 0).then(|| address(n, false));
                self.node.hosts[usize::from(bridge)] = address.into_iter().collect();
                self.tell_hosts(bridge);
            }
            Op::Bridge { bridge, absent } => self.bridge(bridge, absent),
            op => self.is_listed(op),
        }
        if !self.lag {
            self.drain();
        }
    }

    /// What others list, and what the agent hears of it.
    fn is_listed(&mut self, op: Op) {
        let (since, wall) = (self.now.boot, self.now.wall);
        let entry = |owner, address, dead| Listed { owner, address, dead, since, wall };
        let named = |who: (u8, u8), any: bool| if any { any_run(who.0) } else { owner(who) };
        match op {
            Op::Container { n, who, run, address: label } => {
                let label = label.map(|n| address(n, false));
                self.node.containers.insert(n, entry(named(who, !run), label, false));
                self.containers_changed();
            }
            Op::ContainerOf { n, of, run, label } => {
                let generation = self.generation(of);
                let mut rows = self.shadow.values().filter_map(guard_core::lease::Row::lease);
                let lease = rows.find(|l| l.generation == generation).cloned();
                let lease = lease.filter(|lease| lease.state != State::Quarantined);
                if let Some((lease, mut owner)) =
                    lease.and_then(|l| Some((l.clone(), l.owner.clone()?)))
                {
                    if !run {
                        owner.lifecycle = Arc::from("");
                    }
                    let label = label.then_some(lease.address);
                    self.node.containers.insert(n, entry(owner, label, false));
                    self.containers_changed();
                }
            }
            Op::ContainerEnds(n) => {
                self.node.containers.remove(&n);
                self.containers_changed();
            }
            Op::Register { who, any_run } => {
                let owner = named(who, any_run);
                let new = entry(owner.clone(), None, false);
                self.node.registered.entry(owner).or_insert(new);
            }
            Op::Dies { who, any_run } => {
                if let Some(listed) = self.node.registered.get_mut(&named(who, any_run)) {
                    (listed.dead, listed.since, listed.wall) = (true, since, wall);
                }
            }
            Op::Index => {
                let old = std::mem::replace(&mut self.node.index, self.node.registered.clone());
                for (owner, listed) in &mut self.node.index {
                    let same = old.get(owner).filter(|old| old.dead == listed.dead);
                    let first = same.map_or((since, wall), |old| (old.since, old.wall));
                    (listed.since, listed.wall) = first;
                }
            }
            Op::StartsAgain { who } => {
                let (sandbox, run) = (named(who, true), named(who, false));
                let ended = entry(sandbox.clone(), None, true);
                self.node.index.retain(|owner, _| owner.sandbox != sandbox.sandbox);
                self.node.index.insert(sandbox.clone(), ended.clone());
                self.node.registered.insert(sandbox, ended);
                self.node.registered.insert(run.clone(), entry(run, None, false));
            }
            Op::Ask(directory) => self.begin_answer(usize::from(directory)),
            Op::Answer { directory, outcome: n } => {
                let which = if directory { DIRECTORY } else { RUNTIME };
                self.end_answer(which, outcome(n));
            }
            Op::StreamBreaks => self.stream_breaks(),
            other => unreachable!("{other:?}"),
        }
    }

    fn pass_time(&mut self, minutes: u8) {
        let time = SignedDuration::from_mins(i64::from(minutes));
        self.now.boot += time.unsigned_abs();
        self.now.wall += time;
        self.tick();
    }

    pub(super) fn tick(&mut self) {
        if let Ok(Reply::Done) = self.run(Command::Tick) {
            let due = self.engine.next_deadline();
            assert!(due.is_none_or(|due| due > self.now.boot), "{due:?}");
        }
    }

    fn add_link(&mut self, number: u8, name: u8, bridge: Option<u8>) {
        if self.node.add_link(u32::from(number), name, bridge) {
            self.tell_link(u32::from(number));
        }
    }

    fn end_link(&mut self, number: u32) {
        if self.node.remove_link(number) {
            self.tell_link_ended(number);
        }
    }

    /// What was claimed was not heard again, and did not answer.
    fn fade(&mut self, bridge: u8, n: u8, six: bool) {
        let place = guard_core::lease::Place { segment: segment(bridge), address: address(n, six) };
        for (number, _) in self.node.claims.remove(&place).unwrap_or_default() {
            self.live.withdraw(&place.segment, place.address, number);
        }
    }

    /// A bridge comes or goes; its ports and addresses go with it.
    fn bridge(&mut self, bridge: u8, absent: bool) {
        let at = usize::from(bridge);
        if self.node.absent[at] == absent {
            return;
        }
        self.node.absent[at] = absent;
        self.node.hosts[at].clear();
        for (number, link) in self.node.links.clone() {
            if link.bridge == Some(bridge) {
                self.node.links.get_mut(&number).unwrap().bridge = None;
                self.tell_link(number);
            }
        }
        self.tell_watched(bridge);
        self.tell_hosts(bridge);
    }

    /// Whether frames on a port are seen.
    pub(super) fn has_read_port(&self, number: u32) -> bool {
        let bridge = self.node.links.get(&number).and_then(|link| link.bridge);
        bridge.is_some_and(|bridge| self.has_read(Part::Ports(bridge)))
    }
}
