//! The programs that run in a guest: those that `cargo xtask test` builds and runs on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::terminal;

/// What a guest needs, by the kind of the target and its name.
const NEEDED: [(&str, &str); 4] =
    [("bin", "guard-agent"), ("bin", "guardctl"), ("test", "program"), ("test", "scenarios")];

/// Builds them; their paths by their names.
pub(super) fn build() -> Result<BTreeMap<&'static str, PathBuf>> {
    let mut command = process::tool("cargo");
    // As the tests are built, so that nothing is compiled twice.
    command
        .args(["test", "--locked", "--workspace", "--no-run"])
        .arg("--message-format=json-render-diagnostics");
    terminal::line(&process::describe(&command));
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("could not run cargo")?;
    ensure!(output.status.success(), "the programs for the guests do not build");
    let messages = String::from_utf8(output.stdout).context("cargo's messages")?;
    let found = executables(&messages);
    NEEDED
        .into_iter()
        .map(|(kind, name)| {
            let path = found.get(&(kind.to_owned(), name.to_owned()));
            Ok((name, path.with_context(|| format!("cargo built no {name}"))?.clone()))
        })
        .collect()
}

/// The executables that cargo tells of. A program is told of twice where its own tests are built
/// too: the tests' is left out.
fn executables(messages: &str) -> BTreeMap<(String, String), PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter_map(|message| {
            let path = message.get("executable")?.as_str()?;
            let kind = message.pointer("/target/kind/0")?.as_str()?;
            let is_test = message.pointer("/profile/test")?.as_bool()?;
            let name = message.pointer("/target/name")?.as_str()?;
            let target = (kind.to_owned(), name.to_owned());
            ((kind == "test") == is_test).then(|| (target, PathBuf::from(path)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_programs_own_tests_are_not_the_program() {
        let message = |kind: &str, test: bool, path: &str| {
            format!(
                r#"{{"target":{{"kind":["{kind}"],"name":"a"}},"profile":{{"test":{test}}},"executable":"{path}"}}"#
            )
        };
        let messages = [
            message("bin", false, "/a"),
            message("bin", true, "/a-tests"),
            message("test", true, "/test-a"),
        ];
        let found = super::executables(&messages.join("\n"));
        let path = |kind: &str| found[&(kind.to_owned(), "a".to_owned())].to_str().unwrap();
        assert_eq!((path("bin"), path("test")), ("/a", "/test-a"));
    }
}
