use guard_api::proto;

use super::{Answer, head, lease, or_dash};
use crate::{
    output::{Screen, View},
    table::{Table, cell, folded, short},
};

/// What came of a pass of the watchdog.
impl View for Answer<proto::WatchdogResponse> {
    fn text(&self, screen: Screen) -> String {
        let mut shown = head(self.dry_run).to_owned();
        let proto::WatchdogResponse { why, containers, released, .. } = &self.response;
        if !why.is_empty() {
            let result = or_dash(self.response.result().word());
            let width = usize::from(screen.width);
            shown.push_str(&folded(&format!("{result}: {why}"), "", width));
            return shown;
        }
        let headers = &["FATE", "CONTAINER", "SANDBOX", "LIFECYCLE"];
        let mut table = Table::new(headers, &["CONTAINER", "SANDBOX", "LIFECYCLE"]);
        for container in containers {
            let proto::WatchedContainer { id, sandbox, lifecycle, why, .. } = container;
            let fate = container.fate().word();
            let cells = [cell(fate), cell(short(id)), cell(sandbox), cell(lifecycle)];
            table.row(cells, Some(why.clone()).into_iter().filter(|why| !why.is_empty()).collect());
        }
        shown.push_str(&table.text(screen, "no container has the sandbox label"));
        if !released.is_empty() {
            shown.push_str(if self.dry_run { "would be released:\n" } else { "released:\n" });
            shown.push_str(&lease::table(released, screen));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{lease::tests::active, testing::shown},
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
        let text = shown(&Answer { dry_run: true, response });
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
        let text = shown(&Answer { dry_run: false, response });
        assert_eq!(text, "ended: directory did not answer: gone\n");
    }
}
