//! `cargo xtask bench`: the benchmarks are a program of the `tests` package; here a release build
//! is made of it and of the agent, and it is started.

use std::io;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::setup::Profile;
use crate::{process, root, setup, terminal};

/// Replaces this process with the benchmark; returns only to say why not.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    root::require("make network namespaces and load eBPF programs", "bench")?;
    setup::run(Profile::Bench)?;

    terminal::heading("Build the agent and the benchmarks for release");
    process::shown(process::build().arg("--release").stdout(io::stderr()))?;

    // This program was built into a directory beside it, wherever CARGO_TARGET_DIR puts that.
    let own = std::env::current_exe().context("could not find out where this program is")?;
    let target = own.ancestors().nth(2).context("this program is in no target directory")?;
    let bench = target.join("release/guard-bench");
    terminal::heading("Run the benchmark");
    let error = process::tool(&bench).args(arguments).exec();
    Err(error).with_context(|| format!("could not start {}", bench.display()))
}
