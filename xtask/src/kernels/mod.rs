//! `cargo xtask kernels`: the program and the agent on the kernels that guard supports, each booted
//! in a virtual machine with the tests as its only process.

mod guest;
mod initramfs;
mod programs;
mod report;

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::setup;
use crate::setup::Profile;
use crate::terminal::{self, Task};

/// Boots the kernels whose release begins with one of `only`, or all where none is named, and fails
/// if a test does.
pub(crate) fn run(json: bool, only: &[String]) -> Result<()> {
    setup::run(Profile::Kernels)?;
    let mut kernels = setup::kernels()?;
    kernels.retain(|kernel| {
        only.is_empty() || only.iter().any(|release| kernel.release.starts_with(release))
    });
    ensure!(!kernels.is_empty(), "there is no kernel {}", only.join(" or "));
    terminal::heading("Build the programs for the guests");
    let programs = programs::build()?;
    let userland = initramfs::userland(&programs)?;
    terminal::heading("Boot the kernels");
    let mut reports = Vec::new();
    for kernel in &kernels {
        let task = Task::start(&kernel.release, "the cases and the scenarios, about a minute");
        let started = Instant::now();
        let report = guest::run(&task, kernel, &userland)?;
        if json {
            println!("{}", report.json()?);
        }
        if report.failed == 0 {
            task.done();
        } else {
            task.note(&format!("{} failed; {}", kernel.release, report.failures()));
        }
        reports.push((report, started.elapsed()));
    }
    if !json {
        report::table(&reports);
    }
    let failed = reports.iter().filter(|(report, _)| report.failed > 0).count();
    ensure!(failed == 0, "tests failed on {failed} of {} kernels", reports.len());
    Ok(())
}
