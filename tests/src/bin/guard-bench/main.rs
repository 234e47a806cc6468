//! The benchmarks: the agent as it is released, measured from outside, next to what the machine
//! allows and to what people use today.

mod alloc;
mod bare;
mod bpf;
mod cni;
mod datapath;
mod detect;
mod disk;
mod enforce;
mod load;
mod peer;
mod raw;
mod reconcile;
mod report;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use guard_tests::require_root;

/// Measures guard on this machine. Needs root; progress goes to standard error.
#[derive(Parser)]
#[command(name = "guard-bench", version)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Durable allocations through the agent's socket
    Alloc {
        /// One line of JSON for each point, instead of a table
        #[arg(long)]
        json: bool,
        /// Where the stores are; a directory on a real disk
        #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
        dir: PathBuf,
        /// Only with so many clients at once; may be repeated
        #[arg(long, value_name = "COUNT", default_values_t = alloc::CLIENTS)]
        clients: Vec<usize>,
        /// Only with this share of the pool taken; may be repeated
        #[arg(long, value_name = "SHARE", default_values_t = alloc::FILL)]
        fill: Vec<f64>,
    },
    /// From the start of guard-ipam to its answer, beside host-local
    Cni {
        /// One line of JSON for each plugin, instead of a table
        #[arg(long)]
        json: bool,
        /// Where the stores are; a directory on a real disk
        #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
        dir: PathBuf,
    },
    /// What a frame costs on each path through the program, and what the bridge then carries
    Datapath {
        /// One line of JSON for each point, instead of a table
        #[arg(long)]
        json: bool,
    },
    /// What a bridge carries with the program on its ports and without, by iperf3
    Throughput {
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// From a frame to the news of its incident, beside arpwatch and arpalert
    Detect {
        /// One line of JSON for each point, instead of a table
        #[arg(long)]
        json: bool,
    },
    /// What enforcement costs a frame, and how soon a change is judged by
    Enforce {
        /// One line of JSON for each point, instead of a table
        #[arg(long)]
        json: bool,
    },
    /// What a pass of the reconciler costs in memory, by the number of leases
    Reconcile {
        /// One line of JSON for each point, instead of a table
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> Result<()> {
    require_root()?;
    match bench {
        Bench::Alloc { json, dir, clients, fill } => alloc::run(&dir, json, &clients, &fill),
        Bench::Cni { json, dir } => cni::run(&dir, json),
        Bench::Datapath { json } => datapath::run(json).and_then(|()| throughput::run(json)),
        Bench::Throughput { json } => throughput::run(json),
        Bench::Detect { json } => detect::run(json),
        Bench::Enforce { json } => enforce::run(json),
        Bench::Reconcile { json } => reconcile::run(json),
    }
}
