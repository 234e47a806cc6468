//! `cargo xtask soak`: the tests that `cargo xtask test` runs a share of, in full.

use std::time::Instant;

use anyhow::Result;

use crate::setup::Profile;
use crate::{process, root, setup, terminal};

/// How much of each, by the variable that the tests read.
const AMOUNTS: [(&str, &str); 7] = [
    // Real incidents under each of two floods.
    ("GUARD_SOAK_INCIDENTS", "10000"),
    // Thefts while one port spoofs what others own.
    ("GUARD_SOAK_THEFTS", "1000"),
    // Frames of an attacker, of each of which a Linux neighbour is asked what it believes.
    ("GUARD_SOAK_BELIEF", "40960"),
    // Seconds of HTTP/2 by chance.
    ("GUARD_SOAK_SURFACE", "600"),
    // Frames by chance through the program and the decision function.
    ("GUARD_DIFFERENTIAL_FRAMES", "10000000"),
    // Frames by chance of stations that have declared bindings, and of others.
    ("GUARD_PROPERTY_FRAMES", "10000000"),
    // Power cuts under the store.
    ("GUARD_POWER_CUTS", "1000"),
];

/// Runs them, as released: the floods are to be real ones.
pub(crate) fn run() -> Result<()> {
    root::require("make network namespaces and load eBPF programs", "soak")?;
    setup::run(Profile::Test)?;
    terminal::heading("Build the programs");
    process::shown(process::build().arg("--release"))?;
    terminal::heading("Run the tests in full; that takes about half an hour");
    let started = Instant::now();
    let mut test = process::tool("cargo");
    test.envs(AMOUNTS)
        .args(["test", "--release", "--locked", "--workspace"])
        .args(["--test", "soak", "--test", "program", "--test", "power_cut"])
        // A flood leaves nothing of the machine to anybody else, and says how many frames it was.
        .args(["--", "--test-threads=1", "--nocapture"]);
    process::shown(&mut test)?;
    // By itself: other packages have tests of this name.
    let mut test = process::tool("cargo");
    test.envs(AMOUNTS).args(["test", "--release", "--locked", "--package", "guard-ebpf"]);
    test.args(["--test", "enforce"]);
    process::shown(&mut test)?;
    terminal::line(&format!("all passed ({})", terminal::took(started.elapsed())));
    Ok(())
}
