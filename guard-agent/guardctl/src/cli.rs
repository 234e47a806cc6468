//! The command line: what can be asked for, and how.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use guard_api::proto;
use guard_core::{duration, mac::Mac};
use ipnet::IpNet;

/// Where the agent listens unless it is told otherwise.
const SOCKET: &str = "/run/guard/guard.sock";

/// Leases, evidence and conflicts of this node, from guard's agent.
#[derive(Debug, Parser)]
#[command(name = "guardctl", version = guard_api::VERSION.as_str(), arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done (also for the outcomes stale and not_found), 1 the agent
refused (or `check` found something, `adopt` left something out, or
`status --ready` found it not ready), 2 usage, 3 the agent cannot be reached.

Example:
  guardctl allocate --pool sandboxes --sandbox web-1 -o json")]
pub(crate) struct Cli {
    /// How to print: tables for people, JSON for scripts.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,

    /// The agent's socket [default: $GUARD_SOCKET, else /run/guard/guard.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    pub task: Task,
}

impl Cli {
    /// The socket to talk to: the option, else the environment, else the default.
    pub(crate) fn socket(&self) -> PathBuf {
        let environment = || std::env::var_os("GUARD_SOCKET").filter(|path| !path.is_empty());
        self.socket
            .clone()
            .or_else(|| environment().map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(SOCKET))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    #[command(flatten)]
    Agent(Command),

    /// Watch pools, ports, conflicts and rates as they change.
    ///
    /// tab goes to the next view, the arrows move in it, q leaves.
    #[command(after_help = "Example:\n  guardctl top")]
    Top,

    #[command(flatten)]
    Local(crate::local::Command),
}

/// What the agent is asked, with one call.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Get one address from each of the pools, all or none.
    ///
    /// Asking again with the same sandbox, lifecycle and key gives the same leases.
    #[command(after_help = "Examples:\n  \
        guardctl allocate --pool sandboxes --sandbox web-1 --lifecycle 7\n  \
        guardctl allocate --pool sandboxes --sandbox web-1 --interface veth-web-1")]
    Allocate(Allocate),

    /// Say that the sandbox runs: held becomes active.
    #[command(after_help = "Example:\n  guardctl confirm --generation 1866435632857088")]
    Confirm {
        /// The lease's generation, as `allocate` gave it.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        generation: u64,
    },

    /// Name the only MAC and the only port that may use a lease's address.
    #[command(after_help = "Examples:\n  \
        guardctl bind --generation 1866435632857088 --interface veth-web-1\n  \
        guardctl bind --generation 1866435632857088 --mac 02:00:00:00:00:0a")]
    Bind(Bind),

    /// Give leases back, by generation or by owner.
    ///
    /// An address that is still in use stays `releasing` until it is not.
    #[command(after_help = "Examples:\n  guardctl release --generation 1866435632857088\n  \
        guardctl release --sandbox web-1 --lifecycle 7")]
    Release(Release),

    /// List leases, cooling and quarantined addresses included.
    #[command(after_help = "Example:\n  guardctl leases --pool sandboxes --state quarantined")]
    Leases(Leases),

    /// List the pools and how full they are.
    #[command(after_help = "Example:\n  guardctl pools")]
    Pools,

    /// List the addresses that are in use now, with the evidence.
    #[command(after_help = "Example:\n  guardctl live --bridge br0")]
    Live {
        /// Only those on this bridge.
        #[arg(long)]
        bridge: Option<String>,
    },

    /// List the ports of the watched bridges and whether the program is on them.
    #[command(after_help = "Example:\n  guardctl ports")]
    Ports,

    /// List the incidents that are open.
    #[command(after_help = "Examples:\n  guardctl conflicts --all\n  guardctl conflicts --follow")]
    Conflicts {
        /// Closed ones too.
        #[arg(long, conflicts_with = "follow")]
        all: bool,
        /// Print the open ones, then each as it opens, changes or closes.
        #[arg(long)]
        follow: bool,
    },

    /// Keep an incident, and those to come about its address, from alerting anyone for a while.
    ///
    /// They are listed and counted all the same. One that becomes worse than it is now, or that lasts
    /// longer, is told.
    #[command(after_help = "Examples:\n  guardctl silence 4294967297 --for 2h\n  \
        guardctl silence 4294967297 --for 0s    # alert again")]
    Silence {
        /// The incident's id, as `conflicts` shows it.
        id: String,
        /// For how long, e.g. 30m or 2h; 0s ends a silence.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
        span: Duration,
    },

    /// Follow lease and conflict events as they are committed.
    #[command(after_help = "Example:\n  guardctl events --follow --from 0 -o json")]
    Events {
        /// Print events until interrupted.
        #[arg(long, required = true)]
        follow: bool,
        /// Start after this sequence number instead of now.
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
    },

