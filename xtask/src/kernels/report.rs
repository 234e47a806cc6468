//! What a guest said, and what it comes to.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use crate::setup::Kernel;
use crate::terminal;

/// How lines for the workshop begin.
const MARK: &str = "guard-kernels: ";

/// What a guest runs.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// The executables.
    pub(super) runs: &'static [&'static str],
    /// What it does not run, and why.
    left_out: &'static str,
}

impl Plan {
    /// The frame tests, of which some run a share.
    pub(super) const SHARE: Self = Self {
        runs: &["program"],
        left_out: "scenarios: `cargo xtask kernels` without --share runs them, in many minutes",
    };
    /// And the scenarios on top.
    pub(super) const ALL: Self = Self {
        runs: &["program", "scenarios"],
        left_out: "scenarios that depend little on the kernel, or need the host's tools",
    };
}

/// The tests on one kernel.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    kernel: String,
    /// What the agent says of a port: `tcx` or `clsact`.
    attach: Option<String>,
    passed: u64,
    /// Tests that did not run, each with its reason.
    skipped: Vec<String>,
    pub(super) failed: u64,
    #[serde(skip)]
    failures: Vec<String>,
    #[serde(skip)]
    log: PathBuf,
}

impl Report {
    /// Reads what a guest said.
    pub(super) fn of(kernel: &Kernel, plan: Plan, console: &str, log: PathBuf) -> Result<Self> {
        let mut report = Self {
            kernel: kernel.release.clone(),
            attach: None,
            passed: 0,
            skipped: vec![plan.left_out.to_owned()],
            failed: 0,
            failures: Vec::new(),
            log,
        };
        let mut ended = Vec::new();
        for line in console.lines() {
            if let Some((_, words)) = line.split_once(MARK) {
                report.hear(words, &mut ended)?;
            } else if let Some(result) = line.strip_prefix("test result: ") {
                report.passed += count(result, "passed");
                report.failed += count(result, "failed");
            } else if let Some((name, outcome)) = test(line) {
                match outcome {
                    "FAILED" => report.failures.push(name.to_owned()),
                    outcome if outcome.starts_with("ignored") => {
                        report.skipped.push(format!("{name} {outcome}"));
                    }
                    _ => {}
                }
            }
        }
        if report.attach.is_none() {
            report.fail("the agent covers no port");
        }
        for run in plan.runs {
            if !ended.iter().any(|name| name == run) {
                report.fail(&format!("{run} did not come to its end"));
            }
        }
        Ok(report)
    }

    fn hear(&mut self, words: &str, ended: &mut Vec<String>) -> Result<()> {
        match words.split_once(' ') {
            Some(("ports", ports)) => {
                let ports: Value = serde_json::from_str(ports).unwrap_or_default();
                let attach = ports.pointer("/ports/0/attach").and_then(Value::as_str);
                self.attach = attach.map(str::to_owned);
            }
            Some(("end", words)) => {
                let (name, code) = words.split_once(' ').context("an end without its code")?;
                ended.push(name.to_owned());
                if code != "0" && self.failed == 0 {
                    self.fail(&format!("{name} exited with {code}"));
                }
            }
            Some(("broken", module)) => self.fail(&format!("{module} cannot be loaded")),
            _ => {}
        }
        Ok(())
    }

    fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    /// One line, for programs.
    pub(super) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("a report as JSON")
    }

    /// One line, for people: how it went, and what failed, with where all is to be read.
    pub(super) fn line(&self, took: Duration) -> String {
        let Self { kernel, passed, failed, failures, log, .. } = self;
        let took = terminal::took(took);
        if *failed == 0 {
            return format!("{kernel}: {passed} passed ({took})");
        }
        let failures = failures.join(", ");
        format!("{kernel}: {failed} failed ({took}): {failures}; see {}", log.display())
    }
}

/// `test NAME ... OUTCOME`.
fn test(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// `ok. 7 passed; 0 failed; …`
fn count(result: &str, what: &str) -> u64 {
    let parts = result.split([';', '.']).map(str::trim);
    let count = parts.filter_map(|part| part.strip_suffix(what)).next();
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// For people.
pub(super) fn table(reports: &[(Report, Duration)]) {
    println!("{:<32} {:<8} {:>6} {:>6}  {:>10}", "KERNEL", "ATTACH", "PASSED", "FAILED", "TIME");
    for (Report { kernel, attach, passed, failed, .. }, took) in reports {
        let attach = attach.as_deref().unwrap_or("-");
        let took = terminal::took(*took);
        println!("{kernel:<32} {attach:<8} {passed:>6} {failed:>6}  {took:>10}");
    }
    if let Some((report, _)) = reports.first() {
        for skipped in &report.skipped {
            println!("not run: {skipped}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\
        guard-kernels: kernel 6.1.0-1-cloud-amd64\n\
        guard-kernels: ports {\"ports\":[{\"attach\":\"clsact\",\"covered\":true}]}\n\
        guard-kernels: begin program\n\
        test the_program_agrees_with_the_cases ... ok\n\
        test measure ... ignored, a measurement\n\
        test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.01s\n\
        guard-kernels: end program 0\n\
        guard-kernels: begin scenarios\n\
        test ports::a ... FAILED\n\
        test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 9s\n";

    fn report(console: &str) -> Report {
        let kernel = Kernel { release: "6.1.0".into(), image: PathBuf::new(), modules: vec![] };
        Report::of(&kernel, Plan::ALL, console, PathBuf::new()).unwrap()
    }

    #[test]
    fn tests_are_counted_over_all_executables() {
        let report = report(&format!("{CONSOLE}guard-kernels: end scenarios 101\n"));
        assert_eq!((report.passed, report.failed), (4, 1));
        assert_eq!(report.attach.as_deref(), Some("clsact"));
        assert_eq!(report.failures, ["ports::a"]);
        assert!(report.skipped.contains(&"measure ignored, a measurement".to_owned()));
    }

    #[test]
    fn a_guest_that_dies_has_failed() {
        assert_eq!(report("Kernel panic - not syncing\n").failed, 3);
        assert_eq!(report(CONSOLE).failed, 2);
    }
}
