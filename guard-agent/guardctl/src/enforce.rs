//! What is dropped: which frames were, where it is done, and what would come of doing it.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use guard_api::{
    client::answer,
    pages,
    proto::{
        Drops, DropsRequest, DropsResponse, EnforcementMode, EnforcementRequest,
        ResumeEnforcementRequest, SetModeRequest, admin_client::AdminClient,
        guard_client::GuardClient,
    },
};
use guard_core::duration;
use jiff::Timestamp;
use tokio::{signal, time};
use tonic::transport::Channel;

use crate::{
    error::Error,
    output::Output,
    view::{Answer, DryRun, Modes},
};

/// How often it is looked for more that was dropped.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the frames that were dropped, or would have been, by port and reason.
    #[command(after_help = "Examples:\n  guardctl drops --bridge rt0\n  \
        guardctl drops --port veth-web-1 --follow")]
    Drops {
        /// Only on this bridge.
        #[arg(long)]
        bridge: Option<String>,
        /// Only of this port.
        #[arg(long)]
        port: Option<String>,
        /// Only for this reason, such as violation.
        #[arg(long)]
        reason: Option<String>,
        /// Print what there is, then each row as it grows, until interrupted.
        #[arg(long)]
        follow: bool,
    },

    /// Drop the frames that break the rules, or only tell of them; and see what would come of it.
    #[command(after_help = "Examples:\n  guardctl enforce --dry-run --bridge rt0 --since 24h\n  \
        guardctl enforce on --bridge rt0\n  guardctl enforce status")]
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    #[command(arg_required_else_help = true)]
    Enforce {
        #[command(flatten)]
        look: Look,
        #[command(subcommand)]
        action: Option<Enforce>,
    },

    /// Give a port a mode of its own.
    #[command(after_help = "Example:\n  guardctl port set veth-web-1 --mode enforce --for 1h")]
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Port {
        #[command(subcommand)]
        action: Port,
    },
}

/// What enforcing would come to.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// Change nothing and list what would have been dropped.
    #[arg(long, required = true)]
    dry_run: bool,
    /// The bridge.
    #[arg(long, required = true)]
    bridge: Option<String>,
    /// Only ports of which something would have been within so long, e.g. 24h.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    since: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enforce {
    /// Drop frames on a bridge from now on, until the agent reads its configuration again.
    ///
    /// What `status` finds speaks against it: errors refuse it, warnings want --yes.
    #[command(after_help = "Example:\n  guardctl enforce on --bridge rt0")]
    On(Switch),
    /// Only observe on a bridge from now on, until the agent reads its configuration again.
    #[command(after_help = "Example:\n  guardctl enforce off --bridge rt0")]
    Off(Switch),
    /// Show what each bridge is set to, what is in force, and what speaks against it.
    #[command(after_help = "Example:\n  guardctl enforce status --bridge rt0")]
    Status {
        /// Only this bridge.
        #[arg(long)]
        bridge: Option<String>,
    },
    /// Drop again what the brake has let pass.
    #[command(after_help = "Example:\n  guardctl enforce resume --bridge rt0")]
    Resume {
        /// The bridge.
        #[arg(long)]
        bridge: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Switch {
    /// The bridge.
    #[arg(long)]
    bridge: String,
    /// Whatever warnings there are.
    #[arg(long)]
    yes: bool,
    /// Change nothing and say whether it would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Port {
    /// Have a port drop frames or only observe, whatever its bridge does; over restarts too.
    #[command(after_help = "Examples:\n  \
        guardctl port set veth-web-1 --mode enforce --for 1h\n  \
        guardctl port set veth-web-1 --mode bridge    # as its bridge again")]
    Set {
        /// The port: the host's side of a veth.
        port: String,
        /// What becomes of its frames that break the rules.
        #[arg(long, value_enum)]
        mode: Mode,
        /// For how long, e.g. 30m or 2h; else until it is changed.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
        span: Option<Duration>,
        /// Whatever warnings there are.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// They are dropped.
    Enforce,
    /// They are counted and pass.
    Observe,
    /// As on its bridge.
    Bridge,
}

impl From<Mode> for EnforcementMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Enforce,
            Mode::Observe => Self::Observe,
            Mode::Bridge => Self::Bridge,
        }
    }
}

