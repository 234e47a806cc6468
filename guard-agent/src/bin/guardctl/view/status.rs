use guard_agent::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{ago, text, time};
use crate::{
    output::{Screen, View},
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
}

/// A configured bridge.
#[derive(Debug, Serialize)]
pub struct Bridge {
    pub name: Option<String>,
    pub present: bool,
    pub ports: u32,
    pub covered: u32,
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
        let proto::SourceStatus { name, healthy, why, complete } = source;
        Self { name: text(name), healthy, why: text(why), complete: time(complete) }
    }
}

impl From<proto::StatusResponse> for Status {
    fn from(status: proto::StatusResponse) -> Self {
        let bridge = |bridge: proto::BridgeStatus| Bridge {
            name: text(bridge.name),
            present: bridge.present,
            ports: bridge.ports,
            covered: bridge.covered,
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

impl View for Status {
    fn text(&self, screen: Screen) -> String {
        let mut table = Table::new(&["WHAT", "OK", "DETAIL"], &["DETAIL"]);
        let mut row = |what: &str, good: bool, detail: &str, notes| {
            let good = signal(Some(if good { "yes" } else { "no" }));
            table.row([cell(Some(what)), good, plain(detail)], notes);
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
            let health = if source.healthy { "healthy" } else { "failing" };
            let name = source.name.as_deref().unwrap_or("-");
            let why = source.why.iter().cloned().collect();
            row(&format!("source {name}"), source.healthy, health, why);
        }
        for bridge in &self.bridges {
            let name = bridge.name.as_deref().unwrap_or("-");
            let good = bridge.present && bridge.covered == bridge.ports;
            let detail = if bridge.present {
                format!("the program is on {} of {} ports", bridge.covered, bridge.ports)
            } else {
                "does not exist".to_owned()
            };
            row(&format!("bridge {name}"), good, &detail, vec![]);
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
        let bridge = |name: &str, present, ports| proto::BridgeStatus {
            name: name.to_owned(),
            present,
            ports,
            covered: ports,
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
            sources: vec![proto::SourceStatus {
                name: "wire".to_owned(),
                healthy: true,
                ..proto::SourceStatus::default()
            }],
            bridges: vec![bridge("rt0", true, 3), bridge("rt1", false, 0)],
        })
    }

    #[test]
    fn status_as_json() {
        golden(
            &status(),
            r#"{"version":"0.1.0","ready":false,"degraded":[{"what":"bridge rt1",
            "since":"1970-01-01T00:00:48Z","why":"it does not exist"}],"boot_pass":"done",
            "store":"ok","sources":[{"name":"wire","healthy":true,"why":null,"complete":null}],
            "bridges":[{"name":"rt0","present":true,"ports":3,"covered":3},
            {"name":"rt1","present":false,"ports":0,"covered":0}]}"#,
        );
    }

    #[test]
    fn status_as_text() {
        assert_eq!(
            shown(&status()),
            "\
WHAT         OK   DETAIL
agent        no   not ready, 0.1.0
  bridge rt1: it does not exist (12s ago)
boot pass    yes  done
store        yes  ok
source wire  yes  healthy
bridge rt0   yes  the program is on 3 of 3 ports
bridge rt1   no   does not exist
"
        );
    }
}
