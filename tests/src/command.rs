//! Running programs, and finding those that are under test.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Refuses to go on without root.
///
/// # Errors
/// One line that says so.
pub fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab makes network namespaces and loads BPF programs: run it as root"
    );
    Ok(())
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// It cannot be started, or it failed: with the command line and its standard error.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    output(Command::new(program).args(args))
}

/// As [`run`], for a prepared command.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {command:?}"))
}

/// Where a program under test was built: in `GUARD_BIN_DIR`, or in the directory of this very
/// executable or the one above it (test executables lie in `deps`).
///
/// # Errors
/// It is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let candidates = if let Some(dir) = std::env::var_os("GUARD_BIN_DIR") {
        vec![PathBuf::from(dir).join(name)]
    } else {
        let own = std::env::current_exe().context("the path of this executable")?;
        own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).collect()
    };
    candidates.iter().find(|path| path.is_file()).cloned().with_context(|| {
        format!(
            "{name} is not built: looked for {candidates:?}; `cargo build` or set GUARD_BIN_DIR"
        )
    })
}
