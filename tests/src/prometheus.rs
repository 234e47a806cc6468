//! A Prometheus that scrapes the agent, in the host's namespace of a lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{command::output, journal::Journal, lab::Lab, netns::Netns, process::Process};

/// Loopback is each namespace's own, so that every lab can have the same port.
const ADDRESS: &str = "127.0.0.1:9090";

/// Debian's `prometheus`, which looks at the agent once a second.
#[derive(Debug)]
pub struct Prometheus {
    host: Netns,
    _process: Process,
}

impl Lab {
    /// Starts one with the alert rules in a file, and waits until it serves.
    ///
    /// # Errors
    /// It is not installed, or does not take the rules.
    pub fn prometheus(&self, rules: &Path) -> Result<Prometheus> {
        let config = self.dir().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\n\
             scrape_configs:\n  - job_name: guard\n    static_configs: \
             [{{targets: [\"127.0.0.1:9477\"]}}]\n"
        );
        fs::write(&config, text).context("writing Prometheus' configuration")?;
        let mut command = self.host().command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", self.dir().join("tsdb").display()));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let (journal, log) = (Journal::default(), self.dir().join("prometheus.log"));
        let process = Process::start(&mut command, &journal, log, &self.reaper())?;
        journal.await_line(&["Server is ready to receive web requests"])?;
        Ok(Prometheus { host: self.host().clone(), _process: process })
    }
}

impl Prometheus {
    /// The series that a query gives now: each an object with `metric` and `value`.
    ///
    /// # Errors
    /// It cannot be parsed.
    pub fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let mut promtool = self.host.command("promtool");
        promtool.args(["query", "instant", "--format=json", &format!("http://{ADDRESS}"), expr]);
        let printed = output(&mut promtool).with_context(|| expr.to_owned())?;
        serde_json::from_str(&printed).with_context(|| format!("not JSON: {printed:?}"))
    }
}

/// A file or directory of `guard-agent/dist/`, which is what a release consists of beside the programs.
#[must_use]
pub fn dist(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guard-agent/dist").join(path)
}

/// Runs a program that checks `input` on its standard input, and returns all that it says.
///
/// # Errors
/// It cannot be started, or it failed.
pub fn checked(command: &mut Command, input: &[u8]) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let (mut said, writer) = std::io::pipe().context("making a pipe")?;
    command.stdin(std::process::Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    // The command holds the pipe's writing ends.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    child.stdin.take().context("no standard input")?.write_all(input).context("writing")?;
    let mut text = String::new();
    said.read_to_string(&mut text).context("reading")?;
    let status = child.wait().context("waiting")?;
    anyhow::ensure!(status.success(), "{command:?}: {status}: {text}");
    Ok(text)
}
