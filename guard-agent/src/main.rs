//! The daemon.

use std::{
    io::{self, Write as _},
    num::NonZero,
    path::PathBuf,
    process::ExitCode,
    thread,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use guard_agent::{
    config::{self, Config},
    daemon::{self, capabilities, files, log, malloc},
    datapath,
};
use tokio::runtime::Runtime;

/// Hands out addresses to sandboxes, watches who uses them, and tells of two claimants of one.
#[derive(Parser)]
#[command(version = guard_api::VERSION.as_str(), after_help = "Example: guard-agent run --config /etc/guard/agent.toml")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM. The program in the kernel goes on watching afterwards.
    #[command(after_help = "Example: guard-agent run --config /etc/guard/agent.toml")]
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = "/etc/guard/agent.toml")]
        config: PathBuf,
    },
    /// Check a configuration file and change nothing.
    #[command(after_help = "Example: guard-agent check-config /etc/guard/agent.toml")]
    CheckConfig {
        /// The configuration file.
        #[arg(value_name = "FILE", default_value = "/etc/guard/agent.toml")]
        file: PathBuf,
    },
    /// Print the default configuration, with a description of every setting.
    #[command(after_help = "Example: guard-agent print-config > /etc/guard/agent.toml")]
    PrintConfig,
    /// Take the program off every port and remove its maps: leaves no trace in the kernel.
    #[command(after_help = "Example: guard-agent detach --config /etc/guard/agent.toml --yes")]
    Detach {
        /// The configuration file, which says where things are pinned.
        #[arg(long, value_name = "FILE", default_value = "/etc/guard/agent.toml")]
        config: PathBuf,
        /// Whatever is dropped now; needed where frames are.
        #[arg(long)]
        yes: bool,
    },
}

fn main() -> ExitCode {
    match carry_out(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // Where standard error is closed, the exit code is all that is left to say.
            let _ = io::stderr().write_all(message(&error).as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// The exit code for a configuration that cannot be used, which trying again does not mend: `EX_CONFIG` of
/// sysexits.h. The unit knows it.
const CONFIGURATION: u8 = 78;

/// A line with the error and its causes, each said once: most messages name their cause themselves.
fn message(error: &anyhow::Error) -> String {
    let text = error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    });
    format!("guard-agent: {text}\n")
}

fn runtime(name: &str, threads: usize) -> anyhow::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().thread_name(name).build();
    runtime.context("cannot start the runtime's threads")
}

fn carry_out(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config: path } => {
            let config = match Config::load(&path) {
                Ok(config) => config,
                Err(error) => {
                    let _ = io::stderr().write_all(message(&error.into()).as_bytes());
                    return Ok(ExitCode::from(CONFIGURATION));
                }
            };
            daemon::keep_to_ourselves();
            capabilities::check()?;
            capabilities::drop_others()?;
            malloc::few_heaps();
            files::raise_limit();
            let log = log::start(config.log_format).context("cannot start the log's thread")?;
            // Whoever calls the API has threads apart: no call keeps a frame from being judged.
            let cpus = thread::available_parallelism().map_or(1, NonZero::get);
            // Half as many: a thread that finds work wakes the next one, in case there is more, and on two
            // CPUs that takes longer than the call.
            let (runtime, api) = (runtime("guard", cpus)?, runtime("guard-api", cpus.div_ceil(2))?);
            let ended = runtime.block_on(daemon::run(&path, config, api.handle()));
            // All that must be done is done: a thread that hangs is not waited for.
            api.shutdown_background();
            runtime.shutdown_background();
            log.end(&ended.as_ref().err().map(message).unwrap_or_default());
            return Ok(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::CheckConfig { file } => {
            let config = Config::load(&file)?;
            let (bridges, pools) = (config.bridges.len(), config.pools.iter().len());
            println!("{}: good: {bridges} bridge(s), {pools} pool(s)", file.display());
        }
        Command::PrintConfig => {
            print!("{}", config::commented_defaults());
        }
        Command::Detach { config, yes } => {
            let config = Config::load(&config)?;
            let enforcing = datapath::enforcing(&config.bpffs)?;
            if enforcing > 0 && !yes {
                anyhow::bail!(
                    "frames that break the rules are dropped on {enforcing} ports, and would pass; \
                     call it with --yes, if that is meant"
                );
            }
            let removed = datapath::detach(&config.bpffs)?;
            println!("{}: {removed} links and maps removed", config.bpffs.display());
            if enforcing > 0 {
                println!("{enforcing} ports are open now");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
