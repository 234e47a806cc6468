use guard_api::proto;
use serde::Serialize;

use super::{
    Lease, lease,
    operator::{dry, leases},
    text, word,
};
use crate::{
    output::{Screen, View},
    table::{Table, cell, folded, short},
};

/// What became of a container.
#[derive(Debug, Serialize)]
pub struct Container {
    pub container: String,
    pub sandbox: Option<String>,
    pub lifecycle: Option<String>,
    pub fate: Option<String>,
    pub why: Option<String>,
}

/// What came of a pass of the watchdog.
#[derive(Debug, Serialize)]
pub struct Watched {
    pub dry_run: bool,
    pub result: Option<String>,
    pub why: Option<String>,
    pub containers: Vec<Container>,
    pub released: Vec<Lease>,
}

impl Watched {
    pub fn new(response: proto::WatchdogResponse, dry_run: bool) -> Self {
        let result = word(response.result().as_str_name(), "PASS_RESULT_");
        let proto::WatchdogResponse { result: _, why, containers, released, .. } = response;
        let container = |watched: proto::WatchedContainer| {
            let fate = word(watched.fate().as_str_name(), "FATE_");
            let proto::WatchedContainer { id, sandbox, lifecycle, fate: _, why } = watched;
            let (sandbox, lifecycle) = (text(sandbox), text(lifecycle));
            Container { container: id, sandbox, lifecycle, fate, why: text(why) }
        };
        Self {
            dry_run,
            result,
            why: text(why),
            containers: containers.into_iter().map(container).collect(),
            released: leases(released),
        }
    }

    /// How many containers could not be removed.
    pub fn failed(&self) -> usize {
        let failed = |container: &&Container| container.fate.as_deref() == Some("failed");
        self.containers.iter().filter(failed).count()
    }
}

impl View for Watched {
    fn text(&self, screen: Screen) -> String {
        let mut shown = dry(self.dry_run).to_owned();
        if let Some(why) = &self.why {
            let result = self.result.as_deref().unwrap_or("-");
            let width = usize::from(screen.width);
            shown.push_str(&folded(&format!("{result}: {why}"), "", width));
            return shown;
        }
        let headers = &["FATE", "CONTAINER", "SANDBOX", "LIFECYCLE"];
        let mut table = Table::new(headers, &["CONTAINER", "SANDBOX", "LIFECYCLE"]);
        for Container { container, sandbox, lifecycle, fate, why } in &self.containers {
            let cells = [
                cell(fate.as_deref()),
                cell(Some(short(container))),
                cell(sandbox.as_deref()),
                cell(lifecycle.as_deref()),
            ];
            table.row(cells, why.iter().cloned().collect());
        }
        shown.push_str(&table.text(screen, "no container has the sandbox label"));
        if !self.released.is_empty() {
            shown.push_str(if self.dry_run { "would be released:\n" } else { "released:\n" });
            shown.push_str(&lease::table(&self.released, screen));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            lease::tests::{ACTIVE, active},
            testing::{golden, shown},
        },
        *,
    };

    #[test]
    fn what_a_pass_would_do() {
        let container = |id: &str, fate: proto::Fate, why: &str| proto::WatchedContainer {
            id: id.to_owned(),
            sandbox: format!("sandbox-{id}"),
            lifecycle: String::new(),
            fate: fate.into(),
            why: why.to_owned(),
        };
        let response = proto::WatchdogResponse {
            result: proto::PassResult::Done.into(),
            why: String::new(),
            containers: vec![
                container("c1", proto::Fate::Kept, "the directory lists its sandbox"),
                container("c2", proto::Fate::Removed, "the directory does not find it"),
            ],
            released: vec![active()],
            ..proto::WatchdogResponse::default()
        };
        let watched = Watched::new(response, true);
        golden(
            &watched,
            &format!(
                r#"{{"dry_run":true,"result":"done","why":null,"containers":[{{"container":"c1",
                "sandbox":"sandbox-c1","lifecycle":null,"fate":"kept",
                "why":"the directory lists its sandbox"}},{{"container":"c2",
                "sandbox":"sandbox-c2","lifecycle":null,"fate":"removed",
                "why":"the directory does not find it"}}],"released":[{ACTIVE}]}}"#
            ),
        );
        assert_eq!(watched.failed(), 0);
        let text = shown(&watched);
        assert!(text.starts_with("dry run: nothing was changed\nFATE"), "{text}");
        assert!(text.contains("would be released:"), "{text}");
    }

    #[test]
    fn a_pass_that_a_source_has_ended() {
        let response = proto::WatchdogResponse {
            result: proto::PassResult::Ended.into(),
            why: "directory did not answer: gone".to_owned(),
            ..proto::WatchdogResponse::default()
        };
        let text = shown(&Watched::new(response, false));
        assert_eq!(text, "ended: directory did not answer: gone\n");
    }
}
