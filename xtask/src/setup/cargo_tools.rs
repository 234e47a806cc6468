//! Programs that cargo installs, each at the one version that is known to work.

use anyhow::{Result, ensure};

use super::Profile;
use crate::process;
use crate::terminal::Task;

struct Tool {
    name: &'static str,
    version: &'static str,
    why: &'static str,
    tests_only: bool,
}

impl Tool {
    fn is_found(&self) -> bool {
        let found = process::read(process::tool(self.name).arg("--version"));
        found.is_ok_and(|found| found.trim() == format!("{} {}", self.name, self.version))
    }
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "bpf-linker",
        // Later ones are for another LLVM than the one of the compiler in rust-toolchain.toml.
        version: "0.10.3",
        why: "links the eBPF programs; about a minute",
        tests_only: false,
    },
    Tool {
        name: "cargo-deny",
        version: "0.20.2",
        why: "checks licences and sources of the dependencies; about two minutes",
        tests_only: true,
    },
];

/// Installs what is missing or of another version; true if something was.
pub(super) fn ensure(profile: Profile) -> Result<bool> {
    let mut installed = false;
    let wanted = TOOLS.iter().filter(|tool| profile >= Profile::Test || !tool.tests_only);
    for tool in wanted {
        if tool.is_found() {
            continue;
        }
        let task = Task::start(&format!("{} {}", tool.name, tool.version), tool.why);
        let mut install = process::tool("cargo");
        install.args(["install", tool.name, "--version", tool.version, "--locked", "--force"]);
        // Unoptimised: they work for a second or two at a time, and compiling cargo-deny with all
        // optimisations takes more than twice as long.
        install.args(["--debug", "--config", "profile.dev.debug=false"]);
        process::quiet(&task, &mut install)?;
        ensure!(
            tool.is_found(),
            "{} {} was installed and still is not what PATH finds: look for another one earlier \
             on PATH, or an install root in cargo's configuration",
            tool.name,
            tool.version
        );
        task.done();
        installed = true;
    }
    Ok(installed)
}
