use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{ago, number, quantity, text, time, word};
use crate::{
    output::{Screen, View},
    table::{Table, cell, plain, signal},
};

/// A port of a watched bridge.
#[derive(Debug, Serialize)]
pub struct Port {
    pub interface: Option<String>,
    pub ifindex: Option<u32>,
    pub bridge: Option<String>,
    pub kind: Option<String>,
    pub kind_why: Option<String>,
    pub covered: bool,
    pub why: Option<String>,
    pub attach: Option<String>,
    pub program_id: Option<u32>,
    pub since: Option<Timestamp>,
    pub frames: u64,
    pub addresses: u32,
}

impl From<proto::Port> for Port {
    fn from(port: proto::Port) -> Self {
        Self {
            kind: word(port.kind().as_str_name(), "PORT_KIND_"),
            attach: word(port.attach().as_str_name(), "ATTACH_"),
            kind_why: text(port.kind_why),
            interface: text(port.interface),
            ifindex: number(port.ifindex),
            bridge: text(port.bridge),
            covered: port.covered,
            why: text(port.why),
            program_id: number(port.program_id),
            since: time(port.since),
            frames: port.frames,
            addresses: port.addresses,
        }
    }
}

impl Port {
    /// How it is attached, and its number.
    pub fn program(&self) -> Option<String> {
        let id = self.program_id.map(|id| format!(" {id}")).unwrap_or_default();
        self.attach.as_ref().map(|attach| format!("{attach}{id}"))
    }
}

/// All ports.
#[derive(Debug, Serialize)]
pub struct Ports {
    pub ports: Vec<Port>,
}

impl From<proto::PortsResponse> for Ports {
    fn from(response: proto::PortsResponse) -> Self {
        Self { ports: response.ports.into_iter().map(Port::from).collect() }
    }
}

impl View for Ports {
    fn text(&self, screen: Screen) -> String {
        let headers =
            &["INTERFACE", "BRIDGE", "KIND", "COVERED", "PROGRAM", "SINCE", "FRAMES", "ADDRESSES"];
        let mut table = Table::new(headers, &["BRIDGE"]);
        for port in &self.ports {
            let cells = [
                cell(port.interface.as_deref()),
                cell(port.bridge.as_deref()),
                cell(port.kind.as_deref()),
                signal(Some(if port.covered { "yes" } else { "no" })),
                cell(port.program().as_deref()),
                plain(ago(port.since, screen.now)),
                plain(quantity(port.frames)),
                plain(port.addresses),
            ];
            // What asks something of whoever reads it.
            let asks = port.kind_why.iter().filter(|_| port.kind.as_deref() == Some("unknown"));
            table.row(cells, asks.chain(&port.why).cloned().collect());
        }
        table.text(screen, "no ports")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{golden, shown, stamp},
        *,
    };

    fn ports() -> Ports {
        let covered = proto::Port {
            interface: "veth-web-1".to_owned(),
            ifindex: 12,
            bridge: "rt0".to_owned(),
            kind: proto::PortKind::Access.into(),
            kind_why: "it is a veth".to_owned(),
            covered: true,
            attach: proto::Attach::Tcx.into(),
            program_id: 41,
            since: stamp(50),
            frames: 17,
            addresses: 1,
            why: String::new(),
        };
        let bare = proto::Port {
            interface: "eth1".to_owned(),
            bridge: "rt0".to_owned(),
            kind: proto::PortKind::Unknown.into(),
            kind_why: "it is a physical device: name it in uplinks or in access".to_owned(),
            why: "program 7 (other) is before the program".to_owned(),
            ..proto::Port::default()
        };
        Ports::from(proto::PortsResponse { ports: vec![covered, bare], ..Default::default() })
    }

    #[test]
    fn ports_as_json() {
        golden(
            &ports(),
            r#"{"ports":[{"interface":"veth-web-1","ifindex":12,"bridge":"rt0","kind":"access",
            "kind_why":"it is a veth","covered":true,"why":null,"attach":"tcx","program_id":41,"since":"1970-01-01T00:00:50Z",
            "frames":17,"addresses":1},{"interface":"eth1","ifindex":null,"bridge":"rt0",
            "kind":"unknown",
            "kind_why":"it is a physical device: name it in uplinks or in access","covered":false,"why":"program 7 (other) is before the program","attach":null,"program_id":null,"since":null,
            "frames":0,"addresses":0}]}"#,
        );
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
