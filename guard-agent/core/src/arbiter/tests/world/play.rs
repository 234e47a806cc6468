//! What happens in the world, step by step.

use super::*;

impl Play {
    /// Whoever is behind a port answers probes from now on, or does not.
    pub(crate) fn answers(&mut self, port: u32, answers: bool) {
        self.world.ports.get_mut(&port).unwrap().answers = answers;
    }

    /// Two access ports and more, by their ifindexes.
    pub(crate) fn new(access: &[u32], uplinks: &[u32]) -> Self {
        let mut world = World::new();
        access.iter().for_each(|ifindex| world.add_port(*ifindex, false));
        uplinks.iter().for_each(|ifindex| world.add_port(*ifindex, true));
        Self { arbiter: Arbiter::new(world.conflict, &Quota::default()), world }
    }

    /// Nothing has happened yet.
    pub(crate) fn set_quiet(&mut self, quiet: Duration) {
        let conflict = Conflict { quiet, ..self.world.conflict };
        let flaps = Flaps::new(conflict.flap_window, conflict.flap_count);
        self.world.incidents = Incidents::new(quiet, flaps, 1);
        self.world.conflict = conflict;
        self.arbiter = Arbiter::new(conflict, &Quota::default());
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.arbiter.handle(event, &mut self.world);
        while let Some((ifindex, frame)) = self.world.frames.pop_front() {
            self.send(ifindex, &frame);
        }
    }

    pub(crate) fn send(&mut self, ifindex: u32, frame: &[u8]) {
        let Some(port) = self.world.ports.get(&ifindex).filter(|port| port.exists) else { return };
        let port = port.abi;
        self.world.model.watch(frame, &port);
        self.drain(ifindex);
    }

    /// Takes in what the program has told.
    pub(crate) fn drain(&mut self, from: u32) {
        for event in std::mem::take(&mut self.world.model.events) {
            assert_eq!(event.ifindex, from);
            let read = self.world.read(&event);
            self.handle(Event::Frame { event, read });
        }
    }

    /// Lets time pass, with all that is due in it.
    pub(crate) fn wait(&mut self, span: Duration) {
        let second = Duration::from_secs(1);
        let end = self.world.now().monotonic + span;
        loop {
            let now = self.world.now().monotonic;
            let due = self.arbiter.next_due().unwrap_or(end);
            let next = due.min(now + second).min(end).max(now);
            self.world.model.now_ns = u64::try_from(next.as_nanos()).unwrap();
            if self.arbiter.next_due().is_some_and(|due| due <= next) {
                self.handle(Event::Tick);
                assert!(self.arbiter.next_due().is_none_or(|due| due > next), "it stays due");
            }
            let silent = self.world.incidents.silent(self.world.now().now);
            self.handle(Event::Silent(silent));
            self.world.close();
            if next >= end {
                return;
            }
        }
    }

    /// The kernel has removed a port; `told` by netlink, or not yet.
    pub(crate) fn end_port(&mut self, ifindex: u32, told: bool) {
        if let Some(port) = self.world.ports.get_mut(&ifindex) {
            port.exists = false;
        }
        if !told || self.world.ports.remove(&ifindex).is_none() {
            return;
        }
        let mut addresses = Vec::new();
        for (place, claims) in &mut self.world.evidence {
            if claims.remove(&ifindex).is_some() {
                addresses.push(place.clone());
            }
        }
        self.world.model.macs.retain(|_, holder| holder.ifindex != ifindex);
        self.handle(Event::PortGone { ifindex, addresses });
        let now = self.world.now().now;
        let closed = self.world.incidents.port_gone(ifindex, now);
        self.world.closed.extend(closed);
    }

