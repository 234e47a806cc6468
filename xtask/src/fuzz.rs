//! `cargo xtask fuzz`: libFuzzer on what reads others' bytes, which stable Rust builds as well.

use anyhow::{Context as _, Result, ensure};

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

/// A program of `tests/fuzz/`.
struct Fuzzer {
    name: &'static str,
    /// Longer than anything that makes sense to it.
    longest: u32,
    /// Where to begin, and what to make of it.
    options: &'static [&'static str],
}

static FUZZERS: [Fuzzer; 3] = [
    Fuzzer { name: "frame", longest: 400, options: &[] },
    Fuzzer { name: "cni", longest: 2048, options: &["-only_ascii=1", "-dict=tests/fuzz/cni.dict"] },
    Fuzzer {
        name: CONFIG,
        longest: 8192,
        options: &["-only_ascii=1", "-seed_inputs=docs/agent.toml"],
    },
];

/// The one that is built with the agent.
const CONFIG: &str = "config";

/// Fuzzes each (or `only` one) for so many seconds, going on with the inputs of the last time; one that
/// breaks something stays in `target/fuzz`.
///
/// # Errors
/// There is no such fuzzer, or it has found something.
pub(crate) fn run(seconds: u32, only: Option<&str>) -> Result<()> {
    let fuzzers = FUZZERS.iter().filter(|fuzzer| only.is_none_or(|only| only == fuzzer.name));
    let names = FUZZERS.each_ref().map(|fuzzer| fuzzer.name).join(", ");
    ensure!(fuzzers.clone().count() > 0, "there is no such fuzzer; there are {names}");
    terminal::heading("Build the fuzzers");
    let mut build = process::tool("cargo");
    // With a target named, the flags are for it alone, and not for build scripts.
    build
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", COVERAGE.join(" "))
        .args(["build", "--release", "--locked", "--manifest-path", "tests/fuzz/Cargo.toml"])
        .args(["--target", TARGET, "--target-dir", "target/fuzz"]);
    if only.is_none_or(|only| only == CONFIG) {
        build.args(["--features", "agent"]);
    }
    process::shown(&mut build)?;

    let dir = crate::top().join("target/fuzz");
    for Fuzzer { name, longest, options } in fuzzers {
        terminal::heading(&format!("Fuzz: {name}"));
        let corpus = dir.join("corpus").join(name);
        std::fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
        let mut fuzz = process::tool(dir.join(TARGET).join("release").join(name));
        fuzz.arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={longest}"))
            .arg(format!("-artifact_prefix={}/{name}-", dir.display()))
            .args(["-print_final_stats=1", "-verbosity=0"])
            .args(*options)
            .arg(corpus);
        process::shown(&mut fuzz)?;
    }
    Ok(())
}
