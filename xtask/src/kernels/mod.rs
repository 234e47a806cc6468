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

/// Boots every kernel, and fails if a test does.
pub(crate) fn run(json: bool) -> Result<()> {
    setup::run(Profile::Kernels)?;
    run_prepared(json)
}

/// As [`run`], on a machine that is set up.
pub(crate) fn run_prepared(json: bool) -> Result<()> {
    let kernels = setup::kernels()?;
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
