//! What was dropped, and what is set.

use guard_api::proto::{self, EnforcementMode};
use serde::Serialize;

use super::{Answer, ago, head, moment, or_dash};
use crate::{
    output::{Screen, View, printable},
    table::{Table, cell, plain, signal},
};

/// A row for each port and reason, with the first frame beneath it.
pub(super) fn table(drops: &[proto::Drops], screen: Screen, empty: &str) -> String {
    let headers = &["PORT", "BRIDGE", "REASON", "DROPPED", "WOULD DROP", "LAST", "SANDBOX"];
    let mut table = Table::new(headers, &["SANDBOX", "BRIDGE"]);
    for row in drops {
        let gone = format!("ifindex {}", row.ifindex);
        let port = if row.interface.is_empty() { &gone } else { &row.interface };
        let cells = [
            cell(port),
            cell(&row.bridge),
            cell(&row.reason),
            plain(row.dropped),
            plain(row.would_drop),
            plain(ago(row.last_time, screen.now)),
            cell(&row.sandbox),
        ];
        let first = match (&*row.says, &*row.rule) {
            ("", "") => String::new(),
            (says, "") => format!("first: {says}"),
            (says, rule) => format!("first: {says} ({rule})"),
        };
        let allow = match &*row.allow {
            "" => String::new(),
            allow => format!("to allow it: {allow}"),
        };
        let owner = match &*row.owner {
            "" => String::new(),
            owner => format!("rightful: {owner}"),
        };
        let notes = [first, owner, allow].into_iter().filter(|note| !note.is_empty());
        table.row(cells, notes.map(|note| printable(&note)).collect());
    }
    table.text(screen, empty)
}

impl View for proto::DropsResponse {
    fn text(&self, screen: Screen) -> String {
        table(&self.drops, screen, "no frame breaks the rules")
    }
}

/// What enforcing on a bridge would come to.
#[derive(Debug, Serialize)]
pub(crate) struct DryRun {
    pub bridge: String,
    /// How many of the rows are of ports that leases name: they stand first.
    pub bound: usize,
    pub drops: Vec<proto::Drops>,
}

impl View for DryRun {
    fn text(&self, screen: Screen) -> String {
        let (bound, others) = self.drops.split_at(self.bound.min(self.drops.len()));
        let mut text = match bound {
            [] => "nothing of a bound port would drop\n".to_owned(),
            bound => format!("of bound ports:\n{}", table(bound, screen, "")),
        };
        if !others.is_empty() {
            text += &format!("of other ports:\n{}", table(others, screen, ""));
        }
        text
    }
}

/// What a change of a mode has led to.
#[derive(Debug, Serialize)]
pub(crate) struct Modes {
    pub bridge: Option<proto::BridgeEnforcement>,
}

impl View for Answer<Modes> {
    fn text(&self, screen: Screen) -> String {
        let bridges = self.response.bridge.as_slice();
        format!("{}{}", head(self.dry_run), bridges_as_text(bridges, screen))
    }
}

impl View for proto::EnforcementResponse {
    fn text(&self, screen: Screen) -> String {
        bridges_as_text(&self.bridges, screen)
    }
}

fn bridges_as_text(bridges: &[proto::BridgeEnforcement], screen: Screen) -> String {
    let headers = &["BRIDGE", "MODE", "STRICT", "PORTS ENFORCING", "PORTS DROPPING", "OK"];
    let mut table = Table::new(headers, &["STRICT"]);
    for bridge in bridges {
        let good = bridge.braked.is_empty() && bridge.findings.is_empty();
        let cells = [
            cell(&bridge.bridge),
            cell(bridge.mode().word()),
            cell(&bridge.strict),
            plain(bridge.ports_enforcing),
            plain(bridge.ports_dropping),
            signal(if good { "yes" } else { "no" }),
        ];
        table.row(cells, notes(bridge).iter().map(|note| printable(note)).collect());
    }
    table.text(screen, "no bridges")
}