    /// Show how each frame of a port is decoded, until interrupted.
    #[command(after_help = "Example:\n  guardctl trace veth-web-1")]
    Trace {
        /// The port: the host's side of a veth.
        port: String,
    },

    #[command(flatten)]
    Enforcement(crate::enforce::Command),

    #[command(flatten)]
    Operator(crate::operator::Command),

    /// Show the agent's version, whether it is ready, and what is degraded.
    #[command(after_help = "Example:\n  guardctl status")]
    Status {
        /// End with exit code 1 where it is not ready.
        #[arg(long)]
        ready: bool,
    },
}

#[derive(Debug, Args)]
pub struct Allocate {
    /// The pools, one address from each.
    #[arg(long, required = true, num_args = 1.., value_name = "POOL")]
    pub pool: Vec<String>,
    /// The sandbox's name.
    #[arg(long)]
    pub sandbox: String,
    /// Tells one run of the sandbox from the next.
    #[arg(long)]
    pub lifecycle: Option<String>,
    /// Tells several interfaces of one sandbox apart, e.g. eth0.
    #[arg(long)]
    pub key: Option<String>,
    /// Ask for this address.
    #[arg(long, value_parser = address)]
    pub address: Option<IpAddr>,
    /// The only MAC that may use the address.
    #[arg(long)]
    pub mac: Option<Mac>,
    /// The only port that may use the address, by the name of the host's side.
    #[arg(long)]
    pub interface: Option<String>,
    /// A note for people, kept with the lease.
    #[arg(long, num_args = 1.., value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("binding").args(["mac", "interface"]).required(true).multiple(true))]
pub struct Bind {
    /// The lease's generation, as `allocate` gave it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub generation: u64,
    /// The only MAC that may use the address.
    #[arg(long)]
    pub mac: Option<Mac>,
    /// The only port that may use the address, by the name of the host's side.
    #[arg(long)]
    pub interface: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["generation", "sandbox"]).required(true))]
pub struct Release {
    /// The lease's generation, as `allocate` gave it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub generation: Option<u64>,
    /// All leases of this sandbox.
    #[arg(long)]
    pub sandbox: Option<String>,
    /// The run of the sandbox; needed where several hold leases.
    #[arg(long, conflicts_with = "generation", requires = "sandbox")]
    pub lifecycle: Option<String>,
}

#[derive(Debug, Args)]
pub struct Leases {
    /// Only those of this pool.
    #[arg(long)]
    pub pool: Option<String>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    pub state: Option<State>,
    /// Only those of this sandbox.
    #[arg(long)]
    pub sandbox: Option<String>,
}

/// The states that are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    Held,
    Active,
    Releasing,
    Cooling,
    Quarantined,
}

impl From<State> for proto::LeaseState {
    fn from(state: State) -> Self {
        match state {
            State::Held => Self::Held,
            State::Active => Self::Active,
            State::Releasing => Self::Releasing,
            State::Cooling => Self::Cooling,
            State::Quarantined => Self::Quarantined,
        }
    }
}

pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address; write it as 10.8.64.2"))
}

pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    let net: IpNet =
        text.parse().map_err(|_| format!("{text:?} is not a prefix; write it as 10.8.64.16/28"))?;
    match net.trunc() {
        meant if meant == net => Ok(net),
        meant => Err(format!("{text:?} is an address within {meant}; write the prefix")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not a label; write it as key=value")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[track_caller]
    fn refused(line: &str, kind: ErrorKind, names: &str) {
        let error = parse(line).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{error}");
        assert!(error.to_string().contains(names), "{names:?} is not in: {error}");
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every command and its subcommands, by the words that they are called with.
    fn walk(command: &clap::Command, words: &str, found: &mut Vec<(String, String)>) {
        for command in command.get_subcommands() {
            let words = format!("{words} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            walk(command, &words, found);
            found.push((words, help));
        }
    }

    #[test]
    fn every_command_has_an_example_that_can_be_typed() {
        let mut commands = Vec::new();
        walk(&Cli::command(), "guardctl", &mut commands);
        assert!(commands.len() > 30, "{commands:?}");
        for (words, help) in commands {
            let examples = help.split_once("Example:\n").or(help.split_once("Examples:\n"));
            let (_, examples) = examples.unwrap_or_else(|| panic!("{words} has no example"));
            assert!(examples.contains(&words), "{words} is not in its own examples");
            for line in examples.lines() {
                // Else a terminal of eighty columns breaks it, and half of it is copied.
                assert!(line.len() <= 80, "{line}");
                let typed = line.trim().split(['#', '|', '>']).next().unwrap_or_default();
                parse(typed).unwrap_or_else(|error| panic!("{typed}: {error}"));
            }
        }
    }

    #[test]
    fn every_command_of_the_contract_is_there() {
        for line in [
            "allocate --pool p --sandbox s --lifecycle l --key k --address 10.8.64.2",
            "confirm --generation 1",
            "bind --generation 1 --mac 02:00:00:00:00:0a --interface veth0",
            "release --sandbox s --lifecycle l",
            "leases --pool p --state held --sandbox s",
            "pools",
            "live --bridge rt0",
            "ports",
            "conflicts --follow",
            "silence 1 --for 2h",
            "events --follow --from 1",
            "holds",
            "why 10.8.64.2",
            "reconcile --dry-run --consent 1",
            "gc --yes",
            "force-release --pool p --address 10.8.64.2 --dry-run",
            "quarantine add --pool p --address 10.8.64.2",
            "quarantine remove --pool p --address 10.8.64.2",
            "quarantine list",
            "subnets reserve --pool p --id i --length 28",
            "subnets release --id i",
            "subnets list",
            "interfaces reserve --prefix veth --id i",
            "interfaces release veth0",
            "interfaces list",
            "check",
            "backup /tmp/b.db",
            "recover --from /tmp/b.db --dry-run",
            "adopt --from-host-local /tmp --dry-run",
            "source ignore containerd --for 2h --yes",
            "source ignore directory --for 0s --dry-run",
            "drops --bridge rt0 --port veth0 --reason violation --follow",
            "enforce --dry-run --bridge rt0 --since 24h",
            "enforce on --bridge rt0 --yes",
            "enforce off --bridge rt0",
            "enforce status --bridge rt0",
            "enforce resume --bridge rt0",
            "port set veth0 --mode enforce --for 1h",
            "trace veth0",
            "replay a.pcap",
            "status -o json",
            "top --socket /tmp/g.sock",
        ] {
            parse(&format!("guardctl {line}")).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn allocate_takes_all_that_the_api_does() {
        let cli = parse(
            "guardctl allocate --pool a b --pool c --sandbox s --lifecycle l --key eth0 \
             --address 10.8.64.2 --mac 02:00:00:00:00:0A --interface veth0 --label x=1 y= -o json",
        )
        .unwrap();
        assert_eq!(cli.output, Format::Json);
        let Task::Agent(Command::Allocate(args)) = cli.task else { panic!("{:?}", cli.task) };
        assert_eq!(args.pool, ["a", "b", "c"]);
        assert_eq!((args.sandbox.as_str(), args.lifecycle.as_deref()), ("s", Some("l")));
        assert_eq!(args.mac.unwrap().to_string(), "02:00:00:00:00:0a");
        assert_eq!(args.address.unwrap().to_string(), "10.8.64.2");
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(args.label, [label("x", "1"), label("y", "")]);
    }

    #[test]
    fn bad_values_are_named() {
        let allocate = "guardctl allocate --pool p --sandbox s";
        let bad = ErrorKind::ValueValidation;
        refused(&format!("{allocate} --mac 02:zz"), bad, "\"02:zz\" is not a MAC address");
        refused(&format!("{allocate} --address 10.8.64"), bad, "\"10.8.64\" is not an IP address");
        let reserve = "guardctl subnets reserve --pool p --id i --prefix 10.8.64.200/28";
        refused(reserve, bad, "is an address within 10.8.64.192/28");
        let replay = "guardctl replay a.pcap --prefix 10.1.0.5/24";
        refused(replay, bad, "is an address within 10.1.0.0/24");
        parse("guardctl replay a.pcap --prefix 10.1.0.5/32").unwrap();
        refused("guardctl silence 1 --for 999999999h", bad, "at most 10000 years");
        refused(&format!("{allocate} --label x"), bad, "\"x\" is not a label");
        refused("guardctl confirm --generation 0", bad, "'0'");
        refused("guardctl leases --state busy", ErrorKind::InvalidValue, "'busy'");
    }

    #[test]
    fn what_a_call_needs_is_asked_for() {
        let missing = ErrorKind::MissingRequiredArgument;
        refused("guardctl allocate --pool p", missing, "--sandbox");
        refused("guardctl allocate --sandbox s", missing, "--pool");
        refused("guardctl bind --generation 1", missing, "--mac");
        refused("guardctl release", missing, "--generation");
        refused("guardctl events", missing, "--follow");
        refused("guardctl enforce --dry-run", missing, "--bridge");
        refused("guardctl enforce on", missing, "--bridge");
        let conflict = ErrorKind::ArgumentConflict;
        refused("guardctl release --generation 1 --sandbox s", conflict, "--sandbox");
        refused("guardctl release --generation 1 --lifecycle l", conflict, "--lifecycle");
        refused("guardctl conflicts --all --follow", conflict, "--follow");
        parse("guardctl release --sandbox s --lifecycle l").unwrap();
        parse("guardctl bind --generation 1 --interface veth0").unwrap();
    }

    #[test]
    fn the_socket_option_wins() {
        let cli = parse("guardctl status --socket /tmp/g.sock").unwrap();
        assert_eq!(cli.socket(), PathBuf::from("/tmp/g.sock"));
    }
}
