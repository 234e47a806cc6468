//! Every `guardctl` in the documents is one that guardctl takes. Those of the guide are also run.

use std::process::Command;

use anyhow::Result;
use guard_tests::binary;

use crate::{blocks, read};

/// What stands in the documents for what a reader has.
const PLACEHOLDERS: [(&str, &str); 14] = [
    ("A", "10.8.64.2"),
    ("ADDRESS", "10.8.64.2"),
    ("ADDR", "10.8.64.2"),
    ("D", "2h"),
    ("DIR", "/tmp/dir"),
    ("FILE", "/tmp/file"),
    ("G", "1"),
    ("GENERATION", "1"),
    ("ID", "1"),
    ("INTERFACE", "veth-web-1"),
    ("MAC", "02:00:00:00:00:0a"),
    ("N", "1"),
    ("SEQ", "1"),
    ("SHELL", "bash"),
];

/// The arguments of each call in a document, within its sentences and, where `typed`, its blocks.
fn calls(document: &str, typed: bool) -> Vec<String> {
    let call = |code: &str| {
        let code = code.trim().trim_start_matches("sudo ");
        code.strip_prefix("guardctl ").filter(|call| !call.contains('\n')).map(str::to_owned)
    };
    let mut calls: Vec<_> = document.split('`').skip(1).step_by(2).filter_map(call).collect();
    if typed {
        let blocks = blocks(document).into_iter().filter(|(info, _)| info.starts_with("sh"));
        calls.extend(
            blocks.flat_map(|(_, block)| block.lines().filter_map(call).collect::<Vec<_>>()),
        );
    }
    calls
}

fn arguments(call: &str) -> Vec<String> {
    let call = call.split(['#', '|', '>', '<', ';', '\\']).next().unwrap_or_default();
    let call = call.replace(['[', ']'], "");
    let fill = |word: &str| {
        let known = PLACEHOLDERS.iter().find(|(placeholder, _)| *placeholder == word);
        known.map_or(word, |(_, value)| value).to_owned()
    };
    call.split_whitespace().map(fill).collect()
}

#[test]
fn every_call_of_guardctl_is_one_that_it_takes() -> Result<()> {
    let guardctl = binary("guardctl")?;
    let mut seen = 0;
    for document in ["README.md", "docs/operations.md", "docs/guide.md"] {
        for call in calls(&read(document)?, document != "docs/guide.md") {
            seen += 1;
            // It is read as far as the words before it, and then not done.
            let output = Command::new(&guardctl).args(arguments(&call)).arg("--help").output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: guardctl {call}: {said}");
        }
    }
    assert!(seen > 30, "{seen} calls");
    Ok(())
}
