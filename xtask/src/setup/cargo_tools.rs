//! Programs that cargo installs, each at the one version that is known to work.

use anyhow::{Result, ensure};

use super::Profile;
use crate::process;
use crate::terminal::Task;

struct Tool {
    name: &'static str,
    version: &'static str,
    why: &'static str,
    /// Those that need it; all, where none is named.
    profiles: &'static [Profile],
    /// How it is compiled.
    how: &'static [&'static str],
}

impl Tool {
    fn is_found(&self) -> bool {
        let found = process::read(process::tool(self.name).arg("--version"));
        found.is_ok_and(|found| found.trim() == format!("{} {}", self.name, self.version))
    }
}

/// Unoptimised: they work for a second or two at a time, and compiling cargo-deny with all optimisations
/// takes more than twice as long.
const FAST: &[&str] = &["--debug", "--config", "profile.dev.debug=false"];

const TESTS: &[Profile] = &[Profile::Test, Profile::Kernels];

const TOOLS: [Tool; 4] = [
    Tool {
        name: "bpf-linker",
        // Later ones are for another LLVM than the one of the compiler in rust-toolchain.toml.
        version: "0.10.3",
        why: "links the eBPF programs; about a minute",
        profiles: &[],
        how: FAST,
    },
    Tool {
        name: "cargo-deny",
        version: "0.20.2",
        why: "checks licences and sources of the dependencies; about two minutes",
        profiles: TESTS,
        how: FAST,
    },
    Tool {
        name: "cargo-about",
        version: "0.9.3",
        why: "lists licences with their texts; about two minutes",
        profiles: &[Profile::Release],
        // Not so fast: it compares texts, for minutes where it is not optimised.
        how: &["--features", "cli"],
    },
    Tool {
        name: "cargo-cyclonedx",
        version: "0.5.9",
        why: "lists what the programs are made of; about a minute",
        profiles: &[Profile::Release],
        how: FAST,
    },
];

/// Installs what is missing or of another version; true if something was.
pub(super) fn ensure(profile: Profile) -> Result<bool> {
    let mut installed = false;
    let wanted =
        TOOLS.iter().filter(|tool| tool.profiles.is_empty() || tool.profiles.contains(&profile));
    for tool in wanted {
        if tool.is_found() {
            continue;
        }
        let task = Task::start(&format!("{} {}", tool.name, tool.version), tool.why);
        let mut install = process::tool("cargo");
        install.args(["install", tool.name, "--version", tool.version, "--locked", "--force"]);
        install.args(tool.how);
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
