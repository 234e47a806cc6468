//! The report of a replayed capture.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use guard_api::proto;
use guard_ebpf::counters::{BridgeCounters, FrameKind, MalformedReason, NoClaim, OpaqueReason};
use jiff::Timestamp;
use serde::Serialize;

use super::conflict;
use crate::{
    output::{Screen, View, printable},
    replay::{self, Dropped, Report},
    table::{Table, plain},
};

#[derive(Debug, Serialize)]
pub(crate) struct Replayed {
    file: String,
    frames: u64,
    cut: u64,
    damage: Option<String>,
    ports: Vec<String>,
    not_ethernet: Vec<NotEthernet>,
    unknown_blocks: u64,
    counts: Counts,
    drops: Vec<Dropped>,
    claims: Vec<Claim>,
    conflicts: Vec<proto::Conflict>,
}

/// An interface whose frames were passed over.
#[derive(Debug, Serialize)]
struct NotEthernet {
    interface: String,
    link: String,
    frames: u64,
}

/// What is not 0, by its label in the metrics.
#[derive(Debug, Serialize)]
struct Counts {
    frames: Labels,
    malformed: Labels,
    no_claim: Labels,
    opaque: Labels,
}

type Labels = BTreeMap<&'static str, u64>;

#[derive(Debug, Serialize)]
struct Claim {
    address: IpAddr,
    vlan: u16,
    inner_vlan: u16,
    mac: String,
    interface: String,
    strength: &'static str,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

impl From<replay::Claim> for Claim {
    fn from(claim: replay::Claim) -> Self {
        let replay::Claim {
            address,
            vlan,
            inner_vlan,
            mac,
            interface,
            asserted,
            first_seen,
            last_seen,
        } = claim;
        let strength = if asserted { "assert" } else { "use" };
        let mac = mac.to_string();
        Self { address, vlan, inner_vlan, mac, interface, strength, first_seen, last_seen }
    }
}

impl Replayed {
    pub(crate) fn new(report: Report, file: String) -> Self {
        let Report {
            frames,
            cut,
            damage,
            ports,
            others,
            unknown_blocks,
            claims,
            conflicts,
            counters,
            drops,
        } = report;
        let other = |replay::NotEthernet { interface, link, frames }| NotEthernet {
            interface,
            link,
            frames,
        };
        let conflict = |replay::Disputed { inner_vlan, conflict }| proto::Conflict {
            inner_vlan: inner_vlan.into(),
            ..conflict
        };
        Self {
            file,
            frames,
            cut,
            damage,
            ports,
            not_ethernet: others.into_iter().map(other).collect(),
            unknown_blocks,
            counts: Counts::from(counters),
            drops,
            claims: claims.into_iter().map(Claim::from).collect(),
            conflicts: conflicts.into_iter().map(conflict).collect(),
        }
    }
}

impl From<BridgeCounters> for Counts {
    fn from(counters: BridgeCounters) -> Self {
        fn labels<'a>(
            names: impl Iterator<Item = &'static str>,
            counts: impl IntoIterator<Item = &'a u64>,
        ) -> Labels {
            let all = names.zip(counts.into_iter().copied());
            all.filter(|(_, count)| *count != 0).collect()
        }
        let BridgeCounters { frames, malformed, no_claim, opaque, .. } = counters;
        Self {
            frames: labels(FrameKind::ALL.iter().map(|kind| kind.name()), &frames),
            malformed: labels(MalformedReason::ALL.iter().map(|reason| reason.name()), &malformed),
            no_claim: labels(NoClaim::ALL.iter().map(|reason| reason.name()), &no_claim),
            opaque: labels(OpaqueReason::ALL.iter().map(|reason| reason.name()), &opaque),
        }
    }
}

