//! A client of the ledger, and what it has been told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use fastrand::Rng;
use guard_agent::ledger::Ledger;
use guard_core::{
    lease::{
        Contents, Generation, InterfaceName, Lease, State, Subnet,
        command::{Allocate, Command, Reason, Refusal, Reply, ReserveSubnet, WhichSubnet},
    },
    mac::Mac,
    segment::Segment,
};

/// Who has to acknowledge every release.
pub(crate) const SUBSCRIBER: &str = "proxy";

/// What is on disk.
pub(crate) struct Seen {
    leases: HashMap<Generation, Arc<Lease>>,
    quarantined: BTreeSet<IpAddr>,
    subnets: BTreeMap<Arc<str>, Arc<Subnet>>,
    names: BTreeMap<Arc<str>, Arc<InterfaceName>>,
}

impl Seen {
    pub(crate) fn of(contents: Contents) -> Self {
        let Contents { rows, subnets, interfaces } = contents;
        let rows = rows.iter().filter_map(|(_, row)| row.lease().cloned());
        let (leases, others): (Vec<_>, Vec<_>) = rows.partition(|lease| lease.generation > 0);
        let count = leases.len();
        let leases: HashMap<_, _> = leases.into_iter().map(|l| (l.generation, l)).collect();
        assert_eq!(leases.len(), count, "a generation was given twice");
        Self {
            leases,
            quarantined: others.iter().map(|lease| lease.address).collect(),
            subnets: subnets.into_iter().map(|s| (Arc::clone(&s.id), s)).collect(),
            names: interfaces.into_iter().map(|i| (Arc::clone(&i.name), i)).collect(),
        }
    }

