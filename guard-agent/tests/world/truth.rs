//! What is true of the world, whatever the engine believes.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use guard_agent::{
    evidence::{Evidence, EvidenceView, PortName, Source, Station, Unknown},
    lease::{Owner, Row, RowChange, State, model::Device},
    mac::Mac,
    segment::Segment,
};
use jiff::Timestamp;

/// Who uses which address.
#[derive(Default)]
pub struct Truth {
    on_wire: BTreeMap<IpAddr, HashSet<u8>>,
    contained: BTreeMap<IpAddr, Vec<Owner>>,
    pub ports: HashSet<u32>,
    pub host: Vec<IpAddr>,
    /// Interfaces that somebody made.
    pub links: HashSet<String>,
}

/// MAC and port number n.
pub fn station(n: u8) -> Station {
    Station {
        mac: Mac([2, 0, 0, 0, 0, n]),
        interface: Arc::from(format!("veth{n}")),
        ifindex: u32::from(n),
    }
}

/// Of the two pools of the tests.
pub fn can_be_handed_out(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => (2..=6).contains(&v4.octets()[3]),
        IpAddr::V6(v6) => (2..=3).contains(&v6.segments()[7]),
    }
}

/// The table of states, written down once more.
pub fn assert_legal(change: &RowChange) {
    let state = |row: &Option<Row>| {
        row.as_ref().and_then(Row::lease).map_or("free", |lease| lease.state.name())
    };
    let (from, to) = (state(&change.old), state(&change.new));
    let table = [
        ("free", "held active quarantined"),
        ("held", "active releasing cooling quarantined"),
        ("active", "releasing cooling"),
        ("releasing", "cooling"),
        ("cooling", "free held active quarantined"),
        ("quarantined", "free active"),
    ];
    let to_states = table.iter().find(|(state, _)| *state == from).expect("a state").1;
    let legal = from == to || to_states.split(' ').any(|state| state == to);
    assert!(legal, "{}: {from} → {to}", change.place.address);
    if let Some(Row::Lease(lease)) = &change.new {
        let ends = matches!(lease.state, State::Held | State::Cooling);
        assert!(!ends || lease.until.is_some(), "{:?} never ends", lease.state);
        let owned = lease.state != State::Quarantined;
        assert!(!owned || (lease.owner.is_some() && lease.generation > 0));
    }
}

impl Truth {
    pub fn claim(&mut self, address: IpAddr, port: u8) {
        self.ports.insert(u32::from(port));
        self.on_wire.entry(address).or_default().insert(port);
    }

    pub fn silence(&mut self, address: IpAddr) {
        self.on_wire.remove(&address);
        self.contained.remove(&address);
    }

    /// Answers which addresses lost evidence.
    pub fn port_gone(&mut self, port: u8) -> Vec<IpAddr> {
        self.ports.remove(&u32::from(port));
        let lost = self.on_wire.iter_mut().filter_map(|(a, on)| on.remove(&port).then_some(*a));
        let lost: Vec<_> = lost.collect();
        self.on_wire.retain(|_, on| !on.is_empty());
        lost
    }

    pub fn contain(&mut self, address: IpAddr, owner: Owner) {
        self.contained.entry(address).or_default().push(owner);
    }

    pub fn reboot(&mut self) {
        *self = Self { host: std::mem::take(&mut self.host), ..Self::default() };
    }
}

impl EvidenceView for Truth {
    fn evidence(&self, _: &Segment, address: IpAddr) -> Vec<Evidence> {
        let blank = |source| Evidence {
            source,
            detail: String::new(),
            mac: None,
            interface: None,
            ifindex: None,
            owner: None,
            id: None,
            unsure: false,
            since: Timestamp::UNIX_EPOCH,
            age: Duration::ZERO,
        };
        let wire = self.on_wire.get(&address).into_iter().flatten().map(|n| {
            let Station { mac, interface, ifindex } = station(*n);
            let (mac, interface, ifindex) = (Some(mac), Some(interface), Some(ifindex));
            Evidence { mac, interface, ifindex, ..blank(Source::Wire) }
        });
        let contained = self.contained.get(&address).into_iter().flatten();
        wire.chain(
            contained.map(|o| Evidence { owner: Some(o.clone()), ..blank(Source::Inventory) }),
        )
        .collect()
    }

    fn addresses(&self, _: &Segment) -> Vec<IpAddr> {
        self.on_wire.keys().chain(self.contained.keys()).copied().collect()
    }

    fn owner(&self, _owner: &Owner) -> Vec<Evidence> {
        Vec::new()
    }

    fn port_exists(&self, ifindex: u32) -> bool {
        self.ports.contains(&ifindex)
    }

    fn port(&self, ifindex: u32) -> Option<PortName> {
        let Station { interface, .. } = station(u8::try_from(ifindex).ok()?);
        let port = PortName { interface, bridge: Arc::from("br0"), uplink: false };
        self.ports.contains(&ifindex).then_some(port)
    }

    fn port_named(&self, _: &str, interface: &str) -> Option<u32> {
        let named =
            |port: &&u32| self.port(**port).is_some_and(|port| *port.interface == *interface);
        self.ports.iter().find(named).copied()
    }

    fn device(&self, _: u32) -> Option<Device> {
        None
    }

    fn hosts(&self, _: &Segment) -> Vec<IpAddr> {
        self.host.clone()
    }

    fn complete(&self, _: &Segment, _: Duration) -> Result<(), Unknown> {
        Ok(())
    }

    fn link_exists(&self, name: &str) -> bool {
        self.links.contains(name)
    }
}
