//! Commands that need no agent.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory as _, Subcommand, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use guard_core::mac::{Mac, MacError};
use ipnet::IpNet;

use crate::{
    cli::{Cli, address, prefix},
    error::Error,
    output::Output,
    replay::{self, Gateway, OnLink, Settings},
    view,
};

/// The name that everything is generated for.
const NAME: &str = "guardctl";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Replay a capture (pcap or pcapng) through the program's decision function, without an agent.
    ///
    /// Prints who was seen with which address, and the conflicts. Give what a capture does not say:
    /// the prefixes, the gateway, and whether its interfaces are ports of one sandbox each, captured
    /// in one direction (tcpdump -Q in). Otherwise each interface is taken for one behind which
    /// everybody is, as on a bridge. A configuration of the agent gives the prefixes and gateways of
    /// its pools, the uplinks, the allow rules, when two claimants are a conflict, and what is dropped of
    /// ports (--ingress), which also follows from the leases (--leases); what is not known of the bridge,
    /// as whether it filters VLANs, drops nothing, and neither do quotas. Exits with 1 if
    /// the file cannot be read to its end, and with --fail where there is a conflict.
    #[command(after_help = "Examples:\n  \
        guardctl replay br0.pcap --prefix 10.8.64.0/24 --gateway 10.8.64.1\n  \
        guardctl replay br0.pcap --config /etc/guard/agent.toml --bridge br0\n  \
        guardctl replay ports.pcapng --ingress --uplink eth0 -o json")]
    Replay(Replay),

    /// Print what lets a shell complete commands and options.
    #[command(after_help = "Examples:\n  \
        guardctl completions bash > /etc/bash_completion.d/guardctl\n  \
        guardctl completions zsh > /usr/local/share/zsh/site-functions/_guardctl")]
    Completions {
        /// The shell.
        shell: Shell,
    },

    /// Write the man pages, one for each command, into a directory.
    #[command(after_help = "Example:\n  guardctl man /usr/local/share/man/man1")]
    Man {
        /// The directory; made if it is not there.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The capture.
    pub file: PathBuf,
    /// The agent's configuration, for what it says of the bridge.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The bridge of the configuration that the capture is of, where it has several.
    #[arg(long, requires = "config", value_name = "NAME")]
    pub bridge: Option<String>,
    /// A prefix on the link [default: around each address of which ARP or ND speaks].
    #[arg(long, num_args = 1.., value_parser = prefix)]
    pub prefix: Vec<IpNet>,
    /// A gateway, with its MAC if that is known.
    #[arg(long, num_args = 1.., value_name = "ADDRESS[=MAC]", value_parser = gateway)]
    pub gateway: Vec<(IpAddr, Option<Mac>)>,
    /// The leases at that time, as `guardctl leases -o json` printed them: what is dropped follows from them.
    #[arg(long, requires = "ingress", value_name = "FILE")]
    pub leases: Option<PathBuf>,
    /// The name of the interface, where the capture has none.
    #[arg(long, default_value = "port", value_parser = NonEmptyStringValueParser::new())]
    pub port: String,
    /// Each interface is the port of one sandbox, captured in one direction.
    #[arg(long)]
    pub ingress: bool,
    /// End with 1 where the capture has a conflict.
    #[arg(long)]
    pub fail: bool,
    /// An interface that leads to other hosts all the same.
    #[arg(long, num_args = 1.., requires = "ingress", value_name = "INTERFACE",
        value_parser = NonEmptyStringValueParser::new())]
    pub uplink: Vec<String>,
}

impl Command {
    /// Does what was asked for.
    ///
    /// # Errors
    /// A file cannot be read or written, or standard output cannot be.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        match self {
            Self::Replay(args) => replay(args, output),
            Self::Completions { shell } => completions(shell),
            Self::Man { dir } => man(&dir),
        }
    }
}

fn replay(args: Replay, output: Output) -> Result<(), Error> {
    let Replay { file, config, bridge, leases, prefix, gateway, port, ingress, fail, uplink } =
        args;
    let mut settings = Settings {
        prefixes: prefix.into_iter().map(|net| OnLink { vlan: None, net }).collect(),
        gateways: gateway
            .into_iter()
            .map(|(address, mac)| Gateway { vlan: None, address, mac, ports: Vec::new() })
            .collect(),
        port,
        ingress,
        uplinks: uplink.clone(),
        ..Settings::default()
    };
    if let Some(config) = config {
        settings.configure(&config, bridge.as_deref())?;
    }
    if let Some(leases) = leases {
        settings.lease(&leases)?;
    }
    let report = replay::replay(&file, &settings)?;
    if let Some(unknown) = uplink.into_iter().find(|uplink| !report.ports.contains(uplink)) {
        let (file, ports) = (file.display(), report.ports.join(", "));
        let what = format!("{file}: it has no interface {unknown:?} (--uplink); it has {ports}");
        return Err(Error::Usage(what));
    }
    let (damage, conflicts) = (report.damage.clone(), report.conflicts.len());
    output.print(&view::Replayed::new(report, file.display().to_string()))?;
    match damage {
        Some(damage) => Err(Error::Found(damage)),
        None if fail && conflicts > 0 => Err(Error::Found(format!("conflicts: {conflicts}"))),
        None => Ok(()),
    }
}

fn completions(shell: Shell) -> Result<(), Error> {
    // By way of memory, since it panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut text);
    Ok(io::stdout().write_all(&text)?)
}

fn man(dir: &Path) -> Result<(), Error> {
    let write = || {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(Cli::command(), dir)
    };
    write().map_err(|source| Error::Directory { dir: dir.display().to_string(), source })
}

fn gateway(text: &str) -> Result<(IpAddr, Option<Mac>), String> {
    match text.split_once('=') {
        None => Ok((address(text)?, None)),
        Some((ip, mac)) => {
            let mac: Mac = mac.parse().map_err(|error: MacError| error.to_string())?;
            Ok((address(ip)?, Some(mac)))
        }
    }
}
