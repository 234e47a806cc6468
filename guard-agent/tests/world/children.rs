//! Child subnets and interface names among random histories.

use std::sync::Arc;

use guard_core::{
    evidence::EvidenceView,
    lease::{
        Place, Row, Subnet,
        command::{Command, Reason, Reply, ReserveSubnet, WhichSubnet},
    },
};
use ipnet::IpNet;

use super::{
    World,
    agent::Phase,
    node::{address, can_be_handed_out, segment},
};

fn prefix_of(tap: bool) -> Arc<str> {
    Arc::from(if tap { "tap" } else { "veth" })
}

fn id(n: u8) -> Arc<str> {
    Arc::from(format!("id{n}"))
}

impl World {
    /// What is in the way of a subnet; all of it can be counted, the pools being small.
    fn is_free(&self, prefix: IpNet) -> bool {
        prefix_addresses(prefix).all(|address| {
            let place = Place { segment: segment(0), address };
            can_be_handed_out(address)
                && self.shadow.get(&place).and_then(Row::lease).is_none()
                && !self.node.hosts[0].contains(&address)
                && !self.live.is_live(&place.segment, address)
                && self.engine.subnet_of(&place.segment, address).is_none()
        })
    }

    fn lowest(&self, six: bool, length: u8) -> Option<IpNet> {
        let parent: IpNet = if six { "fd00::/126" } else { "10.0.0.0/29" }.parse().unwrap();
        let mut blocks = parent.subnets(length).unwrap();
        blocks.find(|block| self.is_free(*block))
    }

    pub(super) fn carve(&mut self, n: u8, bits: u8, at: Option<u8>, six: bool) {
        if self.phase != Phase::Up {
            return;
        }
        self.before_call();
        let length = if six { 128 } else { 32 } - bits % 2;
        let pool = Arc::from(if six { "six" } else { "four" });
        let wanted = at.map(|n| IpNet::new(address(n, six), length).unwrap());
        let known: Option<Arc<Subnet>> =
            self.engine.subnets().find(|subnet| subnet.id == id(n)).cloned();
        let could = wanted.map_or_else(
            || self.lowest(six, length),
            |wanted| Some(wanted.trunc()).filter(|wanted| self.is_free(*wanted)),
        );
        let failing = self.fails;
        let ask = ReserveSubnet { pool: Arc::clone(&pool), id: id(n), length, prefix: wanted };
        match self.run(Command::ReserveSubnet(ask)) {
            Ok(Reply::Subnet(subnet)) => match known {
                Some(known) => assert_eq!(subnet, known, "not the same subnet"),
                None => assert_eq!(Some(subnet.prefix), could, "another was free"),
            },
            Ok(other) => panic!("{other:?}"),
            Err(refusal) if refusal.reason == Reason::StoreUnwritable => assert!(failing),
            Err(refusal) if refusal.reason == Reason::SubnetHeld => {
                let known = known.expect("it has one");
                let same = known.pool == pool && known.prefix.prefix_len() == length;
                assert!(!same || wanted.is_some_and(|wanted| wanted.trunc() != known.prefix));
            }
            Err(refusal) => assert_eq!((known, could), (None, None), "{refusal}"),
        }
    }

    pub(super) fn uncarve(&mut self, n: u8) {
        if self.phase != Phase::Up {
            return;
        }
        let known = self.engine.subnets().find(|subnet| subnet.id == id(n)).cloned();
        match (self.run(Command::ReleaseSubnet(WhichSubnet::Id(id(n)))), known) {
            (Ok(Reply::Subnet(released)), Some(known)) => {
                assert_eq!(released, known);
                // What is in use in it is nobody's to have.
                for address in prefix_addresses(known.prefix) {
                    let place = Place { segment: segment(0), address };
                    let live = !self.read_of(&place).is_empty();
                    let host = self.node.hosts[0].contains(&address);
                    assert!(!live || host || self.lease_at(&place).is_some(), "{address} is live");
                }
            }
            (Ok(Reply::NotFound), None) => {}
            (Err(refusal), _) => assert_eq!(refusal.reason, Reason::StoreUnwritable),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn name(&mut self, n: u8, tap: bool) {
        if self.phase != Phase::Up {
            return;
        }
        let prefix = prefix_of(tap);
        let of = |name: &Arc<guard_core::lease::InterfaceName>| {
            name.prefix == prefix && name.id == id(n)
        };
        let known = self.engine.interfaces().find(|name| of(name)).cloned();
        let taken = |name: &String| {
            self.node.named(name).is_some() || self.engine.interfaces().any(|i| *i.name == **name)
        };
        let lowest = (0..).map(|n| format!("{prefix}{n}")).find(|name| !taken(name));
        match self.run(Command::ReserveInterface { prefix: Arc::clone(&prefix), id: id(n) }) {
            Ok(Reply::Interface(name)) => match known {
                Some(known) => assert_eq!(name, known),
                None => assert_eq!(Some(name.name.to_string()), lowest),
            },
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => assert_eq!(refusal.reason, Reason::StoreUnwritable),
        }
    }

    pub(super) fn unname(&mut self, n: u8, tap: bool) {
        if self.phase != Phase::Up {
            return;
        }
        let name = Arc::from(format!("{}{n}", prefix_of(tap)));
        let was = self.engine.interfaces().any(|known| known.name == name);
        match self.run(Command::ReleaseInterface(Arc::clone(&name))) {
            Ok(reply) => assert_eq!(matches!(reply, Reply::Interface(_)), was),
            Err(refusal) => return assert_eq!(refusal.reason, Reason::StoreUnwritable),
        }
        assert!(self.engine.interfaces().all(|known| known.name != name));
    }

    /// No two subnets share an address, and none has one that is leased.
    pub(super) fn children_are_apart(&self) {
        let subnets: Vec<_> = self.engine.subnets().collect();
        for (n, subnet) in subnets.iter().enumerate() {
            for other in &subnets[..n] {
                let apart = !subnet.prefix.contains(&other.prefix)
                    && !other.prefix.contains(&subnet.prefix);
                assert!(apart, "{subnet} and {other}");
            }
        }
        for (place, row) in self.engine.rows() {
            let has = |subnet: &&&Arc<Subnet>| {
                subnet.segment == place.segment && subnet.prefix.contains(&place.address)
            };
            let inside = subnets.iter().any(|subnet| has(&subnet));
            assert!(!inside || row.lease().is_none(), "{} is in a subnet", place.address);
        }
    }
}

fn prefix_addresses(prefix: IpNet) -> impl Iterator<Item = std::net::IpAddr> {
    let (first, last) = (prefix.network(), prefix.broadcast());
    [first, last].into_iter().take(if first == last { 1 } else { 2 })
}
