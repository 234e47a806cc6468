use guard_api::proto;
use serde::Serialize;

use super::text;
use crate::{
    output::{Screen, View},
    table::folded,
};

/// What `recover` kept.
#[derive(Debug, Serialize)]
pub struct Recovered {
    pub dry_run: bool,
    pub kept: u64,
    pub from_backup: u64,
    pub quarantined: Vec<String>,
    pub lost: Vec<String>,
    pub moved_to: Option<String>,
}

impl Recovered {
    pub fn new(recovered: proto::RecoverResponse, dry_run: bool) -> Self {
        let proto::RecoverResponse { kept, from_backup, quarantined, lost, moved_to, .. } =
            recovered;
        Self { dry_run, kept, from_backup, quarantined, lost, moved_to: text(moved_to) }
    }
}

impl View for Recovered {
    fn text(&self, screen: Screen) -> String {
        let width = usize::from(screen.width);
        let Self { dry_run, kept, from_backup, quarantined, lost, moved_to } = self;
        let mut lines = vec![
            if *dry_run { "dry run: nothing was changed" } else { "recovered" }.to_owned(),
            format!("kept          {kept}"),
            format!("from backup   {from_backup}"),
            format!("quarantined   {}", quarantined.len()),
        ];
        lines.extend(quarantined.iter().map(|place| format!("  {place}")));
        lines.push(format!("lost          {}", lost.len()));
        lines.extend(lost.iter().map(|row| folded(row, "  ", width).trim_end().to_owned()));
        lines.extend(moved_to.iter().map(|path| format!("old files     {path}")));
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{golden, shown},
        *,
    };

    #[test]
    fn recovered_as_json_and_text() {
        let response = proto::RecoverResponse {
            kept: 3,
            from_backup: 1,
            quarantined: vec!["10.8.64.2 on rt0".to_owned()],
            lost: vec![],
            ..Default::default()
        };
        let view = Recovered::new(response, true);
        golden(
            &view,
            r#"{"dry_run":true,"kept":3,"from_backup":1,"quarantined":["10.8.64.2 on rt0"],
            "lost":[],"moved_to":null}"#,
        );
        assert!(shown(&view).starts_with("dry run: nothing was changed\nkept          3\n"));
    }
}
