//! The Python peers: independent implementations that the tests talk to, and the spelling checker,
//! in a virtual environment that is named after its contents, so that a change to the pins makes a
//! new one and going back finds the old one.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process;
use crate::terminal::Task;

/// Debian's own Python, which its package python3-venv belongs to.
const PYTHON: &str = "/usr/bin/python3";

const REQUIREMENTS: &str = "tests/peers/requirements.txt";

/// Where the virtual environment is, or will be.
pub(super) fn dir(cache: &Path) -> Result<PathBuf> {
    let path = crate::top().join(REQUIREMENTS);
    let pins =
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(cache.join(format!("peers-{:016x}", digest(&pins))))
}

/// Makes the virtual environment; true if it was not there.
pub(super) fn ensure(venv: &Path) -> Result<bool> {
    // Written last: a virtual environment without it is one that was interrupted.
    let stamp = venv.join("complete");
    if stamp.is_file() {
        return Ok(false);
    }
    let task =
        Task::start("the tests' Python peers", "gRPC from another hand, and a spelling checker");
    process::quiet(&task, process::tool(PYTHON).args(["-m", "venv", "--clear"]).arg(venv))?;
    let mut install = process::tool(venv.join("bin/pip"));
    // No package is built from source: grpcio takes a quarter of an hour.
    install.args(["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]);
    install.args(["--only-binary", ":all:", "--requirement", REQUIREMENTS]);
    process::quiet(&task, &mut install)?;
    fs::write(&stamp, "").with_context(|| format!("could not write {}", stamp.display()))?;
    task.done();
    Ok(true)
}

/// Only a name: a different digest under another compiler costs one more installation.
fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