impl Command {
    /// Does what was asked for.
    ///
    /// # Errors
    /// The agent refused or cannot be reached.
    pub(crate) async fn run(self, channel: Channel, output: Output) -> Result<(), Error> {
        match self {
            Self::Drops { bridge, port, reason, follow } => {
                let request = DropsRequest {
                    bridge: bridge.unwrap_or_default(),
                    interface: port.unwrap_or_default(),
                    reason: reason.unwrap_or_default(),
                    ..DropsRequest::default()
                };
                match follow {
                    false => output.print(&pages::all(&channel, request).await?),
                    true => follow_drops(&channel, request, output).await,
                }
            }
            Self::Enforce { action: None, look } => dry_run(&channel, look, output).await,
            Self::Enforce { action: Some(action), .. } => action.run(channel, output).await,
            Self::Port { action: Port::Set { port, mode, span, yes } } => {
                let too_long = |_| Error::Usage("that is longer than any calendar".to_owned());
                let request = SetModeRequest {
                    interface: port,
                    mode: EnforcementMode::from(mode).into(),
                    duration: span.map(TryInto::try_into).transpose().map_err(too_long)?,
                    yes,
                    ..SetModeRequest::default()
                };
                set_mode(channel, request, output).await
            }
        }
    }
}

impl Enforce {
    async fn run(self, channel: Channel, output: Output) -> Result<(), Error> {
        let switch = |Switch { bridge, yes, dry_run }, mode: EnforcementMode| SetModeRequest {
            bridge,
            mode: mode.into(),
            yes,
            dry_run,
            ..SetModeRequest::default()
        };
        match self {
            Self::On(to) => set_mode(channel, switch(to, EnforcementMode::Enforce), output).await,
            Self::Off(to) => set_mode(channel, switch(to, EnforcementMode::Observe), output).await,
            Self::Status { bridge } => {
                let bridge = bridge.unwrap_or_default();
                let request = EnforcementRequest { bridge };
                output.print(&answer(GuardClient::new(channel).enforcement(request)).await?)
            }
            Self::Resume { bridge } => {
                let request = ResumeEnforcementRequest { bridge };
                let response =
                    answer(AdminClient::new(channel).resume_enforcement(request)).await?;
                let bridge = response.bridge;
                output.print(&Answer { dry_run: false, response: Modes { bridge } })
            }
        }
    }
}

async fn set_mode(channel: Channel, request: SetModeRequest, output: Output) -> Result<(), Error> {
    let dry_run = request.dry_run;
    let bridge = answer(AdminClient::new(channel).set_mode(request)).await?.bridge;
    output.print(&Answer { dry_run, response: Modes { bridge } })
}

async fn dry_run(channel: &Channel, look: Look, output: Output) -> Result<(), Error> {
    let bridge = look.bridge.unwrap_or_default();
    let request = DropsRequest { bridge: bridge.clone(), ..DropsRequest::default() };
    let mut drops = pages::all(channel, request).await?.drops;
    if let Some(since) = look.since {
        let now = Timestamp::now();
        let is_old = |drops: &Drops| {
            let last = guard_api::json::time(drops.last_time);
            last.is_some_and(|last| now.duration_since(last).unsigned_abs() > since)
        };
        drops.retain(|drops| !is_old(drops));
    }
    // Those that a lease names come first: they are who an operator answers for.
    drops.sort_by_key(|drops| drops.generation == 0);
    let bound = drops.iter().filter(|drops| drops.generation != 0).count();
    output.print(&DryRun { bridge, bound, drops })
}

/// Prints the rows that have grown since the last look, until interrupted.
async fn follow_drops(
    channel: &Channel,
    request: DropsRequest,
    output: Output,
) -> Result<(), Error> {
    let mut interrupt = std::pin::pin!(signal::ctrl_c());
    let mut known = BTreeMap::new();
    let mut ticks = time::interval(EVERY);
    loop {
        tokio::select! {
            biased;
            _ = &mut interrupt => return Ok(()),
            _ = ticks.tick() => {}
        }
        let mut drops = pages::all(channel, request.clone()).await?.drops;
        drops.retain(|drops| {
            let frames = (drops.dropped, drops.would_drop);
            known.insert((drops.ifindex, drops.reason.clone()), frames) != Some(frames)
        });
        if !drops.is_empty() {
            output.print(&DropsResponse { drops, ..DropsResponse::default() })?;
        }
    }
}
