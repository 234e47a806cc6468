use guard_api::proto::{self, PortKind};

use super::{ago, number, quantity};
use crate::{
    output::{Screen, View},
    table::{Table, cell, plain, signal},
};

/// How the program is attached, and its number.
fn program(port: &proto::Port) -> String {
    let (attach, id) = (port.attach().word(), number(port.program_id.into()));
    if attach.is_empty() { String::new() } else { format!("{attach} {id}").trim_end().to_owned() }
}

impl View for proto::PortsResponse {
    fn text(&self, screen: Screen) -> String {
        let headers =
            &["INTERFACE", "BRIDGE", "KIND", "COVERED", "PROGRAM", "SINCE", "FRAMES", "ADDRESSES"];
        let mut table = Table::new(headers, &["BRIDGE"]);
        for port in &self.ports {
            let cells = [
                cell(&port.interface),
                cell(&port.bridge),
                cell(port.kind().word()),
                signal(if port.covered { "yes" } else { "no" }),
                cell(&program(port)),
                plain(ago(port.since, screen.now)),
                plain(quantity(port.frames)),
                plain(port.addresses),
            ];
            // What asks something of whoever reads it.
            let kind = Some(&port.kind_why).filter(|_| port.kind() == PortKind::Unknown);
            let asks = kind.into_iter().chain([&port.why]).filter(|why| !why.is_empty());
            table.row(cells, asks.cloned().collect());
        }
        table.text(screen, "no ports")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{shown, stamp},
        *,
    };

    fn ports() -> proto::PortsResponse {
        let covered = proto::Port {
            interface: "veth-web-1".to_owned(),
            ifindex: 12,
            bridge: "rt0".to_owned(),
            kind: PortKind::Access.into(),
            kind_why: "it is a veth".to_owned(),
            covered: true,
            attach: proto::Attach::Tcx.into(),
            program_id: 41,
            since: stamp(50),
            frames: 17,
            addresses: 1,
            why: String::new(),
            mode: proto::EnforcementMode::Enforce.into(),
        };
        let bare = proto::Port {
            interface: "eth1".to_owned(),
            bridge: "rt0".to_owned(),
            kind: PortKind::Unknown.into(),
            kind_why: "it is a physical device: name it in uplinks or in access".to_owned(),
            why: "program 7 (other) is before the program".to_owned(),
            ..proto::Port::default()
        };
        proto::PortsResponse { ports: vec![covered, bare], ..Default::default() }
    }

    #[test]
    fn ports_as_text() {
        assert_eq!(
            shown(&ports()),
            "\
INTERFACE   BRIDGE  KIND     COVERED  PROGRAM  SINCE    FRAMES  ADDRESSES
veth-web-1  rt0     access   yes      tcx 41   10s ago  17      1
eth1        rt0     unknown  no       -        -        0       0
  it is a physical device: name it in uplinks or in access
  program 7 (other) is before the program
"
        );
    }
}
