use guard_api::proto;

use super::{Answer, ago, moment, or_dash};
use crate::{
    output::{Screen, View, printable},
    table::{Table, cell, plain, signal},
};

/// What is said of one thing: which, whether it is well, how it is, and notes.
type Said = (String, bool, String, Vec<String>);

fn source_row(source: &proto::SourceStatus) -> Said {
    let mut detail = if source.healthy { "healthy" } else { "failing" }.to_owned();
    if source.away_since.is_some() {
        detail = format!("no complete answer since {}", moment(source.away_since, 0));
    }
    let waiting = source.away_since.map(|_| format!("{} addresses wait for it", source.waiting));
    if source.ignored_until.is_some() {
        detail = format!("ignored until {}", moment(source.ignored_until, 0));
    }
    let rest = (source.unreadable_count as usize).saturating_sub(source.unreadable.len());
    let more = (rest > 0).then(|| format!("and {rest} more that cannot be read"));
    let why = Some(&source.why).filter(|why| !why.is_empty());
    let notes = why.into_iter().chain(&source.unreadable).map(|note| printable(note));
    let what = format!("source {}", or_dash(&source.name));
    (what, source.healthy, detail, waiting.into_iter().chain(notes).chain(more).collect())
}

/// The source that is done without, or not any more.
impl View for Answer<proto::IgnoreSourceResponse> {
    fn text(&self, screen: Screen) -> String {
        let mut table = Table::new(&["WHAT", "OK", "DETAIL"], &["DETAIL"]);
        if let Some(source) = &self.response.source {
            add(&mut table, source_row(source));
        }
        table.text(screen, "")
    }
}

fn add(table: &mut Table, (what, good, detail, notes): Said) {
    let good = signal(if good { "yes" } else { "no" });
    table.row([cell(&what), good, plain(detail)], notes);
}

impl View for proto::StatusResponse {
    fn text(&self, screen: Screen) -> String {
        let mut table = Table::new(&["WHAT", "OK", "DETAIL"], &["DETAIL"]);
        let mut row = |what: &str, good, detail: &str, notes| {
            add(&mut table, (what.to_owned(), good, detail.to_owned(), notes));
        };
        let version = match &*self.version {
            "" => "of unknown version",
            version => version,
        };
        let degraded = self.degraded.iter().map(|degraded| {
            format!(
                "{}: {} ({})",
                or_dash(&degraded.what),
                or_dash(&degraded.why),
                ago(degraded.since, screen.now)
            )
        });
        let ready = if self.ready { "ready" } else { "not ready" };
        row("agent", self.ready, &format!("{ready}, {version}"), degraded.collect());
        let (boot_pass, store) = (or_dash(&self.boot_pass), or_dash(&self.store));
        row("boot pass", boot_pass == "done", boot_pass, vec![]);
        row("store", store == "ok", store, vec![]);
        for source in &self.sources {
            let (what, good, detail, notes) = source_row(source);
            row(&what, good, &detail, notes);
        }
        for bridge in &self.bridges {
            let name = or_dash(&bridge.name);
            let good = bridge.present && bridge.covered == bridge.ports;
            let detail = if bridge.present {
                format!("the program is on {} of {} ports", bridge.covered, bridge.ports)
            } else {
                "does not exist".to_owned()
            };
            let (mode, configured) = (bridge.mode(), bridge.configured_mode());
            let differs = mode != configured;
            let note =
                format!("mode {}, the configuration says {}", mode.word(), configured.word());
            let mode = differs.then_some(note);
            let unprotected = match bridge.unprotected {
                0 => None,
                some => Some(format!("{some} leases are bound by nobody: their impostors pass")),
            };
            let notes = mode.into_iter().chain(unprotected);
            let asks = bridge.unknown.iter().map(|port| printable(port)).chain(notes).collect();
            row(&format!("bridge {name}"), good, &detail, asks);
        }
        table.text(screen, "")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{shown, stamp},
        *,
    };

    use proto::EnforcementMode;

    fn status() -> proto::StatusResponse {
        let eth1 = "eth1: it is a physical device: name it in uplinks or in access";
        let bridge = |name: &str, present, ports| proto::BridgeStatus {
            name: name.to_owned(),
            present,
            ports,
            covered: ports,
            mode: EnforcementMode::Enforce.into(),
            configured_mode: if ports > 0 {
                EnforcementMode::Observe
            } else {
                EnforcementMode::Enforce
            }
            .into(),
            unknown: (ports > 0).then(|| eth1.to_owned()).into_iter().collect(),
            unprotected: 0,
        };
        proto::StatusResponse {
            version: "0.1.0".to_owned(),
            ready: false,
            degraded: vec![proto::Degraded {
                what: "bridge rt1".to_owned(),
                since: stamp(48),
                why: "it does not exist".to_owned(),
            }],
            boot_pass: "done".to_owned(),
            store: "ok".to_owned(),
            sources: vec![
                proto::SourceStatus {
                    name: "wire".to_owned(),
                    healthy: true,
                    ..proto::SourceStatus::default()
                },
                proto::SourceStatus {
                    name: "inventory".to_owned(),
                    healthy: false,
                    why: "no answer".to_owned(),
                    unreadable: vec!["container c1: it has no id".to_owned()],
                    unreadable_count: 3,
                    away_since: stamp(0),
                    waiting: 2,
                    ..proto::SourceStatus::default()
                },
            ],
            bridges: vec![bridge("rt0", true, 3), bridge("rt1", false, 0)],
        }
    }

    #[test]
    fn status_as_text() {
        assert_eq!(
            shown(&status()),
            "\
WHAT              OK   DETAIL
agent             no   not ready, 0.1.0
  bridge rt1: it does not exist (12s ago)
boot pass         yes  done
store             yes  ok
source wire       yes  healthy
source inventory  no   no complete answer since 1970-01-01T00:00:00Z
  2 addresses wait for it
  no answer
  container c1: it has no id
  and 2 more that cannot be read
bridge rt0        yes  the program is on 3 of 3 ports
  eth1: it is a physical device: name it in uplinks or in access
  mode enforce, the configuration says observe
bridge rt1        no   does not exist
"
        );
    }
}
