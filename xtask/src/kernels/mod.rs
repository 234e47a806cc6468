//! `cargo xtask kernels`: the program and the agent on the kernels that guard supports, each booted
//! in a virtual machine with the tests as its only process.

mod guest;
mod initramfs;
mod programs;
mod report;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use self::report::{Plan, Report};

use crate::setup;
use crate::setup::{Kernel, Profile};
use crate::terminal::{self, Task};

/// Boots the kernels whose release begins with one of `only`, or all where none is named, and fails
/// if a test does; with a share of the tests, which takes minutes less.
pub(crate) fn run(json: bool, share: bool, only: &[String]) -> Result<()> {
    let plan = if share { Plan::SHARE } else { Plan::ALL };
    setup::run(Profile::Kernels)?;
    let mut kernels = setup::kernels()?;
    kernels.retain(|kernel| {
        only.is_empty() || only.iter().any(|release| is_of(&kernel.release, release))
    });
    ensure!(!kernels.is_empty(), "there is no kernel {}", only.join(" or "));
    terminal::heading("Build the programs for the guests");
    let programs = programs::build()?;
    let userland = initramfs::userland(&programs, share)?;
    terminal::heading("Boot the kernels");
    let mut reports = boot(&kernels, plan, &userland, json)?;
    reports.sort_by_key(|(index, ..)| *index);
    let reports: Vec<_> = reports.into_iter().map(|(_, report, took)| (report, took)).collect();
    if !json {
        report::table(&reports);
    }
    let failed = reports.iter().filter(|(report, _)| report.failed > 0).count();
    ensure!(failed == 0, "tests failed on {failed} of {} kernels", reports.len());
    Ok(())
}

/// Whether a release begins with what was asked for, to the end of a number: 6.12 is not of 6.1.
fn is_of(release: &str, asked: &str) -> bool {
    release
        .strip_prefix(asked)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

type Booted = (usize, Report, Duration);

/// Boots as many at a time as there are processors: a guest has one.
fn boot(kernels: &[Kernel], plan: Plan, userland: &[u8], json: bool) -> Result<Vec<Booted>> {
    let guests = thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
    let names: Vec<_> = kernels.iter().map(|kernel| kernel.release.clone()).collect();
    let task = Task::start("guests", &names.join(", "));
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<Booted>> {
        let mut booted = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(kernel) = kernels.get(index) else { return Ok(booted) };
            let started = Instant::now();
            let report = guest::run(&task, kernel, plan, userland)?;
            task.note(&report.line(started.elapsed()));
            if json {
                println!("{}", report.json()?);
            }
            booted.push((index, report, started.elapsed()));
        }
    };
    let booted = thread::scope(|scope| {
        let workers: Vec<_> = (0..guests).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(booted) => booted,
            Err(_) => bail!("a guest's thread panicked"),
        });
        joined.collect::<Result<Vec<_>>>()
    })?;
    task.done();
    Ok(booted.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_release_is_asked_for_by_its_whole_numbers() {
        assert!(super::is_of("6.1.0-50-cloud-amd64", "6.1"));
        assert!(!super::is_of("6.12.107+deb13-cloud-amd64", "6.1"));
    }
}
