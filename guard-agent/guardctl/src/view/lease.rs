use std::collections::BTreeMap;

use guard_api::proto;

use super::number;
use crate::{
    output::{Screen, View},
    table::{Table, cell, short, signal},
};

/// The MAC and the port that are bound to a lease. Of a quarantined address that has nobody's, those
/// of whoever is seen there: beside a lease it may be an impostor.
pub(super) fn station(lease: &proto::Lease) -> [&str; 2] {
    let is_bound = lease.binding() != proto::Binding::Unspecified;
    if is_bound || lease.state() != proto::LeaseState::Quarantined {
        return [&lease.mac, &lease.interface];
    }
    let named =
        |evidence: &&proto::Evidence| !evidence.mac.is_empty() || !evidence.interface.is_empty();
    let seen = lease.evidence.iter().find(named);
    seen.map_or([&lease.mac, &lease.interface], |seen| [&seen.mac, &seen.interface])
}

fn notes(lease: &proto::Lease) -> Vec<String> {
    let mut notes = Vec::new();
    if !lease.reason.is_empty() {
        notes.push(format!("reason: {}", lease.reason));
    }
    if !lease.labels.is_empty() {
        let labels: BTreeMap<_, _> = lease.labels.iter().collect();
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        notes.push(labels.join(", "));
    }
    if !lease.holds.is_empty() {
        notes.push(format!("waits for: {}", lease.holds.join(", ")));
    }
    notes
}

impl View for proto::Lease {
    fn text(&self, screen: Screen) -> String {
        table(std::slice::from_ref(self), screen)
    }
}

impl View for proto::AllocateResponse {
    fn text(&self, screen: Screen) -> String {
        table(&self.leases, screen)
    }
}

impl View for proto::ListLeasesResponse {
    fn text(&self, screen: Screen) -> String {
        table(&self.leases, screen)
    }
}

/// The leases as a table; the reason stands beneath its row.
pub(super) fn table(leases: &[proto::Lease], screen: Screen) -> String {
    let headers = &["ADDRESS", "STATE", "SANDBOX", "GENERATION", "MAC", "INTERFACE"];
    let mut table = Table::new(headers, &["SANDBOX", "INTERFACE"]);
    for lease in leases {
        let [mac, interface] = station(lease);
        let cells = [
            cell(&lease.address),
            signal(lease.state().word()),
            cell(short(&lease.sandbox)),
            cell(&number(lease.generation)),
            cell(mac),
            cell(interface),
        ];
        table.row(cells, notes(lease));
    }
    table.text(screen, "no leases")
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            evidence::tests::wire,
            testing::{shown, stamp},
        },
        *,
    };

    pub(crate) fn active() -> proto::Lease {
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
            labels: [("team".to_owned(), "a".to_owned())].into(),
            ..proto::Lease::default()
        }
    }

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

    fn list(leases: Vec<proto::Lease>) -> proto::ListLeasesResponse {
        proto::ListLeasesResponse { leases, ..Default::default() }
    }

    #[test]
    fn a_quarantined_row_shows_mac_and_port_of_whoever_is_there() {
        assert_eq!(
            shown(&list(vec![active(), squatted()])),
            "\
ADDRESS    STATE        SANDBOX  GENERATION        MAC                INTERFACE
10.8.64.2  active       web-1    1866435632857088  02:00:00:00:00:0a  veth-web-1
  team=a
10.8.64.3  quarantined  -        -                 02:00:00:00:00:0c  veth-c
  reason: live
  waits for: nfs-proxy
"
        );
        assert_eq!(shown(&list(vec![])), "no leases\n");
    }

    #[test]
    fn a_lease_is_never_shown_with_the_mac_or_port_of_an_impostor() {
        let bound = |mac: &str, interface: &str, binding: proto::Binding| proto::Lease {
            mac: mac.to_owned(),
            interface: interface.to_owned(),
            binding: binding.into(),
            evidence: vec![wire()],
            ..active()
        };
        for (mac, interface, binding) in [
            ("", "veth-web-1", proto::Binding::Declared),
            ("02:00:00:00:00:0a", "", proto::Binding::Declared),
            ("", "", proto::Binding::Declared),
            ("", "", proto::Binding::Unspecified),
        ] {
            let lease = bound(mac, interface, binding);
            assert_eq!(station(&lease), [mac, interface]);
            let text = shown(&list(vec![lease]));
            assert!(!text.contains("02:00:00:00:00:0c") && !text.contains("veth-c"), "{text}");
        }
        let quarantined = proto::Lease {
            state: proto::LeaseState::Quarantined.into(),
            ..bound("", "", proto::Binding::Unspecified)
        };
        assert_eq!(station(&quarantined), ["02:00:00:00:00:0c", "veth-c"]);
    }

    #[test]
    fn long_names_wrap_and_everything_else_stays_whole() {
        let long = proto::Lease {
            sandbox: "3f2a90c1d4e5".repeat(3),
            interface: "veth3f2a9".to_owned(),
            ..active()
        };
        let text = shown(&list(vec![long, squatted()]));
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
        shown(&list(vec![longest]));
    }
}
