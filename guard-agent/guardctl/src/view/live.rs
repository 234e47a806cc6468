use guard_api::proto;
use serde::Serialize;

use super::{Evidence, evidence, inner_segment, text};
use crate::{
    output::{Screen, View},
    table::{Table, cell},
};

/// An address that is in use now.
#[derive(Debug, Serialize)]
pub struct Live {
    pub address: Option<String>,
    pub bridge: Option<String>,
    pub vlan: u32,
    pub inner_vlan: u32,
    pub mac: Option<String>,
    pub interface: Option<String>,
    pub evidence: Vec<Evidence>,
    pub lease: Option<u64>,
}

impl From<proto::LiveAddress> for Live {
    fn from(live: proto::LiveAddress) -> Self {
        Self {
            address: text(live.address),
            bridge: text(live.bridge),
            vlan: live.vlan,
            inner_vlan: live.inner_vlan,
            mac: text(live.mac),
            interface: text(live.interface),
            evidence: live.evidence.into_iter().map(Evidence::from).collect(),
            lease: live.lease,
        }
    }
}

/// All addresses that are in use now.
#[derive(Debug, Serialize)]
pub struct LiveList {
    pub live: Vec<Live>,
}

impl From<proto::LiveResponse> for LiveList {
    fn from(response: proto::LiveResponse) -> Self {
        Self { live: response.live.into_iter().map(Live::from).collect() }
    }
}

impl View for LiveList {
    fn text(&self, screen: Screen) -> String {
        let headers = &["ADDRESS", "BRIDGE", "MAC", "INTERFACE", "LEASE", "EVIDENCE"];
        let mut table = Table::new(headers, &["BRIDGE", "INTERFACE", "EVIDENCE"]);
        for live in &self.live {
            let lease = live.lease.map(|generation| generation.to_string());
            let cells = [
                cell(live.address.as_deref()),
                cell(Some(&inner_segment(live.bridge.as_deref(), live.vlan, live.inner_vlan))),
                cell(live.mac.as_deref()),
                cell(live.interface.as_deref()),
                cell(lease.as_deref()),
                cell(evidence::brief(&live.evidence).as_deref()),
            ];
            table.row(cells, vec![]);
        }
        table.text(screen, "no live addresses")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            evidence::tests::{WIRE, wire},
            testing::{golden, shown},
        },
        *,
    };

    fn live(lease: Option<u64>) -> LiveList {
        let live = proto::LiveAddress {
            address: "10.8.64.3".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            mac: "02:00:00:00:00:0c".to_owned(),
            interface: "veth-c".to_owned(),
            evidence: vec![wire()],
            lease,
            inner_vlan: 0,
        };
        LiveList::from(proto::LiveResponse { live: vec![live], ..Default::default() })
    }

    #[test]
    fn live_as_json() {
        let head = r#"{"live":[{"address":"10.8.64.3","bridge":"rt0","vlan":0,"inner_vlan":0,
            "mac":"02:00:00:00:00:0c","interface":"veth-c","evidence":["#;
        golden(&live(None), &format!(r#"{head}{WIRE}],"lease":null}}]}}"#));
        golden(&live(Some(7)), &format!(r#"{head}{WIRE}],"lease":7}}]}}"#));
    }

    #[test]
    fn live_as_text() {
        assert_eq!(
            shown(&live(None)),
            "\
ADDRESS    BRIDGE  MAC                INTERFACE  LEASE  EVIDENCE
10.8.64.3  rt0     02:00:00:00:00:0c  veth-c     -      wire 3s
"
        );
        shown(&live(Some(1_866_435_632_857_088)));
    }
}
