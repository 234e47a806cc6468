use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{ago, text, time};
use crate::{
    output::{Screen, View, printable},
    table::{Table, cell, plain, signal},
};

/// What does not work, since when and why.
#[derive(Debug, Serialize)]
pub struct Degraded {
    pub what: Option<String>,
    pub since: Option<Timestamp>,
    pub why: Option<String>,
}

/// A source of evidence.
#[derive(Debug, Serialize)]
pub struct Source {
    pub name: Option<String>,
    pub healthy: bool,
    pub why: Option<String>,
    pub complete: Option<Timestamp>,
    pub unreadable: Vec<String>,
    pub unreadable_count: u32,
    pub away_since: Option<Timestamp>,
    pub ignored_until: Option<Timestamp>,
    pub waiting: u64,
}

/// A configured bridge.
#[derive(Debug, Serialize)]
pub struct Bridge {
    pub name: Option<String>,
    pub present: bool,
    pub ports: u32,
    pub covered: u32,
    pub unknown: Vec<String>,
}

/// How the agent is.
#[derive(Debug, Serialize)]
pub struct Status {
    pub version: Option<String>,
    pub ready: bool,
    pub degraded: Vec<Degraded>,
    pub boot_pass: Option<String>,
    pub store: Option<String>,
    pub sources: Vec<Source>,
    pub bridges: Vec<Bridge>,
}

impl From<proto::Degraded> for Degraded {
    fn from(degraded: proto::Degraded) -> Self {
        let proto::Degraded { what, since, why } = degraded;
        Self { what: text(what), since: time(since), why: text(why) }
    }
}

impl From<proto::SourceStatus> for Source {
    fn from(source: proto::SourceStatus) -> Self {
        Self {
            name: text(source.name),
            healthy: source.healthy,
            why: text(source.why),
            complete: time(source.complete),
            unreadable: source.unreadable,
            unreadable_count: source.unreadable_count,
            away_since: time(source.away_since),
            ignored_until: time(source.ignored_until),
            waiting: source.waiting,
        }
    }
}

impl Source {
    fn row(&self) -> (String, bool, String, Vec<String>) {
        let mut detail = if self.healthy { "healthy" } else { "failing" }.to_owned();
        if let Some(since) = self.away_since {
            detail = format!("no complete answer since {since:.0}");
        }
        let waiting = self.away_since.map(|_| format!("{} addresses wait for it", self.waiting));
        if let Some(until) = self.ignored_until {
            detail = format!("ignored until {until:.0}");
        }
        let rest = (self.unreadable_count as usize).saturating_sub(self.unreadable.len());
        let more = (rest > 0).then(|| format!("and {rest} more that cannot be read"));
        let notes = self.why.iter().chain(&self.unreadable).map(|note| printable(note));
        let what = format!("source {}", self.name.as_deref().unwrap_or("-"));
        (what, self.healthy, detail, waiting.into_iter().chain(notes).chain(more).collect())
    }
}

impl From<proto::StatusResponse> for Status {
    fn from(status: proto::StatusResponse) -> Self {
        let bridge = |bridge: proto::BridgeStatus| Bridge {
            name: text(bridge.name),
            present: bridge.present,
            ports: bridge.ports,
            covered: bridge.covered,
            unknown: bridge.unknown,
        };
        Self {
            version: text(status.version),
            ready: status.ready,
            degraded: status.degraded.into_iter().map(Degraded::from).collect(),
            boot_pass: text(status.boot_pass),
            store: text(status.store),
            sources: status.sources.into_iter().map(Source::from).collect(),
            bridges: status.bridges.into_iter().map(bridge).collect(),
        }
    }
}

/// The source that is done without, or not any more.
#[derive(Debug, Serialize)]
pub struct Ignored {
    pub dry_run: bool,
    pub source: Option<Source>,
}

