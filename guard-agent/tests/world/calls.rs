//! What controllers ask for, and what the answers must be.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use guard_core::{
    evidence::{Evidence, EvidenceView, Source},
    lease::{
        Lease, Place, Row, State,
        command::{Allocate, Command, Reason, Refusal, Reply},
    },
    owner::Owner,
};
use proptest::sample::Index;

use super::{
    World,
    agent::Phase,
    node::{self, Sandbox, bridge_of, can_be_handed_out, link_name, mac, owner, segment},
    rules::place_of,
};

/// The pools, each with its bridge.
pub(super) const POOLS: [(&str, u8); 4] = [("four", 0), ("six", 0), ("west", 1), ("many", 0)];

impl World {
    /// What the API refuses before it asks the engine.
    pub(super) fn may_allocate(&self) -> bool {
        match self.phase {
            Phase::Down => false,
            Phase::Blind => self.setup.allow,
            Phase::Up => true,
        }
    }

    pub(super) fn ask(
        &self,
        who: (u8, u8),
        pools: u8,
        address: Option<u8>,
        port: Option<u8>,
        with_mac: bool,
    ) -> Allocate {
        let Owner { sandbox, lifecycle } = owner(who);
        let interface = port.map(link_name);
        let number = interface.as_ref().and_then(|name| self.node.named(name));
        let bridge = number.and_then(|number| self.node.links[&number].bridge);
        let chosen = POOLS.iter().enumerate().filter(|(n, (_, on))| {
            pools & (1 << n) != 0 && interface.as_ref().is_none_or(|_| bridge.unwrap_or(0) == *on)
        });
        let names: Vec<Arc<str>> = chosen.map(|(_, (name, _))| Arc::from(*name)).collect();
        let six = names.len() == 1 && &*names[0] == "six";
        Allocate {
            pools: names,
            sandbox,
            lifecycle,
            address: address.map(|n| node::address(n, six)),
            mac: port.filter(|_| with_mac).map(mac),
            interface,
            ..Allocate::default()
        }
    }

    /// What the agent has read of a place. A label is about the segment on which its owner has it.
    pub(super) fn read_of(&self, place: &Place) -> Vec<Evidence> {
        let mut all = self.live.evidence(&place.segment, place.address);
        all.retain(|evidence| {
            let elsewhere = |(other, row): (&Place, &Row)| {
                let lease = row.lease().filter(|lease| lease.state.is_owned());
                (other.address == place.address && other.segment != place.segment)
                    && lease.is_some_and(|l| l.owner.as_ref().is_some_and(|o| evidence.names(o)))
            };
            evidence.source != Source::Inventory || !self.shadow.iter().any(elsewhere)
        });
        all
    }

    pub(super) fn allocate(&mut self, ask: Allocate) {
        if ask.interface.is_some() {
            // Whoever has resolved it was told by then.
            self.lag = false;
        }
        self.allocate_as_resolved(ask);
    }

    pub(super) fn allocate_as_resolved(&mut self, ask: Allocate) {
        let bridges =
            POOLS.iter().filter(|(name, _)| ask.pools.iter().any(|pool| **pool == **name));
        let absent = bridges.into_iter().any(|(_, bridge)| self.node.absent[usize::from(*bridge)]);
        if !self.may_allocate() || ask.pools.is_empty() || absent {
            return;
        }
        let owner =
            Owner { sandbox: Arc::clone(&ask.sandbox), lifecycle: Arc::clone(&ask.lifecycle) };
        self.before_call();
        let before = self.shadow.clone();
        let free: Vec<_> =
            self.engine.pools().into_iter().map(|pool| (pool.name, pool.free)).collect();
        let as_before = self.is_as_before(&ask, &owner);
        match self.apply(&Command::Allocate(ask.clone())) {
            Ok(Reply::Leases(leases)) => {
                assert_eq!(leases.len(), ask.pools.len());
                for lease in &leases {
                    assert_eq!(lease.owner.as_ref(), Some(&owner));
                    let was = before.get(&place_of(lease)).and_then(Row::lease).cloned();
                    self.was_asked_for(lease.generation);
                    if was.as_ref().is_some_and(|was| {
                        was.generation == lease.generation && was.state.is_owned()
                    }) {
                        self.told.push(lease.generation);
                        self.runs(lease);
                        continue;
                    }
                    let free = free.iter().find(|(name, _)| *name == lease.pool).unwrap().1;
                    self.handed_out(lease, was, free, &ask);
                    self.told.push(lease.generation);
                    self.runs(lease);
                }
                self.asks_again(ask, &leases);
            }
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => {
                assert!(!as_before || refusal.reason != Reason::OwnerHasLease, "{refusal}");
                self.refused(&refusal, &ask.pools);
            }
        }
    }

