//! The virtual environment of the tests: Python peers, which share no code with guard, and the
//! checkers of spelling and of proto files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process;
use crate::terminal::Task;

/// Debian's own Python, which its package python3-venv belongs to.
const PYTHON: &str = "/usr/bin/python3";
const REQUIREMENTS: [&str; 2] = ["tests/peers/requirements.txt", "xtask/requirements.txt"];

/// Where it is in `cache`; the scenarios look there, too.
pub(super) fn dir(cache: &Path) -> PathBuf {
    cache.join("peers")
}

/// Makes it, or makes it anew where the pins have changed; true if there was something to do.
pub(super) fn ensure(cache: &Path) -> Result<bool> {
    let venv = dir(cache);
    let pins = pins()?;
    // Written last, so that an interrupted installation is made anew as well.
    let stamp = venv.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == pins) {
        return Ok(false);
    }
    let task = Task::start(
        "the tests' Python",
        "gRPC from another hand, checkers of spelling and proto files",
    );
    make(&task, &venv)?;
    fs::write(&stamp, pins).with_context(|| format!("could not write {}", stamp.display()))?;
    task.done();
    Ok(true)
}

fn make(task: &Task, venv: &Path) -> Result<()> {
    process::quiet(task, process::tool(PYTHON).args(["-m", "venv", "--clear"]).arg(venv))?;
    let mut install = process::tool(venv.join("bin/pip"));
    install.args(["install", "--no-input", "--disable-pip-version-check"]);
    // No package is built from source: grpcio takes a quarter of an hour.
    install.args(["--progress-bar", "off", "--only-binary", ":all:"]);
    for file in REQUIREMENTS {
        install.args(["--requirement", file]);
    }
    process::quiet(task, &mut install)
}

fn pins() -> Result<String> {
    let read = |file| {
        let path = crate::top().join(file);
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
    };
    REQUIREMENTS.into_iter().map(read).collect()
}