fn notes(bridge: &proto::BridgeEnforcement) -> Vec<String> {
    let mut notes = vec![format!("drops: {}", or_dash(&bridge.classes.join(", ")))];
    let configured = bridge.configured_mode();
    if configured != EnforcementMode::Unspecified && configured != bridge.mode() {
        let word = configured.word();
        notes.push(format!("the configuration says {word}, and the next start brings it"));
    }
    if !bridge.braked.is_empty() {
        let reasons = bridge.braked.join(", ");
        notes.push(format!("the brake is on: {reasons} pass; guardctl enforce resume"));
    }
    notes.extend(bridge.ports.iter().map(|port| {
        let until = match port.until {
            Some(until) => format!(" until {}", moment(Some(until), 0)),
            None => String::new(),
        };
        format!("port {}: {}{until}", port.interface, port.mode().word())
    }));
    notes.extend(bridge.findings.iter().map(|finding| {
        let kind = if finding.error { "error" } else { "warning" };
        format!("{kind}: {}: {}", finding.what, finding.advice)
    }));
    notes
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{shown, stamp},
        *,
    };

    fn drops() -> proto::Drops {
        proto::Drops {
            interface: "veth-b".to_owned(),
            ifindex: 12,
            bridge: "rt0".to_owned(),
            reason: "violation".to_owned(),
            dropped: 3,
            would_drop: 1,
            first_time: stamp(1),
            last_time: stamp(50),
            says: "arp from 02:00:00:00:00:0b: claim 10.8.64.2".to_owned(),
            rule: "claims.md A03".to_owned(),
            allow: "a lease".to_owned(),
            sandbox: "web-2".to_owned(),
            generation: 7,
            ..proto::Drops::default()
        }
    }

    #[test]
    fn a_dry_run_says_first_what_bound_ports_would_lose() {
        let of_others =
            proto::Drops { generation: 0, ifindex: 13, interface: String::new(), ..drops() };
        let none = DryRun { bridge: "rt0".to_owned(), bound: 0, drops: vec![of_others.clone()] };
        assert!(shown(&none).starts_with("nothing of a bound port would drop\nof other ports:\n"));
        let both = DryRun { bridge: "rt0".to_owned(), bound: 1, drops: vec![drops(), of_others] };
        assert_eq!(
            shown(&both),
            "\
of bound ports:
PORT    BRIDGE  REASON     DROPPED  WOULD DROP  LAST     SANDBOX
veth-b  rt0     violation  3        1           10s ago  web-2
  first: arp from 02:00:00:00:00:0b: claim 10.8.64.2 (claims.md A03)
  to allow it: a lease
of other ports:
PORT        BRIDGE  REASON     DROPPED  WOULD DROP  LAST     SANDBOX
ifindex 13  rt0     violation  3        1           10s ago  web-2
  first: arp from 02:00:00:00:00:0b: claim 10.8.64.2 (claims.md A03)
  to allow it: a lease
"
        );
    }

    #[test]
    fn status_says_what_is_in_force_and_what_speaks_against_it() {
        let bridge = proto::BridgeEnforcement {
            bridge: "rt0".to_owned(),
            mode: EnforcementMode::Enforce.into(),
            configured_mode: EnforcementMode::Observe.into(),
            strict: "bound".to_owned(),
            classes: vec!["router".to_owned(), "opaque".to_owned()],
            braked: vec!["mac".to_owned()],
            ports_enforcing: 20,
            ports_dropping: 1,
            ports: vec![proto::PortMode {
                interface: "veth-a".to_owned(),
                mode: EnforcementMode::Observe.into(),
                until: stamp(90),
            }],
            findings: vec![proto::Finding {
                error: false,
                what: "port eth1: nobody knows".to_owned(),
                advice: "uplinks = [\"eth1\"]".to_owned(),
            }],
        };
        assert_eq!(
            shown(&proto::EnforcementResponse { bridges: vec![bridge] }),
            "\
BRIDGE  MODE     STRICT  PORTS ENFORCING  PORTS DROPPING  OK
rt0     enforce  bound   20               1               no
  drops: router, opaque
  the configuration says observe, and the next start brings it
  the brake is on: mac pass; guardctl enforce resume
  port veth-a: observe until 1970-01-01T00:01:30Z
  warning: port eth1: nobody knows: uplinks = [\"eth1\"]
"
        );
    }
}
