//! The demo, as a person starts it and as a program does.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

#[test]
fn its_json_says_what_was_measured() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_guard-demo")).arg("--json").output()?;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(!stderr.contains('\x1b'), "colour where there is no terminal: {stderr:?}");
    let line: Value = serde_json::from_str(&stdout)?;
    let number = |key: &str| line[key].as_u64().with_context(|| format!("{key} in {line}"));
    assert!(number("connections_without_guard")? >= 50, "{line}");
    assert!(number("misdelivered_without_guard")? > 0, "{line}");
    assert_eq!(number("connections_with_guard")?, number("connections_without_guard")?);
    assert_eq!(number("misdelivered_with_guard")?, 0);
    assert_eq!(number("duplicates_handed_out")?, 0);
    assert_eq!(line["release_while_live"], "releasing");
    assert_eq!(number("quarantined")?, 1);
    assert_eq!(number("conflicts_flagged")?, 1);
    assert_eq!(number("conflicts_flagged_without_a_pool")?, 1);
    assert!(number("detection_latency_us")? > 0, "{line}");
    assert!(number("misdelivered_observe")? > 0 && number("frames_dropped")? > 0, "{line}");
    assert_eq!(number("misdelivered_enforce")?, 0, "{line}");
    let keys: BTreeSet<_> = line.as_object().context("not an object")?.keys().collect();
    assert_eq!(keys.len(), 13, "{keys:?}");
    Ok(())
}

#[test]
fn its_story_is_told_on_standard_output() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_guard-demo")).output()?;
    let stdout = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{stdout}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let parts = [
        "Without guard",
        "With guard",
        "squatter",
        "neighbour",
        "Two lines",
        "guardctl conflicts",
        "guardctl drops",
    ];
    for part in parts {
        assert!(stdout.contains(part), "{part} is not in:\n{stdout}");
    }
    Ok(())
}
