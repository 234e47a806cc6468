//! Programs that cargo installs, each at the one version that is known to work.

use anyhow::Result;

use super::Profile;
use crate::process;
use crate::terminal::Task;

struct Tool {
    name: &'static str,
    version: &'static str,
    why: &'static str,
    tests_only: bool,
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "bpf-linker",
        // Later ones are for another LLVM than the one of the compiler in rust-toolchain.toml.
        version: "0.10.3",
        why: "links the eBPF programs; about two minutes",
        tests_only: false,
    },
    Tool {
        name: "cargo-deny",
        version: "0.20.2",
        why: "checks licences and sources of the dependencies; about three minutes",
        tests_only: true,
    },
];

/// Installs what is missing or of another version; true if something was.
pub(super) fn ensure(profile: Profile) -> Result<bool> {
    let mut installed = false;
    let wanted = TOOLS.iter().filter(|tool| profile == Profile::Test || !tool.tests_only);
    for tool in wanted {
        let found = process::read(process::tool(tool.name).arg("--version"));
        if found.is_ok_and(|found| found.trim() == format!("{} {}", tool.name, tool.version)) {
            continue;
        }
        let task = Task::start(&format!("{} {}", tool.name, tool.version), tool.why);
        let mut install = process::tool("cargo");
        install.args(["install", tool.name, "--version", tool.version, "--locked", "--force"]);
        process::quiet(&task, &mut install)?;
        task.done();
        installed = true;
    }
    Ok(installed)
}