impl View for Replayed {
    fn text(&self, screen: Screen) -> String {
        let mut text = String::new();
        let ports: Vec<_> = self.ports.iter().map(|port| printable(port)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} frames on {}", self.frames, ports.join(", "));
        for NotEthernet { interface, link, frames } in &self.not_ethernet {
            let are = if *frames == 1 { "is" } else { "are" };
            let (frames, interface) = (counted(*frames, "frame"), printable(interface));
            let _ = writeln!(text, "{frames} of interface {interface} ({link}) {are} not Ethernet");
        }
        if self.unknown_blocks != 0 {
            let blocks = counted(self.unknown_blocks, "block");
            let _ = writeln!(text, "{blocks} of types that are not known were passed over");
        }
        if self.cut != 0 {
            let cut = self.cut;
            let _ =
                writeln!(text, "{cut} were not captured whole (tcpdump -s 0 keeps all of them)");
        }
        let Counts { frames: _, malformed, no_claim, opaque } = &self.counts;
        for (what, labels) in [("malformed", malformed), ("no claim", no_claim), ("opaque", opaque)]
        {
            let list: Vec<_> =
                labels.iter().map(|(name, count)| format!("{name} {count}")).collect();
            if !list.is_empty() {
                let _ = writeln!(text, "{what}: {}", list.join(", "));
            }
        }
        for Dropped { interface, reason, dropped, would_drop } in &self.drops {
            let interface = printable(interface);
            let fate = match (dropped, would_drop) {
                (0, frames) => format!("{} would be dropped", counted(*frames, "frame")),
                (frames, _) => format!("{} dropped", counted(*frames, "frame")),
            };
            let _ = writeln!(text, "{interface}: {fate} for {reason}");
        }
        let headers = &["ADDRESS", "MAC", "INTERFACE", "BY", "FIRST", "LAST"];
        let mut table = Table::new(headers, &["LAST", "FIRST", "INTERFACE"]);
        for claim in &self.claims {
            let Claim { address, mac, interface, strength, first_seen, last_seen, .. } = claim;
            let address = match (claim.vlan, claim.inner_vlan) {
                (0, 0) => address.to_string(),
                (vlan, 0) => format!("{address} (vlan {vlan})"),
                (vlan, inner_vlan) => format!("{address} (vlan {vlan}.{inner_vlan})"),
            };
            // The day is said once.
            let day = |time: &Timestamp| time.strftime("%F").to_string();
            let last = if day(first_seen) == day(last_seen) { "%T" } else { "%F %T" };
            let cells = [plain(address), plain(mac), plain(printable(interface)), plain(strength)];
            let times = [first_seen.strftime("%F %T"), last_seen.strftime(last)].map(plain);
            table.row(cells.into_iter().chain(times), Vec::new());
        }
        text.push('\n');
        text.push_str(&table.text(screen, "no claims"));
        text.push('\n');
        text.push_str(&conflict::table(&self.conflicts, screen));
        text
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::{
        super::testing::{golden, shown, stamp},
        *,
    };

    fn replayed() -> Replayed {
        let claim = |last: u8, inner_vlan, seconds| replay::Claim {
            address: [10, 8, 64, last].into(),
            vlan: 100,
            inner_vlan,
            mac: guard_core::mac::Mac([2, 0, 0, 0, 0, last]),
            interface: "veth-a".to_owned(),
            asserted: true,
            first_seen: Timestamp::from_second(10).unwrap(),
            last_seen: Timestamp::from_second(seconds).unwrap(),
        };
        let conflict = proto::Conflict {
            id: "1".to_owned(),
            bridge: "br0".to_owned(),
            vlan: 100,
            address: "10.8.64.2".to_owned(),
            kind: proto::ConflictKind::Duplicate.into(),
            severity: proto::Severity::Warning.into(),
            first_seen: stamp(10),
            last_seen: stamp(10),
            open: true,
            ..proto::Conflict::default()
        };
        let other = |interface: &str, frames| replay::NotEthernet {
            interface: interface.to_owned(),
            link: "NULL".to_owned(),
            frames,
        };
        let report = Report {
            frames: 5,
            cut: 0,
            damage: None,
            ports: vec!["veth-a".to_owned()],
            others: vec![other("1", 3), other("lo", 1)],
            unknown_blocks: 2,
            claims: vec![claim(2, 7, 11), claim(3, 0, 86_411)],
            conflicts: vec![replay::Disputed { inner_vlan: 7, conflict }],
            counters: BridgeCounters::zeroed(),
            drops: vec![Dropped {
                interface: "veth-a".to_owned(),
                reason: "violation",
                dropped: 0,
                would_drop: 1,
            }],
        };
        Replayed::new(report, "a.pcapng".to_owned())
    }

    #[test]
    fn a_replay_as_text() {
        assert_eq!(
            shown(&replayed()),
            "\
5 frames on veth-a
3 frames of interface 1 (NULL) are not Ethernet
1 frame of interface lo (NULL) is not Ethernet
2 blocks of types that are not known were passed over
veth-a: 1 frame would be dropped for violation

ADDRESS                MAC               INTERFACE BY     FIRST      LAST
10.8.64.2 (vlan 100.7) 02:00:00:00:00:02 veth-a    assert 1970-01-01 00:00:11
                                                          00:00:10
10.8.64.3 (vlan 100)   02:00:00:00:00:03 veth-a    assert 1970-01-01 1970-01-02
                                                          00:00:10   00:00:11

ADDRESS    KIND       SEVERITY  BRIDGE     SINCE    FRAMES  OPEN  ID
10.8.64.2  duplicate  warning   br0.100.7  50s ago  0       yes   1
"
        );
    }

    #[test]
    fn a_replay_as_json() {
        golden(
            &replayed(),
            r#"{"file":"a.pcapng","frames":5,"cut":0,"damage":null,"ports":["veth-a"],
            "not_ethernet":[{"interface":"1","link":"NULL","frames":3},
            {"interface":"lo","link":"NULL","frames":1}],"unknown_blocks":2,
            "counts":{"frames":{},"malformed":{},"no_claim":{},"opaque":{}},"drops":[{"interface":"veth-a",
            "reason":"violation","dropped":0,"would_drop":1}],"claims":[
            {"address":"10.8.64.2","vlan":100,"inner_vlan":7,"mac":"02:00:00:00:00:02",
            "interface":"veth-a","strength":"assert","first_seen":"1970-01-01T00:00:10Z",
            "last_seen":"1970-01-01T00:00:11Z"},
            {"address":"10.8.64.3","vlan":100,"inner_vlan":0,"mac":"02:00:00:00:00:03",
            "interface":"veth-a","strength":"assert","first_seen":"1970-01-01T00:00:10Z",
            "last_seen":"1970-01-02T00:00:11Z"}],"conflicts":[{"id":"1","bridge":"br0","vlan":100,
            "inner_vlan":7,"address":"10.8.64.2","kind":"duplicate","severity":"warning",
            "claimants":[],"flaps":0,"first_seen":"1970-01-01T00:00:10Z",
            "last_seen":"1970-01-01T00:00:10Z","open":true,"silenced_until":null,"source":null,
            "entry":null,"detail":null,"action":null}]}"#,
        );
    }
}