    /// A port leaves the bridge. Its link is there still, and so is what was claimed behind it.
    pub(crate) fn leave_bridge(&mut self, ifindex: u32) {
        if self.world.ports.remove(&ifindex).is_none() {
            return;
        }
        let claimed = self.world.evidence.iter().filter(|(_, of)| of.contains_key(&ifindex));
        let addresses = claimed.map(|(place, _)| place.clone()).collect();
        self.world.model.macs.retain(|_, holder| holder.ifindex != ifindex);
        self.handle(Event::PortGone { ifindex, addresses });
        let now = self.world.now().now;
        let closed = self.world.incidents.port_left(ifindex, now);
        self.world.closed.extend(closed);
    }

    pub(crate) fn lose_carrier(&mut self, ifindex: u32) {
        if let Some(port) = self.world.ports.get_mut(&ifindex) {
            port.carrier = false;
            self.handle(Event::CarrierLost { ifindex });
        }
    }

    /// A binding is written, and what was disputed about the address is settled.
    pub(crate) fn bind(&mut self, address: Ipv4Addr, to: Option<(u32, Mac)>) {
        let owned = to.map(|(ifindex, Mac(mac))| Owned {
            generation: 1,
            ifindex,
            mac,
            flags: OWNED_LEASED | OWNED_MAC | OWNED_PORT,
            ..Owned::zeroed()
        });
        self.bind_as(address, owned);
    }

    pub(crate) fn bind_as(&mut self, address: Ipv4Addr, owned: Option<Owned>) {
        let (key, address) = (AddressKey::new(BRIDGE, 0, address.into()), address.into());
        let former = self.world.holder(&segment(), address).map(|holder| holder.binding);
        let now = self.world.now().now;
        let Some(owned) = owned else {
            self.world.model.owned.remove(&key);
            self.world.closed.extend(self.world.incidents.settled(
                &segment(),
                Target::Address(address),
                now,
            ));
            return;
        };
        self.world.model.owned.insert(key, owned);
        if let Some(holder) = self.world.holder(&segment(), address) {
            let owner = holder.claimant(now);
            let closed =
                self.world.incidents.bound(&segment(), address, (&holder.binding, &owner), now);
            self.world.closed.extend(closed);
        }
        self.handle(Event::Bound(vec![(segment(), address, former)]));
    }

    /// The maps are read anew, and the claims looked at.
    pub(crate) fn read_maps(&mut self) {
        let mut live: Vec<_> = self.world.model.live.clone().into_iter().collect();
        live.sort_by_key(|(key, _)| *key);
        for (key, live) in live {
            self.handle(Event::Live(key, live));
        }
        let mut owned: Vec<_> = self.world.model.owned.clone().into_iter().collect();
        owned.retain(|(_, owned)| owned.seen_ns != 0);
        owned.sort_by_key(|(key, _)| *key);
        for (key, owned) in owned {
            self.handle(Event::Owner(key, owned));
        }
        let mut challengers: Vec<_> = self.world.model.challengers.clone().into_iter().collect();
        challengers.sort_by_key(|(key, _)| (key.key, key.ifindex, key.mac, key.kind));
        for (key, challenger) in challengers {
            let live = self.world.model.live.get(&key.key).copied();
            let live = live.filter(|_| Read::needs_live(key.kind));
            let blocked = self.world.ports.get(&key.ifindex).is_some_and(|port| port.blocked);
            self.handle(Event::Challenger { key, challenger, live, blocked, missed: Missed::No });
        }
        let evidence = self.world.evidence.iter();
        let claims = evidence.map(|((segment, address), claims)| {
            (segment.clone(), *address, claims.values().cloned().collect())
        });
        self.handle(Event::Evidence(claims.collect()));
    }

    /// What is open, as kind and MACs of its claimants.
    pub(crate) fn open(&self) -> Vec<(Kind, BTreeSet<Mac>)> {
        let told = |incident: &Incident| {
            let macs = incident.claimants.iter().filter_map(|claimant| claimant.mac);
            (incident.kind, macs.collect())
        };
        self.world.incidents.list(false).iter().map(told).collect()
    }

    pub(crate) fn probes(&self) -> usize {
        let probes = self.world.log.iter().filter(|effect| matches!(effect, Effect::Probe { .. }));
        probes.count()
    }
}
