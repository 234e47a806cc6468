//! What operators can ask for.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand};
use guard_api::proto::WhyRequest;
use guard_core::{duration, mac::Mac};

use super::reserve::{Interfaces, Subnets};
use crate::cli::address;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what released addresses still wait for.
    #[command(after_help = "Example:\n  guardctl holds")]
    Holds,

    /// Compare the leases with all sources now, and take back what nothing is left of.
    ///
    /// The agent does so by itself in each interval; a lease gets one miss in each at most, whoever
    /// asks.
    #[command(after_help = "Examples:\n  guardctl reconcile --dry-run\n  \
        guardctl reconcile --consent 0badcafe")]
    Reconcile {
        /// Change nothing and say what would happen.
        #[arg(long)]
        dry_run: bool,
        /// Agree to a mass release, by the id that a pass has shown.
        #[arg(long, value_name = "ID")]
        consent: Option<String>,
    },

    /// Compare the containers with the controller's directory, and remove those whose sandboxes are
    /// over.
    ///
    /// The agent does so by itself in each interval of `[watchdog]`, where that is enabled; a dry
    /// run needs no `enabled`. Exits with 1 if a container cannot be removed.
    #[command(after_help = "Examples:\n  guardctl watchdog --dry-run\n  guardctl watchdog --yes")]
    Watchdog {
        #[command(flatten)]
        sure: Sure,
    },

    /// Say what is known of an address, a port or a MAC: who may use it, what was dropped, and what would
    /// allow it.
    #[command(after_help = "Examples:\n  guardctl why 10.8.64.2\n  \
        guardctl why --port veth-web-1\n  guardctl why --mac 02:00:00:00:00:0a")]
    Why(Why),

    /// Compare store, index, kernel and wire, and list what disagrees.
    ///
    /// Exits with 1 if anything does.
    #[command(after_help = "Example:\n  guardctl check -o json")]
    Check,

    /// Copy the lease store, as it is now, into a new file.
    #[command(after_help = "Example:\n  guardctl backup /var/backups/guard/leases.db")]
    Backup {
        /// The file; it must not exist.
        file: PathBuf,
    },

    /// Make a new lease store from what is left of a damaged or lost one.
    ///
    /// What nothing explains is quarantined. The old files are kept beside the new one.
    #[command(after_help = "Examples:\n  guardctl recover --dry-run\n  \
        guardctl recover --from /var/backups/guard/leases.db --yes")]
    Recover {
        /// A backup, for what cannot be read any more.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[command(flatten)]
        sure: Sure,
    },

    /// Release leases whose port is gone and that nothing says are in use.
    #[command(after_help = "Examples:\n  guardctl gc --dry-run\n  guardctl gc --yes")]
    Gc {
        #[command(flatten)]
        sure: Sure,
    },

    /// End the lease of an address, whoever has it.
    ///
    /// An address that is still in use stays `releasing` until it is not.
    #[command(after_help = "Example:\n  \
        guardctl force-release --pool sandboxes --address 10.8.64.2 --dry-run")]
    ForceRelease {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        sure: Sure,
    },

    /// Take addresses out of use, and give them back.
    #[command(after_help = "Examples:\n  \
        guardctl quarantine add --pool sandboxes --address 10.8.64.9\n  guardctl quarantine list")]
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Quarantine {
        #[command(subcommand)]
        action: Quarantine,
    },

    /// Do without a source of evidence that does not answer.
    #[command(after_help = "Example:\n  guardctl source ignore directory --for 2h --dry-run")]
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Source {
        #[command(subcommand)]
        action: Source,
    },

    /// Carve child subnets out of pools, and give them back.
    ///
    /// A pool gives none of a child subnet's addresses to anyone.
    #[command(after_help = "Examples:\n  \
        guardctl subnets reserve --pool sandboxes --id node-a --length 28\n  \
        guardctl subnets release --prefix 10.8.64.16/28\n  guardctl subnets list")]
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Subnets {
        #[command(subcommand)]
        action: Subnets,
    },

    /// Reserve names for interfaces that do not exist yet, and give them back.
    #[command(after_help = "Examples:\n  \
        guardctl interfaces reserve --prefix veth --id web-1\n  \
        guardctl interfaces release veth0\n  guardctl interfaces list")]
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Interfaces {
        #[command(subcommand)]
        action: Interfaces,
    },

    /// Take over the reservations of CNI's host-local plugin.
    ///
    /// Exits with 1 if some of them cannot be.
    #[command(after_help = "Example:\n  \
        guardctl adopt --from-host-local /var/lib/cni/networks/mynet --dry-run")]
    Adopt {
        /// The directory of one network.
        #[arg(long, value_name = "DIR", required = true)]
        from_host_local: PathBuf,
        /// The pool, where several have the addresses.
        #[arg(long)]
        pool: Option<String>,
        /// Change nothing and say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// Take an address that nobody has out of use.
    #[command(after_help = "Example:\n  \
        guardctl quarantine add --pool sandboxes --address 10.8.64.9")]
    Add {
        #[command(flatten)]
        place: Place,
        /// Change nothing and say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// End an operator's quarantine.
    #[command(after_help = "Example:\n  \
        guardctl quarantine remove --pool sandboxes --address 10.8.64.9")]
    Remove {
        #[command(flatten)]
        place: Place,
        /// Change nothing and say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the quarantined addresses, whoever quarantined them.
    #[command(after_help = "Example:\n  guardctl quarantine list --pool sandboxes")]
    List {
        /// Only those of this pool.
        #[arg(long)]
        pool: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Source {
    /// Wait no longer for a source: what only it could keep is not kept for it any more.
    ///
    /// Ends with the source's next complete answer, when the time is over, and with the agent.
    #[command(after_help = "Examples:\n  \
        guardctl source ignore directory --for 2h --yes\n  \
        guardctl source ignore directory --for 0s    # it counts again")]
    Ignore {
        /// The source: containerd or directory.
        name: String,
        /// For how long, e.g. 30m or 2h; 0s ends it.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
        span: Duration,
        #[command(flatten)]
        sure: Sure,
    },
}

/// An address of a pool.
#[derive(Debug, Args)]
pub struct Place {
    /// The pool.
    #[arg(long)]
    pub pool: String,
    /// The address.
    #[arg(long, value_parser = address)]
    pub address: IpAddr,
}

/// For what is not undone easily.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Sure {
    /// Change nothing and say what would happen.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask; needed where there is no terminal to ask on.
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
}

/// What is asked about.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["address", "port", "mac"]).required(true))]
pub(crate) struct Why {
    /// The address.
    #[arg(value_parser = address)]
    address: Option<IpAddr>,
    /// The port: the host's side of a veth.
    #[arg(long)]
    port: Option<String>,
    /// The MAC.
    #[arg(long)]
    mac: Option<Mac>,
}

impl From<Why> for WhyRequest {
    fn from(Why { address, port, mac }: Why) -> Self {
        Self {
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            interface: port.unwrap_or_default(),
            mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        }
    }
}