    /// The leases that somebody has.
    pub(crate) fn owned(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.leases.values().filter(|lease| lease.state.is_owned())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Client {
    id: usize,
    sandboxes: u32,
    ports: u32,
    /// Given to it and not given back, as it was told last.
    leases: BTreeMap<Generation, Arc<Lease>>,
    /// Given back, and whether the subscriber is done with it.
    ended: BTreeMap<Generation, bool>,
    names: BTreeMap<Arc<str>, Arc<InterfaceName>>,
    subnets: BTreeMap<Arc<str>, Arc<Subnet>>,
    quarantined: BTreeSet<IpAddr>,
    /// What it asked for and had no answer to: it asks one thing at a time.
    doubt: Option<Command>,
    /// How much it was told.
    pub(crate) answers: u64,
}

impl Client {
    pub(crate) fn new(id: usize) -> Self {
        Self { id, ..Self::default() }
    }

    /// Asks for one thing after the other; ends early where the power does.
    pub(crate) async fn work(&mut self, ledger: &Ledger, rng: &mut Rng, steps: u32) {
        for _ in 0..steps {
            let command = self.next(rng);
            self.doubt = Some(command.clone());
            match ledger.call(command.clone()).await {
                Ok(reply) => {
                    self.doubt = None;
                    self.answers += 1;
                    self.told(command, reply);
                }
                Err(Refusal { reason: Reason::StoreUnwritable | Reason::Stopping, .. }) => return,
                Err(refusal) => panic!("client {} was refused {command:?}: {refusal:?}", self.id),
            }
        }
    }

    fn next(&mut self, rng: &mut Rng) -> Command {
        let own = |what: &str| -> Arc<str> { Arc::from(format!("{what}{}x", self.id)) };
        let some = rng.choice(self.leases.keys().copied().collect::<Vec<_>>());
        match (rng.u8(0..20), some) {
            (0..4, Some(generation)) => Command::Confirm(generation),
            (4..7, Some(generation)) => {
                // A port speaks for the lease that was bound to it last.
                self.ports += 1;
                let port = u32::try_from(self.id).unwrap() * 100_000 + self.ports;
                let mac = Some(Mac([2, 0, 0, 0, 1, rng.u8(..)]));
                let port = Some((format!("veth{port}").into(), port));
                Command::Bind { generation, mac, port }
            }
            (7..10, Some(generation)) => Command::Release(generation),
            (10, _) => Command::ReserveInterface { prefix: own("tap"), id: own(rng_word(rng)) },
            (11, _) if !self.names.is_empty() => {
                Command::ReleaseInterface(rng.choice(self.names.keys()).unwrap().clone())
            }
            (12, _) => Command::ReserveSubnet(ReserveSubnet {
                pool: "six".into(),
                id: own(rng_word(rng)),
                length: 112,
                prefix: None,
            }),
            (13, _) if !self.subnets.is_empty() => {
                let id = rng.choice(self.subnets.keys()).unwrap().clone();
                Command::ReleaseSubnet(WhichSubnet::Id(id))
            }
            (14, _) => {
                let third = u8::try_from(200 + self.id).unwrap();
                let address = Ipv4Addr::new(10, 0, third, rng.u8(1..20)).into();
                if self.quarantined.contains(&address) {
                    Command::Unquarantine { segment: segment(), address }
                } else {
                    Command::Quarantine { segment: segment(), address }
                }
            }
            (15..18, _) if self.ended.values().any(|done| !done) => {
                let open = self.ended.iter().filter(|(_, done)| !**done);
                let generation = *rng.choice(open.collect::<Vec<_>>()).unwrap().0;
                Command::AckHold { generation, subscriber: SUBSCRIBER.into() }
            }
            _ => {
                self.sandboxes += 1;
                let both = [Arc::from("p"), Arc::from("six")];
                Command::Allocate(Allocate {
                    pools: both[..rng.usize(1..3)].to_vec(),
                    sandbox: format!("c{}-{}", self.id, self.sandboxes).into(),
                    lifecycle: "1".into(),
                    key: "eth0".into(),
                    mac: rng.bool().then(|| Mac([2, 0, 0, 0, 0, rng.u8(..)])),
                    labels: BTreeMap::from([("n".to_owned(), self.sandboxes.to_string())]),
                    confirmed: rng.bool(),
                    ..Allocate::default()
                })
            }
        }
    }

    fn told(&mut self, command: Command, reply: Reply) {
        match (command, reply) {
            (_, Reply::Stale) => panic!("its own lease is stale"),
            (Command::Quarantine { address, .. }, _) => drop(self.quarantined.insert(address)),
            (Command::Unquarantine { address, .. }, _) => drop(self.quarantined.remove(&address)),
            (Command::AckHold { generation, .. }, _) => drop(self.ended.insert(generation, true)),
            (Command::ReleaseInterface(name), _) => drop(self.names.remove(&name)),
            (Command::ReleaseSubnet(WhichSubnet::Id(id)), _) => drop(self.subnets.remove(&id)),
            (Command::Release(generation), Reply::Released(..)) => {
                self.leases.remove(&generation);
                self.ended.insert(generation, false);
            }
            (_, Reply::Leases(leases)) => {
                self.leases.extend(leases.into_iter().map(|lease| (lease.generation, lease)));
            }
            (_, Reply::Interface(name)) => drop(self.names.insert(Arc::clone(&name.name), name)),
            (_, Reply::Subnet(subnet)) => drop(self.subnets.insert(Arc::clone(&subnet.id), subnet)),
            (command, reply) => panic!("{command:?} was answered by {reply:?}"),
        }
    }

    /// Compares what it was told with what is on disk, and learns what became of what it was not
    /// told of. `booted` says whether leases may have been carried over to another boot since, in
    /// which the ports that they were bound to have ended.
    pub(crate) fn verify(&mut self, seen: &Seen, booted: bool) {
        let doubt = self.doubt.take();
        if let Some(doubt) = &doubt {
            self.settle(doubt, seen);
        }
        for (generation, told) in &self.leases {
            let found = seen.leases.get(generation);
            let found = found.unwrap_or_else(|| panic!("acknowledged and lost: {told:?}"));
            let ended = booted && found.binding.interface.is_none();
            let same = |lease: &Lease| {
                let binding = &lease.binding;
                let interface = binding.interface.clone().filter(|_| !ended);
                let (owner, labels) = (lease.owner.clone(), lease.labels.clone());
                (
                    lease.address,
                    lease.state,
                    owner,
                    labels,
                    binding.declared,
                    binding.mac,
                    interface,
                )
            };
            assert_eq!(same(found), same(told), "{doubt:?}");
        }
        for (generation, done) in &self.ended {
            // Its address may be somebody else's by now.
            let Some(found) = seen.leases.get(generation) else { continue };
            assert!(!found.state.is_owned(), "given back, and there again: {found:?}");
            let waits = found.holds.iter().any(|hold| &*hold.subscriber == SUBSCRIBER);
            assert_eq!(waits, !done, "the hold: {found:?}, {doubt:?}");
            assert!(*done || found.state == State::Releasing, "{found:?}");
        }
        let names = &seen.names;
        assert!(self.names.iter().all(|(name, told)| names.get(name) == Some(told)), "{doubt:?}");
        let prefix = format!("tap{}x", self.id);
        let found = names.values().filter(|name| *name.prefix == *prefix).count();
        assert_eq!(found, self.names.len(), "{doubt:?}");
        let of_ours = |id: &str| id.ends_with(&format!("{}x", self.id));
        assert!(self.subnets.iter().all(|(id, told)| seen.subnets.get(id) == Some(told)));
        let found = seen.subnets.keys().filter(|id| of_ours(id)).count();
        assert_eq!(found, self.subnets.len(), "{doubt:?}");
        assert!(self.quarantined.is_subset(&seen.quarantined), "{doubt:?}");
    }

    /// Takes what it had no answer to for what it has come to.
    fn settle(&mut self, doubt: &Command, seen: &Seen) {
        match doubt {
            Command::Allocate(ask) => {
                let of = |lease: &&Arc<Lease>| {
                    lease.owner.as_ref().is_some_and(|owner| owner.sandbox == ask.sandbox)
                };
                let given: Vec<_> = seen.owned().filter(of).cloned().collect();
                assert!([0, ask.pools.len()].contains(&given.len()), "in part: {given:?}");
                self.leases.extend(given.into_iter().map(|lease| (lease.generation, lease)));
            }
            Command::Confirm(generation) | Command::Bind { generation, .. } => {
                let found = seen.leases.get(generation).expect("acknowledged");
                assert!(found.state.is_owned(), "{found:?}");
                self.leases.insert(*generation, Arc::clone(found));
            }
            Command::Release(generation) => {
                let found = seen.leases.get(generation).expect("acknowledged");
                if !found.state.is_owned() {
                    self.leases.remove(generation);
                    self.ended.insert(*generation, false);
                }
            }
            Command::AckHold { generation, .. } => {
                let found = seen.leases.get(generation);
                let done = found.is_none_or(|lease| lease.holds.is_empty());
                self.ended.insert(*generation, done);
            }
            Command::ReserveInterface { prefix, .. } => {
                let ours = seen.names.iter().filter(|(_, name)| name.prefix == *prefix);
                self.names.extend(ours.map(|(name, all)| (Arc::clone(name), Arc::clone(all))));
            }
            Command::ReleaseInterface(name) => {
                if !seen.names.contains_key(name) {
                    self.names.remove(name);
                }
            }
            Command::ReserveSubnet(ReserveSubnet { id, .. }) => {
                if let Some(subnet) = seen.subnets.get(id) {
                    self.subnets.insert(Arc::clone(id), Arc::clone(subnet));
                }
            }
            Command::ReleaseSubnet(WhichSubnet::Id(id)) => {
                if !seen.subnets.contains_key(id) {
                    self.subnets.remove(id);
                }
            }
            Command::Quarantine { address, .. } | Command::Unquarantine { address, .. } => {
                if seen.quarantined.contains(address) {
                    self.quarantined.insert(*address);
                } else {
                    self.quarantined.remove(address);
                }
            }
            other => panic!("no client asks {other:?}"),
        }
    }

    /// Whether a lease is one that it knows of.
    pub(crate) fn has(&self, generation: Generation) -> bool {
        self.leases.contains_key(&generation)
    }

    /// Whether what it was told last is what there is: names of ports may end with the boot.
    pub(crate) fn learn(&mut self, leases: &[Arc<Lease>]) {
        for lease in leases {
            if let Some(told) = self.leases.get_mut(&lease.generation) {
                *told = Arc::clone(lease);
            }
        }
    }

    /// The highest generation that it was ever given.
    pub(crate) fn highest(&self) -> Generation {
        let of = |keys: Option<&Generation>| keys.copied().unwrap_or(0);
        of(self.leases.keys().next_back()).max(of(self.ended.keys().next_back()))
    }
}

pub(crate) fn segment() -> Segment {
    Segment::new("br0", 0)
}

fn rng_word(rng: &mut Rng) -> &'static str {
    rng.choice(["a", "b", "c", "d"]).unwrap()
}
