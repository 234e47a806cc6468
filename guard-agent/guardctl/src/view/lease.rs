use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{Evidence, number, text, time, word};
use crate::{
    output::{Screen, View},
    table::{Table, cell, signal},
};

/// An address that is not free, whoever has it.
#[derive(Debug, Serialize)]
pub struct Lease {
    pub address: Option<String>,
    pub prefix_len: u32,
    pub gateway: Option<String>,
    pub pool: Option<String>,
    pub bridge: Option<String>,
    pub vlan: u32,
    pub state: Option<String>,
    pub sandbox: Option<String>,
    pub lifecycle: Option<String>,
    pub key: Option<String>,
    pub generation: Option<u64>,
    pub mac: Option<String>,
    pub interface: Option<String>,
    pub binding: Option<String>,
    pub reason: Option<String>,
    pub evidence: Vec<Evidence>,
    pub holds: Vec<String>,
    pub misses: u32,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub cooldown_bypassed: bool,
    pub maker: Option<u32>,
}

impl From<proto::Lease> for Lease {
    fn from(lease: proto::Lease) -> Self {
        Self {
            state: word(lease.state().as_str_name(), "LEASE_STATE_"),
            binding: word(lease.binding().as_str_name(), "BINDING_"),
            address: text(lease.address),
            prefix_len: lease.prefix_len,
            gateway: text(lease.gateway),
            pool: text(lease.pool),
            bridge: text(lease.bridge),
            vlan: lease.vlan,
            sandbox: text(lease.sandbox),
            lifecycle: text(lease.lifecycle),
            key: text(lease.key),
            generation: number(lease.generation),
            mac: text(lease.mac),
            interface: text(lease.interface),
            reason: text(lease.reason),
            evidence: lease.evidence.into_iter().map(Evidence::from).collect(),
            holds: lease.holds,
            misses: lease.misses,
            created_at: time(lease.created_at),
            updated_at: time(lease.updated_at),
            until: time(lease.until),
            cooldown_bypassed: lease.cooldown_bypassed,
            maker: lease.maker,
        }
    }
}

impl Lease {
    /// The MAC: the binding's, else that of whoever is seen at the address.
    pub fn seen_mac(&self) -> Option<&str> {
        let evidence = || self.evidence.iter().find_map(|evidence| evidence.mac.as_deref());
        self.mac.as_deref().or_else(evidence)
    }

    /// The port: the binding's, else that of whoever is seen at the address.
    pub fn seen_interface(&self) -> Option<&str> {
        let evidence = || self.evidence.iter().find_map(|evidence| evidence.interface.as_deref());
        self.interface.as_deref().or_else(evidence)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.reason.as_ref().map(|reason| format!("reason: {reason}")));
        if !self.holds.is_empty() {
            notes.push(format!("waits for: {}", self.holds.join(", ")));
        }
        notes
    }
}

impl View for Lease {
    fn text(&self, screen: Screen) -> String {
        table(std::slice::from_ref(self), screen)
    }
}

/// A list of leases.
#[derive(Debug, Serialize)]
pub struct Leases {
    pub leases: Vec<Lease>,
}

impl From<Vec<proto::Lease>> for Leases {
    fn from(leases: Vec<proto::Lease>) -> Self {
        Self { leases: leases.into_iter().map(Lease::from).collect() }
    }
}

impl View for Leases {
    fn text(&self, screen: Screen) -> String {
        table(&self.leases, screen)
    }
}

/// The leases as a table; the reason stands beneath its row.
pub fn table(leases: &[Lease], screen: Screen) -> String {
    let headers = &["ADDRESS", "STATE", "SANDBOX", "GENERATION", "MAC", "INTERFACE"];
    let mut table = Table::new(headers, &["SANDBOX", "INTERFACE"]);
    for lease in leases {
        let generation = lease.generation.map(|generation| generation.to_string());
        let cells = [
            cell(lease.address.as_deref()),
            signal(lease.state.as_deref()),
            cell(lease.sandbox.as_deref()),
            cell(generation.as_deref()),
            cell(lease.seen_mac()),
            cell(lease.seen_interface()),
        ];
        table.row(cells, lease.notes());
    }
    table.text(screen, "no leases")
}

#[cfg(test)]
pub mod tests {
    use super::{
        super::{
            evidence::tests::{WIRE, wire},
            testing::{golden, shown, stamp},
        },
        *,
    };