impl Ignored {
    pub fn new(response: proto::IgnoreSourceResponse, dry_run: bool) -> Self {
        Self { dry_run, source: response.source.map(Source::from) }
    }
}

impl View for Ignored {
    fn text(&self, screen: Screen) -> String {
        let mut table = Table::new(&["WHAT", "OK", "DETAIL"], &["DETAIL"]);
        if let Some(source) = &self.source {
            add(&mut table, source.row());
        }
        table.text(screen, "")
    }
}

fn add(table: &mut Table, (what, good, detail, notes): (String, bool, String, Vec<String>)) {
    let good = signal(Some(if good { "yes" } else { "no" }));
    table.row([cell(Some(&what)), good, plain(detail)], notes);
}

impl View for Status {
    fn text(&self, screen: Screen) -> String {
        let mut table = Table::new(&["WHAT", "OK", "DETAIL"], &["DETAIL"]);
        let mut row = |what: &str, good, detail: &str, notes| {
            add(&mut table, (what.to_owned(), good, detail.to_owned(), notes));
        };
        let version = self.version.as_deref().unwrap_or("of unknown version");
        let degraded = self.degraded.iter().map(|degraded| {
            format!(
                "{}: {} ({})",
                degraded.what.as_deref().unwrap_or("-"),
                degraded.why.as_deref().unwrap_or("-"),
                ago(degraded.since, screen.now)
            )
        });
        let ready = if self.ready { "ready" } else { "not ready" };
        row("agent", self.ready, &format!("{ready}, {version}"), degraded.collect());
        let boot_pass = self.boot_pass.as_deref().unwrap_or("-");
        row("boot pass", boot_pass == "done", boot_pass, vec![]);
        let store = self.store.as_deref().unwrap_or("-");
        row("store", store == "ok", store, vec![]);
        for source in &self.sources {
            let (what, good, detail, notes) = source.row();
            row(&what, good, &detail, notes);
        }
        for bridge in &self.bridges {
            let name = bridge.name.as_deref().unwrap_or("-");
            let good = bridge.present && bridge.covered == bridge.ports;
            let detail = if bridge.present {
                format!("the program is on {} of {} ports", bridge.covered, bridge.ports)
            } else {
                "does not exist".to_owned()
            };
            let asks = bridge.unknown.iter().map(|port| printable(port)).collect();
            row(&format!("bridge {name}"), good, &detail, asks);
        }
        table.text(screen, "")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{golden, shown, stamp},
        *,
    };

    fn status() -> Status {
        let eth1 = "eth1: it is a physical device: name it in uplinks or in access";
        let bridge = |name: &str, present, ports| proto::BridgeStatus {
            name: name.to_owned(),
            present,
            ports,
            covered: ports,
            unknown: (ports > 0).then(|| eth1.to_owned()).into_iter().collect(),
        };
        Status::from(proto::StatusResponse {
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
        })
    }

    #[test]
    fn status_as_json() {
        golden(
            &status(),
            r#"{"version":"0.1.0","ready":false,"degraded":[{"what":"bridge rt1",
            "since":"1970-01-01T00:00:48Z","why":"it does not exist"}],"boot_pass":"done",
            "store":"ok","sources":[{"name":"wire","healthy":true,"why":null,"complete":null,
            "unreadable":[],"unreadable_count":0,"away_since":null,"ignored_until":null,"waiting":0},
            {"name":"inventory","healthy":false,"why":"no answer","complete":null,
            "unreadable":["container c1: it has no id"],"unreadable_count":3,
            "away_since":"1970-01-01T00:00:00Z","ignored_until":null,"waiting":2}],
            "bridges":[{"name":"rt0","present":true,"ports":3,"covered":3,
            "unknown":["eth1: it is a physical device: name it in uplinks or in access"]},
            {"name":"rt1","present":false,"ports":0,"covered":0,"unknown":[]}]}"#,
        );
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
bridge rt1        no   does not exist
"
        );
    }
}