    /// Whether everything that is asked for is what the leases of this asker were asked for with.
    fn is_as_before(&self, ask: &Allocate, owner: &Owner) -> bool {
        let rows = self.shadow.values().filter_map(Row::lease);
        let mut own = rows.filter(|lease| {
            lease.state.is_owned()
                && lease.owner.as_ref() == Some(owner)
                && ask.pools.contains(&lease.pool)
        });
        own.all(|lease| {
            let given = self.given(lease.generation);
            given.is_some_and(|given| {
                !given.rebound
                    && given.asked.as_ref().is_some_and(|asked| {
                        (&asked.mac, &asked.interface, &asked.address)
                            == (&ask.mac, &ask.interface, &ask.address)
                    })
            })
        })
    }

    /// Whoever asks again gets the same.
    fn asks_again(&mut self, ask: Allocate, leases: &[Arc<Lease>]) {
        let again = self.run(Command::Allocate(Allocate { address: None, ..ask.clone() }));
        let Ok(Reply::Leases(again)) = again else { return };
        for (lease, again) in leases.iter().zip(again) {
            assert_eq!(lease.generation, again.generation, "not the same lease");
        }
        self.asked.push(ask);
    }

    /// The sandbox configures the address.
    fn runs(&mut self, lease: &Lease) {
        let (place, generation) = (place_of(lease), lease.generation);
        let owner = lease.owner.clone().expect("it has one");
        if self.node.running.iter().all(|s| (&s.place, &s.owner) != (&place, &owner)) {
            self.node.running.push(Sandbox { owner, place, generation });
        }
    }

    fn handed_out(&self, lease: &Lease, was: Option<Arc<Lease>>, free: u128, ask: &Allocate) {
        let Lease { address, generation, .. } = *lease;
        let place = place_of(lease);
        assert!(self.told.iter().all(|told| *told < generation), "a generation came twice");
        let owner = lease.owner.as_ref().expect("it has one");
        let read: Vec<_> = self.read_of(&place).into_iter().filter(|e| !e.names(owner)).collect();
        assert!(read.is_empty(), "{address} is live and was handed out: {read:?}");
        self.nobody_runs_with(&place, owner);
        assert!(
            self.engine.subnet_of(&place.segment, address).is_none(),
            "{address} is a subnet's"
        );
        let host = self.node.host_has(&place);
        let elsewhere = self.shadow.iter().filter(|(at, _)| **at != place && at.address == address);
        let mut elsewhere = elsewhere.filter_map(|(_, row)| row.lease());
        let moved = elsewhere
            .find(|l| l.pool == lease.pool && (l.state.is_owned() || l.state == State::Releasing));
        assert!(moved.is_none(), "{address} is given, and leased where the pool was: {moved:?}");
        assert!(can_be_handed_out(address) && (!host || self.phase == Phase::Blind));
        if let Some(was) = was {
            assert_eq!(was.state, State::Cooling, "{address}");
            if ask.address == Some(address) {
                assert_eq!(was.owner, lease.owner);
            } else {
                assert!(self.setup.bypass && lease.cooldown_bypassed);
                assert!(free == 0 || self.has_none_free(lease), "{address} before a free one");
            }
        }
    }

    /// Nobody else who was given this address runs with it, as far as anything speaks for that.
    fn nobody_runs_with(&self, place: &Place, asker: &Owner) {
        let others = self.node.running.iter().filter(|s| s.place == *place && s.owner != *asker);
        for Sandbox { owner, generation, .. } in others {
            let given = self.given(*generation).expect("it was given");
            let bound = given.bound.and_then(|serial| self.node.number_of(serial));
            assert_eq!(
                bound, None,
                "{place:?} is handed out, and {owner:?} has it behind its port"
            );
            let frames = self.node.claims.get(place).filter(|_| self.phase == Phase::Up);
            assert!(frames.is_none(), "{place:?} is handed out, and {owner:?} uses it");
        }
    }

    /// Free addresses that were passed over turned out to be live.
    fn has_none_free(&self, given: &Lease) -> bool {
        self.engine.pools().iter().any(|pool| pool.name == given.pool && pool.free == 0)
    }

