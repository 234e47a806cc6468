//! The rules, one test each, on the engine alone.

mod callers;
mod carved;
mod confirm;
mod hand_out;
mod names;
mod observed;
mod order;
mod pages;
mod reaped;
mod released;
mod restored;
mod time;
mod workload;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    command::{Allocate, Command, Reason, Refusal, Reply},
    *,
};
use crate::{
    evidence::Device,
    evidence::{Changes, Evidence, EvidenceView, PortName, Source, Station, Unknown},
    mac::Mac,
    segment::Segment,
    time::Now,
};

/// Evidence as the tests make it up.
#[derive(Default)]
pub(crate) struct FakeView {
    pub(crate) evidence: HashMap<(Segment, IpAddr), Vec<Evidence>>,
    pub(crate) ports: HashSet<u32>,
    /// Names that ports do not have by their number.
    pub(crate) names: HashMap<u32, String>,
    pub(crate) links: HashSet<String>,
    pub(crate) owners: Vec<Evidence>,
    pub(crate) hosts: Vec<IpAddr>,
    /// Addresses that somebody probes for, and for how long they are held back.
    pub(crate) held_back: HashMap<IpAddr, Duration>,
    /// What is not known; everything is while there is nothing here.
    pub(crate) unknown: Option<Unknown>,
    /// All is known since then only.
    pub(crate) complete_since: Option<Duration>,
}

impl EvidenceView for FakeView {
    fn evidence(&self, segment: &Segment, address: IpAddr) -> Vec<Evidence> {
        self.evidence.get(&(segment.clone(), address)).cloned().unwrap_or_default()
    }

    fn held_back(&self, _: &Segment, address: IpAddr) -> Option<Duration> {
        self.held_back.get(&address).copied()
    }

    fn addresses(&self, segment: &Segment) -> Vec<IpAddr> {
        let of = self.evidence.keys().filter(|(s, _)| s == segment);
        of.map(|(_, address)| *address).collect()
    }

    fn owner(&self, owner: &Owner) -> Vec<Evidence> {
        self.owners.iter().filter(|evidence| evidence.names(owner)).cloned().collect()
    }

    fn port_exists(&self, ifindex: u32) -> bool {
        self.ports.contains(&ifindex)
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        let name = self.names.get(&ifindex).cloned();
        let interface = name.unwrap_or_else(|| format!("veth{ifindex}")).into();
        let port = PortName { interface, bridge: "br0".into(), uplink: false };
        self.ports.contains(&ifindex).then_some(port)
    }

    fn port_named(&self, bridge: &str, interface: &str) -> Option<u32> {
        let mut ports = self.ports.iter().filter_map(|at| Some((at, self.port(*at)?)));
        let named =
            ports.find(|(_, port)| *port.bridge == *bridge && *port.interface == *interface);
        named.map(|(ifindex, _)| *ifindex)
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        let mac = u8::try_from(ifindex).ok().map(|n| Mac([6, 0, 0, 0, 0, n]));
        self.ports.contains(&ifindex).then_some(Device { mac, ..Device::default() })
    }

    fn hosts(&self, _: &Segment) -> Vec<IpAddr> {
        self.hosts.clone()
    }

    fn complete(&self, _: &Segment, since: Duration) -> Result<(), Unknown> {
        if let Some(unknown) = &self.unknown {
            return Err(unknown.clone());
        }
        let late = self.complete_since.is_some_and(|complete| complete < since);
        if late { Err(Unknown::Source("a source")) } else { Ok(()) }
    }

    fn link_exists(&self, name: &str) -> bool {
        self.links.contains(name)
    }
}

pub(crate) fn evidence(
    source: Source,
    station: Option<&Station>,
    owner: Option<Owner>,
) -> Evidence {
    Evidence {
        source,
        detail: "as the test says".to_owned(),
        mac: station.map(|s| s.mac),
        interface: station.map(|s| Arc::clone(&s.interface)),
        ifindex: station.map(|s| s.ifindex),
        owner,
        id: None,
        unsure: false,
        since: Timestamp::UNIX_EPOCH,
        age: Duration::ZERO,
    }
}

/// MAC and port number n.
pub(crate) fn station(n: u8) -> Station {
    Station {
        mac: Mac([2, 0, 0, 0, 0, n]),
        interface: Arc::from(format!("veth{n}")),
        ifindex: u32::from(n),
    }
}

