use guard_api::proto;

use super::Answer;
use crate::{
    output::{Screen, View},
    table::folded,
};

/// What `recover` kept.
impl View for Answer<proto::RecoverResponse> {
    fn text(&self, screen: Screen) -> String {
        let width = usize::from(screen.width);
        let proto::RecoverResponse { kept, from_backup, quarantined, lost, moved_to, .. } =
            &self.response;
        let mut lines = vec![
            if self.dry_run { "dry run: nothing was changed" } else { "recovered" }.to_owned(),
            format!("kept          {kept}"),
            format!("from backup   {from_backup}"),
            format!("quarantined   {}", quarantined.len()),
        ];
        lines.extend(quarantined.iter().map(|place| format!("  {place}")));
        lines.push(format!("lost          {}", lost.len()));
        lines.extend(lost.iter().map(|row| folded(row, "  ", width).trim_end().to_owned()));
        if !moved_to.is_empty() {
            lines.push(format!("old files     {moved_to}"));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::shown, *};

    #[test]
    fn recovered_as_text() {
        let response = proto::RecoverResponse {
            kept: 3,
            from_backup: 1,
            quarantined: vec!["10.8.64.2 on rt0".to_owned()],
            ..Default::default()
        };
        let text = shown(&Answer { dry_run: true, response });
        assert!(text.starts_with("dry run: nothing was changed\nkept          3\n"), "{text}");
    }
}