    fn refused(&self, refusal: &Refusal, names: &[Arc<str>]) {
        let exhausted =
            matches!(refusal.reason, Reason::PoolExhausted | Reason::NoConflictFreeAddress);
        if !exhausted {
            return;
        }
        // One of the pools has nothing that could be given, and the reason says why.
        let dry = self.engine.pools().into_iter().any(|pool| {
            let known = self.known(&pool.segment, self.now.boot);
            let cooling = self.setup.bypass
                && known
                && pool.count(State::Cooling) > self.cooling_of_host(&pool);
            names.contains(&pool.name) && pool.free == 0 && !cooling
        });
        assert!(dry, "{refusal}, and there was one");
    }

    /// Cooling addresses that could not be given although the bypass is on: the host has them now.
    fn cooling_of_host(&self, pool: &guard_core::lease::PoolStatus) -> u64 {
        let hosts: &BTreeSet<IpAddr> = &self.node.hosts[bridge_of(&pool.segment)];
        if pool.segment.vlan != 0 {
            return 0;
        }
        let cooling = |address: &&IpAddr| {
            let place = Place { segment: pool.segment.clone(), address: **address };
            self.lease_at(&place).is_some_and(|lease| lease.state == State::Cooling)
        };
        hosts.iter().filter(|a| pool.prefix.contains(*a)).filter(cooling).count() as u64
    }

    pub(super) fn generation(&self, of: Index) -> u64 {
        if self.told.is_empty() { 7 } else { *of.get(&self.told) }
    }

    /// Calls that are fenced by a generation: they are about a lease that somebody has, or change
    /// nothing.
    pub(super) fn fenced(&mut self, generation: u64, command: &Command) {
        if self.phase == Phase::Down {
            return;
        }
        self.before_call();
        let before = self.rows();
        let owned = before.iter().any(|(_, row)| {
            row.lease().is_some_and(|l| l.generation == generation && l.state.is_owned())
        });
        let bind = matches!(command, Command::Bind { .. });
        match self.apply(command) {
            Ok(Reply::Leases(leases)) => {
                assert!(owned && leases[0].state == State::Active);
                self.was_asked_for(generation);
                self.runs(&leases[0]);
                if let Some(given) = self.given.get_mut(&generation).filter(|_| bind) {
                    given.rebound = true;
                }
            }
            Ok(Reply::Stale | Reply::NotFound) => {
                assert!(!owned);
                assert_eq!(self.rows(), before);
                let given = self.given(generation);
                assert!(given.is_none_or(|given| given.ended.is_some()), "it was not given back");
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    }

    pub(super) fn bind(&mut self, generation: u64, number: u8, with_mac: bool) {
        let link = self.node.links.get(&u32::from(number)).filter(|link| link.bridge.is_some());
        let Some(link) = link else { return };
        let lease = self.shadow.values().filter_map(Row::lease);
        let lease = lease.filter(|l| l.generation == generation).find(|l| l.state.is_owned());
        let bridge = lease.map(|lease| bridge_of(&lease.segment));
        if bridge.is_some_and(|bridge| link.bridge.map(usize::from) != Some(bridge)) {
            return;
        }
        if !self.has_read_port(u32::from(number)) {
            return;
        }
        let port = Some((link_name(link.name), u32::from(number)));
        let mac = with_mac.then(|| mac(number));
        self.lag = false;
        self.fenced(generation, &Command::Bind { generation, mac, port });
    }

    pub(super) fn release(&mut self, generation: u64) {
        if self.phase == Phase::Down {
            return;
        }
        self.before_call();
        let rows = self.rows();
        let lease = rows.iter().find_map(|(_, row)| {
            row.lease().filter(|l| l.generation == generation && l.state.is_owned())
        });
        match self.apply(&Command::Release(generation)) {
            Ok(Reply::Released(state, leases)) => {
                assert_eq!((leases.len(), lease.is_some()), (1, true));
                assert_eq!(state, leases[0].state);
            }
            Ok(Reply::Stale | Reply::NotFound) => {
                assert!(lease.is_none());
                assert_eq!(self.rows(), rows);
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    }

    pub(super) fn ack(&mut self, generation: u64, subscriber: Arc<str>) {
        // It counts from when it is said, whatever becomes of the address with it.
        let hold = self.given.get_mut(&generation).filter(|given| given.ended.is_some());
        let hold = hold.and_then(|given| given.holds.remove_entry(&subscriber));
        let ack = Command::AckHold { generation, subscriber };
        if let (Err(_), Some((subscriber, until))) = (self.run(ack), hold) {
            self.given.get_mut(&generation).unwrap().holds.insert(subscriber, until);
        }
    }

    pub(super) fn force(&mut self, bridge: u8, address: IpAddr) {
        let _ = self.run(Command::ForceRelease { segment: segment(bridge), address });
    }
}
