//! The steps, each one command that can also be typed by hand.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::process;

/// A step of `cargo xtask test`, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// The code is formatted
    Fmt,
    /// The words are spelled as they should be
    Typos,
    /// The proto files are documented and in order
    Buf,
    /// The dependencies' licences and sources are allowed
    Deny,
    /// No lint has anything to say
    Clippy,
    /// The same for the eBPF programs
    ClippyEbpf,
    /// Each package builds by itself, with no feature that only another one asks for
    Packages,
    /// The documentation builds
    Doc,
    /// The programs build; the scenarios run them
    Build,
    /// All tests pass
    Test,
    /// What reads frames stands some seconds of libFuzzer
    Fuzz,
    /// The Helm chart is valid; only when named, as its tools are a large download
    Chart,
    /// The program's tests pass on other kernels, in virtual machines
    Kernels,
}

impl Step {
    /// The name by which it is asked for.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Typos => "typos",
            Self::Buf => "buf",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::ClippyEbpf => "clippy-ebpf",
            Self::Packages => "packages",
            Self::Doc => "doc",
            Self::Build => "build",
            Self::Test => "test",
            Self::Fuzz => "fuzz",
            Self::Chart => "chart",
            Self::Kernels => "kernels",
        }
    }

    /// Whether it runs where no step is named: what checks the chart is 200 MB.
    pub(crate) fn by_default(self) -> bool {
        self != Self::Chart
    }

    /// The commands that decide it; `peers` is the tests' Python environment.
    pub(crate) fn commands(self, peers: &Path) -> Vec<Command> {
        if self == Self::Packages { PACKAGES.map(alone).into() } else { vec![self.command(peers)] }
    }

    fn command(self, peers: &Path) -> Command {
        let mut command = match self {
            Self::Typos => process::tool(peers.join("bin/typos")),
            Self::Buf => process::tool(peers.join("bin/buf")),
            Self::Deny => process::tool("cargo-deny"),
            Self::Build => process::build(),
            _ => process::tool("cargo"),
        };
        match self {
            Self::Fmt => command.args(["fmt", "--all", "--check"]),
            Self::Typos | Self::Build | Self::Packages => &mut command,
            Self::Buf => command.args(["lint", "guard-agent/proto"]),
            // `advisories` is left out: it wants a database from the network.
            Self::Deny => command.args(["--locked", "--workspace", "--all-features"]).args([
                "check",
                "--hide-inclusion-graph",
                "bans",
                "licenses",
                "sources",
            ]),
            Self::Clippy => command
                .args(["clippy", "--locked", "--workspace", "--all-targets"])
                .args(["--", "--deny", "warnings"]),
            // A directory of its own: RUSTC_BOOTSTRAP makes build scripts run anew, and so would
            // every build after this one.
            Self::ClippyEbpf => command
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["clippy", "--locked", "--package", "guard-ebpf", "--features", "program"])
                .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
                .args(["--target-dir", "target/clippy-ebpf", "--", "--deny", "warnings"]),
            Self::Doc => command.env("RUSTDOCFLAGS", "--deny warnings").args([
                "doc",
                "--locked",
                "--workspace",
                "--no-deps",
            ]),
            Self::Test => command.env("GUARD_PEERS_PYTHON", peers.join("bin/python")).args([
                "test",
                "--locked",
                "--workspace",
                "--no-fail-fast",
            ]),
            Self::Fuzz => command.args(["xtask", "fuzz", "20", "frame"]),
            Self::Chart => command.args(["xtask", "chart"]),
            Self::Kernels => command.args(["xtask", "kernels", "--share"]),
        };
        command
    }
}

/// What users build. Within the workspace they share features, so that one may lean on another's.
const PACKAGES: [&str; 5] = ["guard-core", "guard-api", "guard-agent", "guardctl", "guard-ipam"];

fn alone(package: &str) -> Command {
    let mut command = process::tool("cargo");
    command.args(["clippy", "--locked", "--package", package, "--", "--deny", "warnings"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_asked_for_by_its_name() {
        for step in Step::value_variants() {
            assert_eq!(Step::from_str(step.name(), false), Ok(*step));
        }
    }
}
