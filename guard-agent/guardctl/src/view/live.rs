use guard_api::proto;

use super::{evidence::all_brief, inner_segment};
use crate::{
    output::{Screen, View},
    table::{Table, cell, short},
};

impl View for proto::LiveResponse {
    fn text(&self, screen: Screen) -> String {
        let headers = &["ADDRESS", "BRIDGE", "MAC", "INTERFACE", "LEASE", "SANDBOX", "EVIDENCE"];
        let mut table = Table::new(headers, &["BRIDGE", "SANDBOX", "INTERFACE", "EVIDENCE"]);
        for live in &self.live {
            let lease = live.lease.map(|generation| generation.to_string());
            let cells = [
                cell(&live.address),
                cell(&inner_segment(&live.bridge, live.vlan, live.inner_vlan)),
                cell(&live.mac),
                cell(&live.interface),
                cell(&lease.unwrap_or_default()),
                cell(short(&live.sandbox)),
                cell(&all_brief(&live.evidence)),
            ];
            table.row(cells, vec![]);
        }
        table.text(screen, "no live addresses")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{evidence::tests::wire, testing::shown},
        *,
    };

    fn live(lease: Option<u64>) -> proto::LiveResponse {
        let live = proto::LiveAddress {
            address: "10.8.64.3".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            mac: "02:00:00:00:00:0c".to_owned(),
            interface: "veth-c".to_owned(),
            evidence: vec![wire()],
            lease,
            sandbox: lease.map(|_| "web-1".to_owned()).unwrap_or_default(),
            inner_vlan: 0,
        };
        proto::LiveResponse { live: vec![live], ..Default::default() }
    }

    #[test]
    fn live_as_text() {
        assert_eq!(
            shown(&live(None)),
            "\
ADDRESS    BRIDGE  MAC                INTERFACE  LEASE  SANDBOX  EVIDENCE
10.8.64.3  rt0     02:00:00:00:00:0c  veth-c     -      -        wire 3s
"
        );
        let leased = shown(&live(Some(1_866_435_632_857_088)));
        assert!(leased.contains("1866435632857088") && leased.contains("web-1"), "{leased}");
    }
}
