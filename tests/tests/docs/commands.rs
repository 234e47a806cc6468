//! Every call of `guardctl` and of `cargo xtask` in the documents is one that it takes. Those of
//! `guardctl` in the README and in the guide are also made.

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

/// The arguments of each call of a program in a document, within its sentences and, where `typed`,
/// its blocks.
fn calls(document: &str, program: &str, typed: bool) -> Vec<String> {
    let call = |code: &str| {
        let code = code.trim().trim_start_matches("sudo -E env \"PATH=$PATH\" ");
        let arguments = code.strip_prefix(program)?.strip_prefix(' ')?;
        (!arguments.contains('\n')).then(|| arguments.to_owned())
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
        for call in calls(&read(document)?, "guardctl", document == "docs/operations.md") {
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

#[test]
fn every_call_of_the_workshop_is_one_that_it_takes() -> Result<()> {
    let (xtask, bench) = (binary("xtask")?, binary("guard-bench")?);
    let mut seen = 0;
    for document in ["README.md", "docs/operations.md", "docs/guide.md", "docs/SPECIFICATION.md"] {
        for call in calls(&read(document)?, "cargo xtask", true) {
            seen += 1;
            let mut arguments = arguments(&call);
            // What is behind `bench` is for the benchmarks' own program.
            let program = match &arguments[..] {
                [task, _, ..] if task == "bench" => {
                    arguments.remove(0);
                    &bench
                }
                _ => &xtask,
            };
            let output = Command::new(program).args(arguments).arg("--help").output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: cargo xtask {call}: {said}");
        }
    }
    assert!(seen > 15, "{seen} calls");
    Ok(())
}