pub(crate) fn owner(sandbox: &str, lifecycle: &str) -> Owner {
    Owner { sandbox: Arc::from(sandbox), lifecycle: Arc::from(lifecycle) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn segment() -> Segment {
    Segment::new("br0", 0)
}

fn spec(prefix: &str) -> PoolSpec {
    PoolSpec::new("p", segment(), prefix.parse().unwrap())
}

fn pools(specs: impl IntoIterator<Item = PoolSpec>) -> Pools {
    Pools::new(specs.into_iter().map(|spec| Pool::new(spec).unwrap()).collect()).unwrap()
}

/// An engine with its surroundings. After each step the index must equal one built anew.
struct World {
    engine: Engine,
    view: FakeView,
    now: Now,
    changes: Vec<Write>,
    notices: Vec<Notice>,
}

impl World {
    fn new(specs: impl IntoIterator<Item = PoolSpec>) -> Self {
        let now = Now {
            boot: Duration::from_secs(1000),
            wall: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        Self {
            engine: Engine::new(pools(specs), HighWater::seed(now.wall)),
            view: FakeView::default(),
            now,
            changes: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// One pool "p" on br0.
    fn with(prefix: &str) -> Self {
        Self::new([spec(prefix)])
    }

    fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        let Applied { result, changes, notices } = self.engine.apply(command, &self.view, self.now);
        assert_eq!(self.engine.check(), Vec::<String>::new());
        self.changes = changes;
        self.notices = notices;
        result
    }

    fn allocate(&mut self, ask: Allocate) -> Result<Arc<Lease>, Refusal> {
        match self.run(Command::Allocate(ask))? {
            Reply::Leases(leases) => Ok(Arc::clone(&leases[0])),
            other => panic!("{other:?}"),
        }
    }

    /// A lease for a sandbox of this name.
    fn lease(&mut self, sandbox: &str) -> Arc<Lease> {
        self.allocate(ask(sandbox)).unwrap()
    }

    fn address(&mut self, sandbox: &str) -> String {
        self.lease(sandbox).address.to_string()
    }

    fn refused(&mut self, ask: Allocate) -> Reason {
        self.allocate(ask).unwrap_err().reason
    }

    /// The state at an address; none if it is free.
    fn state(&self, address: &str) -> Option<State> {
        self.engine.lease_at(&segment(), ip(address)).map(|lease| lease.state)
    }

    fn at(&self, address: &str) -> Arc<Lease> {
        Arc::clone(self.engine.lease_at(&segment(), ip(address)).unwrap())
    }

    fn release(&mut self, generation: Generation) -> Reply {
        self.run(Command::Release(generation)).unwrap()
    }

    fn see(&mut self, address: &str, evidence: Evidence) {
        self.view.evidence.entry((segment(), ip(address))).or_default().push(evidence);
    }

    fn see_wire(&mut self, address: &str, n: u8) {
        self.view.ports.insert(u32::from(n));
        self.see(address, evidence(Source::Wire, Some(&station(n)), None));
    }

    fn forget(&mut self, address: &str) {
        self.view.evidence.remove(&(segment(), ip(address)));
    }

    fn recheck(&mut self, address: &str) {
        self.run(Command::Look(Changes::of(segment(), ip(address)))).unwrap();
    }

    fn claim(&mut self, address: &str, n: u8) {
        let place = (segment(), ip(address));
        let mac = Some(station(n).mac);
        let known =
            self.view.evidence.get(&place).is_some_and(|all| all.iter().any(|e| e.mac == mac));
        if !known {
            self.see_wire(address, n);
        }
        self.recheck(address);
    }

    /// A link ends, and nothing has its number.
    fn link_ended(&mut self, n: u8) {
        self.view.ports.remove(&u32::from(n));
        self.look(|changes| changes.ended = BTreeSet::from([u32::from(n)]));
    }

    /// The host has these addresses.
    fn host(&mut self, addresses: &[&str]) {
        self.view.hosts = addresses.iter().map(|address| ip(address)).collect();
        self.look(|changes| changes.hosts = true);
    }

    /// A port is new, under the name of its number.
    fn port_added(&mut self, n: u8) {
        self.view.ports.insert(u32::from(n));
        self.look(|changes| changes.ports = BTreeSet::from([u32::from(n)]));
    }

    /// Something has changed.
    fn look(&mut self, what: impl FnOnce(&mut Changes)) {
        let mut changes = Changes::default();
        what(&mut changes);
        self.run(Command::Look(changes)).unwrap();
    }

    /// Time passes, and deadlines take effect.
    fn pass(&mut self, minutes: u64) {
        self.now.boot += Duration::from_secs(minutes * 60);
        self.now.wall += jiff::SignedDuration::from_mins(i64::try_from(minutes).unwrap());
        self.run(Command::Tick).unwrap();
    }
}

fn ask(sandbox: &str) -> Allocate {
    Allocate { pools: vec![Arc::from("p")], sandbox: Arc::from(sandbox), ..Allocate::default() }
}

fn ask_for(sandbox: &str, address: &str) -> Allocate {
    Allocate { address: Some(ip(address)), ..ask(sandbox) }
}
