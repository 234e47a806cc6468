//! The daemon.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use guard_agent::{
    config::{self, Config, LogFormat},
    daemon::{self, capabilities, journald::Journal, malloc},
    datapath,
};
use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Hands out addresses to sandboxes, watches who uses them, and tells of two claimants of one.
#[derive(Parser)]
#[command(version, after_help = "Example: guard-agent run --config /etc/guard/agent.toml")]
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
    #[command(after_help = "Example: guard-agent detach --config /etc/guard/agent.toml")]
    Detach {
        /// The configuration file, which says where things are pinned.
        #[arg(long, value_name = "FILE", default_value = "/etc/guard/agent.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match carry_out(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard-agent: {}", message(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each said once: most messages name their cause themselves.
fn message(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { config: path } => {
            let config = Config::load(&path)?;
            daemon::keep_to_ourselves();
            capabilities::check()?;
            capabilities::drop_others()?;
            malloc::few_heaps();
            start_log(config.log_format);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime's threads")?;
            let ended = runtime.block_on(daemon::run(&path, config));
            // All that must be done is done: a thread that hangs is not waited for.
            runtime.shutdown_background();
            ended
        }
        Command::CheckConfig { file } => {
            let config = Config::load(&file)?;
            let (bridges, pools) = (config.bridges.len(), config.pools.iter().len());
            println!("{}: good: {bridges} bridge(s), {pools} pool(s)", file.display());
            Ok(())
        }
        Command::PrintConfig => {
            print!("{}", config::commented_defaults());
            Ok(())
        }
        Command::Detach { config } => {
            let config = Config::load(&config)?;
            let removed = datapath::detach(&config.bpffs)?;
            println!("{}: {removed} links and maps removed", config.bpffs.display());
            Ok(())
        }
    }
}

/// To journald where systemd has made it our standard error, else to standard error in the format
/// that is configured. `RUST_LOG` narrows or widens what is logged; the default is `info`.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    if let Some(journal) = Journal::of_service() {
        return tracing_subscriber::registry().with(journal.with_filter(filter)).init();
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
