//! `cargo xtask demo`: the demo itself is a program of the `tests` package; here it is set up for,
//! built and started.

use std::io;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::setup::Profile;
use crate::{process, root, setup, terminal};

/// Replaces this process with the demo, whose exit code is then ours; returns only to say why not.
pub(crate) fn run(json: bool) -> Result<()> {
    root::require("make network namespaces and load eBPF programs", "demo")?;
    setup::run(Profile::Demo)?;

    terminal::heading("Build the agent and the demo");
    // The dev profile: `cargo xtask test` uses the same build, and the demo is not a benchmark.
    let mut build = process::tool("cargo");
    build.args(["build", "--locked", "--bins", "-p", "guard-agent", "-p", "guard-tests"]);
    process::shown(build.stdout(io::stderr()))?;

    // This program was built into the same directory, wherever CARGO_TARGET_DIR puts that.
    let demo = std::env::current_exe()
        .context("could not find out where this program is")?
        .with_file_name("guard-demo");
    terminal::heading("Run the demo");
    let error = process::tool(&demo).args(json.then_some("--json")).exec();
    Err(error).with_context(|| format!("could not start {}", demo.display()))
}
