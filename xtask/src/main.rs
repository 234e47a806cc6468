//! The workshop: `cargo xtask` is the one entry to everything that is done to this repository, by
//! a person and by CI alike.

mod bench;
mod chart;
mod check;
mod demo;
mod fuzz;
mod kernels;
mod package;
mod process;
mod release;
mod root;
mod setup;
mod soak;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::check::Step;
use crate::setup::Profile;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The workshop of guard")]
#[command(after_help = "Example: cargo xtask demo")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, the demo and the tests need
    ///
    /// Looks first, and says what it installs and why: Debian packages, the standard library's
    /// source (the eBPF target is built from it), bpf-linker, the Python peers that the tests talk
    /// to, and cargo-deny. On a machine that has everything it changes nothing.
    #[command(after_help = "Example: sudo -E env PATH=\"$PATH\" cargo xtask setup")]
    Setup,
    /// Show on a real bridge how a duplicate address is seen and refused
    ///
    /// Sets up, builds, and runs the demo in network namespaces of its own. Needs root.
    #[command(after_help = "Example: cargo xtask demo --json | tail -n 1")]
    Demo {
        /// End standard output with one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure guard on this machine, as it is released
    ///
    /// Sets up, makes a release build, and measures it from outside. Needs root and a real disk.
    #[command(after_help = "Example: cargo xtask bench alloc --json")]
    Bench {
        /// What to measure, and how: `guard-bench --help` after a first run
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "--help")]
        arguments: Vec<String>,
    },
    /// Run the tests of the program and the agent on other kernels
    ///
    /// Boots Debian's kernels, from the oldest that guard knows to the newest, in virtual machines.
    /// They are downloaded once, with apt, and never installed.
    #[command(after_help = "Example: cargo xtask kernels --json")]
    Kernels {
        /// One line of JSON for each kernel on standard output, instead of a table
        #[arg(long)]
        json: bool,
        /// Only the frame tests, as `cargo xtask test kernels` does
        #[arg(long)]
        share: bool,
        /// Only those whose release begins so, such as 6.1; all when none is named
        #[arg(value_name = "RELEASE")]
        only: Vec<String>,
    },
    /// Run the tests in full of which `test` runs a share
    ///
    /// Ten thousand incidents under each of two floods, frames of an attacker and what Linux
    /// believes of them, ten million frames by chance through the program. Needs root, and a
    /// machine that does nothing else.
    Soak,
    /// Fuzz the frame parser, the CNI plugin's input and the configuration with libFuzzer
    #[command(after_help = "Examples: cargo xtask fuzz 600, cargo xtask fuzz 600 frame")]
    Fuzz {
        /// For how many seconds each
        #[arg(default_value_t = 60)]
        seconds: u32,
        /// Only this one: frame, cni or config
        only: Option<String>,
    },
    /// Check the Helm chart, without a cluster
    ///
    /// Brings helm and the schemas of Kubernetes (200 MB, once), renders the chart in several ways
    /// and validates what comes out.
    #[command(after_help = "Example: cargo xtask chart")]
    Chart,
    /// Make the Debian package
    ///
    /// Sets up, makes a release build, and puts `guard_VERSION_ARCHITECTURE.deb` into
    /// `target/debian`.
    #[command(after_help = "Example: cargo xtask package")]
    Package {
        /// Of the programs that the tests use, as they are: nothing is installed or built
        #[arg(long)]
        dev: bool,
        /// Debian's revision of this version
        #[arg(long, default_value_t = 1)]
        revision: u32,
        /// Put it there instead
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
    },
    /// Make everything that a release consists of
    ///
    /// Sets up, builds, and puts into `target/guard-VERSION`: the Debian package, the programs linked
    /// statically, the Helm chart, the licences and the bill of materials (CycloneDX) of what is linked in,
    /// and SHA256SUMS. Then it prints the commands that publish it.
    #[command(after_help = "Example: cargo xtask release --tag v0.1.0")]
    Release {
        /// Only if Cargo.toml, the chart and the changelog are of this version
        #[arg(long, value_name = "TAG")]
        tag: Option<String>,
        /// Put it there instead; what is in it goes
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
    },
    /// Run what CI runs: format, lints, spelling, licences, documentation, build and tests
    ///
    /// Sets up first and stops at the first step that fails. Needs root: the scenarios make
    /// network namespaces and load eBPF programs.
    #[command(after_help = "Example: cargo xtask test fmt clippy")]
    Test {
        /// Only these steps; all of them but `chart` when none is named
        #[arg(value_name = "STEP")]
        steps: Vec<Step>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup => setup::run(Profile::Test),
        Task::Demo { json } => demo::run(json),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Kernels { json, share, only } => kernels::run(json, share, &only),
        Task::Soak => soak::run(),
        Task::Chart => chart::run(),
        Task::Package { dev, revision, out } => package::run(dev, revision, out),
        Task::Release { tag, out } => release::run(tag.as_deref(), out),
        Task::Fuzz { seconds, only } => fuzz::run(seconds, only.as_deref()),
        Task::Test { steps } => check::run(&steps),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The top of the repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ is a directory of the repository")
}
