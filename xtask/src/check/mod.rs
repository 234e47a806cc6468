//! `cargo xtask test`: what must hold before a change lands, cheapest first. CI runs this and
//! nothing else.

mod cargo_test;
mod leftovers;
mod step;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum as _;

pub(crate) use self::step::Step;
use crate::setup::Profile;
use crate::{process, root, setup, terminal};

/// Runs `steps`, or those that run by default where none is named, and stops at the first that fails.
pub(crate) fn run(steps: &[Step]) -> Result<()> {
    let by_default: Vec<Step>;
    let steps = if steps.is_empty() {
        by_default =
            Step::value_variants().iter().copied().filter(|step| step.by_default()).collect();
        &by_default
    } else {
        steps
    };
    if steps.contains(&Step::Test) {
        root::require("make network namespaces and load eBPF programs", "test")?;
    }
    let kernels = steps.contains(&Step::Kernels);
    setup::run(if kernels { Profile::Kernels } else { Profile::Test })?;
    let peers = setup::peers()?;

    let run = leftovers::Run::begin()?;
    let mut times = Vec::new();
    let mut failure = None;
    for (number, &step) in (1..).zip(steps) {
        let started = Instant::now();
        let outcome = step.commands(&peers).iter_mut().try_for_each(|command| {
            let (name, said) = (step.name(), process::describe(command));
            terminal::heading(&format!("{name} ({number} of {}): {said}", steps.len()));
            run.owns(command);
            match step {
                Step::Test => cargo_test::run(command),
                _ => process::shown(command),
            }
        });
        times.push(started.elapsed());
        if let Err(error) = outcome {
            failure = Some((step, error));
            break;
        }
    }
    summary(steps, &times, failure.as_ref().map(|(step, _)| *step));
    let clean = run.end();
    let Some((step, error)) = failure else { return clean };
    if let Err(left) = clean {
        terminal::error(&left);
    }
    let name = step.name();
    Err(error.context(format!("step {name} failed; to run it alone: cargo xtask test {name}")))
}

fn summary(steps: &[Step], times: &[Duration], failed: Option<Step>) {
    terminal::heading("Summary");
    for (index, &step) in steps.iter().enumerate() {
        let (took, outcome) = match times.get(index) {
            None => (String::from("-"), "not run"),
            Some(time) if failed == Some(step) => (terminal::took(*time), "failed"),
            Some(time) => (terminal::took(*time), "ok"),
        };
        terminal::line(&format!("{:<12} {took:>12}  {outcome}", step.name()));
    }
    terminal::line(&format!("{:<12} {:>12}", "all", terminal::took(times.iter().sum())));
}
