//! The report of a replayed capture.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use guard_ebpf::counters::{BridgeCounters, FrameKind, MalformedReason, NoClaim, OpaqueReason};
use jiff::Timestamp;
use serde::Serialize;

use super::{Conflict, Conflicts};
use crate::{
    output::{Screen, View, printable},
    replay::{self, Report},
    table::{Table, plain},
};

#[derive(Debug, Serialize)]
pub struct Replayed {
    file: String,
    frames: u64,
    cut: u64,
    damage: Option<String>,
    ports: Vec<String>,
    counts: Counts,
    claims: Vec<Claim>,
    #[serde(flatten)]
    conflicts: Conflicts,
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
    mac: String,
    interface: String,
    strength: &'static str,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

impl From<replay::Claim> for Claim {
    fn from(claim: replay::Claim) -> Self {
        let replay::Claim { address, vlan, mac, interface, asserted, first_seen, last_seen } =
            claim;
        let strength = if asserted { "assert" } else { "use" };
        let mac = mac.to_string();
        Self { address, vlan, mac, interface, strength, first_seen, last_seen }
    }
}

impl Replayed {
    pub fn new(report: Report, file: String) -> Self {
        let Report { frames, cut, damage, ports, claims, conflicts, counters } = report;
        let claims = claims.into_iter().map(Claim::from).collect();
        let conflicts = conflicts.into_iter().map(Conflict::from).collect();
        let conflicts = Conflicts { conflicts };
        let counts = Counts::from(counters);
        Self { file, frames, cut, damage, ports, counts, claims, conflicts }
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
        let headers = &["ADDRESS", "MAC", "INTERFACE", "BY", "FIRST", "LAST"];
        let mut table = Table::new(headers, &["LAST", "FIRST", "INTERFACE"]);
        for claim in &self.claims {
            let Claim { address, vlan, mac, interface, strength, first_seen, last_seen } = claim;
            let address = match vlan {
                0 => address.to_string(),
                vlan => format!("{address} (vlan {vlan})"),
            };
            let time = |time: &Timestamp| plain(time.strftime("%F %T"));
            let cells = [plain(address), plain(mac), plain(printable(interface)), plain(strength)];
            let times = [time(first_seen), time(last_seen)];
            table.row(cells.into_iter().chain(times), Vec::new());
        }
        text.push('\n');
        text.push_str(&table.text(screen, "no claims"));
        text.push('\n');
        text.push_str(&self.conflicts.text(screen));
        text
    }
}