    pub fn active() -> proto::Lease {
        proto::Lease {
            address: "10.8.64.2".to_owned(),
            prefix_len: 24,
            gateway: "10.8.64.1".to_owned(),
            pool: "sandboxes".to_owned(),
            bridge: "rt0".to_owned(),
            state: proto::LeaseState::Active.into(),
            sandbox: "web-1".to_owned(),
            generation: 1_866_435_632_857_088,
            mac: "02:00:00:00:00:0a".to_owned(),
            interface: "veth-web-1".to_owned(),
            binding: proto::Binding::Declared.into(),
            created_at: stamp(1),
            updated_at: stamp(2),
            maker: Some(990),
            labels: [("team".to_owned(), "a".to_owned())].into(),
            ..proto::Lease::default()
        }
    }

    pub const ACTIVE: &str = r#"{"address":"10.8.64.2","prefix_len":24,"gateway":"10.8.64.1",
        "pool":"sandboxes","bridge":"rt0","vlan":0,"state":"active","sandbox":"web-1",
        "lifecycle":null,"key":null,"generation":1866435632857088,"mac":"02:00:00:00:00:0a",
        "interface":"veth-web-1","binding":"declared","reason":null,"evidence":[],"holds":[],
        "misses":0,"created_at":"1970-01-01T00:00:01Z","updated_at":"1970-01-01T00:00:02Z",
        "until":null,"cooldown_bypassed":false,"maker":990}"#;

    fn squatted() -> proto::Lease {
        proto::Lease {
            address: "10.8.64.3".to_owned(),
            prefix_len: 24,
            pool: "sandboxes".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 7,
            state: proto::LeaseState::Quarantined.into(),
            reason: "live".to_owned(),
            evidence: vec![wire()],
            holds: vec!["nfs-proxy".to_owned()],
            misses: 2,
            until: stamp(70),
            cooldown_bypassed: true,
            ..proto::Lease::default()
        }
    }

    #[test]
    fn lease_as_json() {
        golden(&Lease::from(active()), ACTIVE);
        let squatted = Leases::from(vec![squatted()]);
        golden(
            &squatted,
            &[
                r#"{"leases":[{"address":"10.8.64.3","prefix_len":24,"gateway":null,
                "pool":"sandboxes","bridge":"rt0","vlan":7,"state":"quarantined","sandbox":null,
                "lifecycle":null,"key":null,"generation":null,"mac":null,"interface":null,
                "binding":null,"reason":"live","evidence":["#,
                WIRE,
                r#"],"holds":["nfs-proxy"],"misses":2,"created_at":null,"updated_at":null,
                "until":"1970-01-01T00:01:10Z","cooldown_bypassed":true,"maker":null}]}"#,
            ]
            .concat(),
        );
    }

    #[test]
    fn a_quarantined_row_shows_mac_and_port_of_whoever_is_there() {
        assert_eq!(
            shown(&Leases::from(vec![active(), squatted()])),
            "\
ADDRESS    STATE        SANDBOX  GENERATION        MAC                INTERFACE
10.8.64.2  active       web-1    1866435632857088  02:00:00:00:00:0a  veth-web-1
10.8.64.3  quarantined  -        -                 02:00:00:00:00:0c  veth-c
  reason: live
  waits for: nfs-proxy
"
        );
        assert_eq!(shown(&Leases::from(vec![])), "no leases\n");
    }
    #[test]
    fn long_names_wrap_and_everything_else_stays_whole() {
        let long = proto::Lease {
            sandbox: "3f2a90c1d4e5".repeat(3),
            interface: "veth3f2a9".to_owned(),
            ..active()
        };
        let text = shown(&Leases::from(vec![long, squatted()]));
        for whole in ["1866435632857088", "02:00:00:00:00:0a", "quarantined", "veth3f2a9"] {
            assert!(text.contains(whole), "{whole} is not in:\n{text}");
        }
    }

    #[test]
    fn the_longest_names_give_way_too() {
        let longest = proto::Lease {
            address: "10.100.200.250".to_owned(),
            state: proto::LeaseState::Quarantined.into(),
            sandbox: "3f2a90c1d4e5".repeat(3),
            interface: "veth3f2a90c1d4e".to_owned(),
            ..active()
        };
        shown(&Leases::from(vec![longest]));
    }
}
