//! `cargo xtask fuzz`: libFuzzer on the frame parser, which stable Rust builds as well.

use anyhow::{Context as _, Result};

use crate::{process, terminal};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What libFuzzer wants to see of the code: which edges were taken, and what was compared.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Longer than the most headers that are read.
const LONGEST: u32 = 400;

/// Fuzzes for so many seconds, going on with the frames of the last time; a frame that breaks
/// something stays in `target/fuzz`.
pub(crate) fn run(seconds: u32) -> Result<()> {
    terminal::heading("Build the fuzz target");
    let mut build = process::tool("cargo");
    // With a target named, the flags are for it alone, and not for build scripts.
    build
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", COVERAGE.join(" "))
        .args(["build", "--release", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", TARGET, "--target-dir", "target/fuzz"]);
    process::shown(&mut build)?;

    terminal::heading("Fuzz");
    let dir = crate::top().join("target/fuzz");
    let corpus = dir.join("corpus");
    std::fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    let mut fuzz = process::tool(dir.join(TARGET).join("release/guard-fuzz"));
    fuzz.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", dir.display()))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .arg(corpus);
    process::shown(&mut fuzz)
}
