//! Each command: the call that it makes, and what it prints.

use guard_agent::{
    client::{answer, connect},
    proto::{
        AllocateRequest, BindRequest, ConfirmRequest, ConflictsRequest, LeaseState,
        ListLeasesRequest, ListPoolsRequest, LiveRequest, Owner, PortsRequest, ReleaseRequest,
        SilenceRequest, StatusRequest, TraceRequest, WatchConflictsRequest, WatchRequest,
        guard_client::GuardClient, leases_client::LeasesClient, pools_client::PoolsClient,
        release_request::Which,
    },
    replay::{self, Settings},
};
use tonic::transport::Channel;

use crate::{
    cli::{Allocate, Bind, Cli, Command, Leases, Release, Replay},
    error::Error,
    output::Output,
    stream::follow,
    view,
};

/// Does what was asked for.
///
/// # Errors
/// The agent refused or cannot be reached, or standard output cannot be written.
pub async fn run(cli: Cli) -> Result<(), Error> {
    if let Command::Operator(command) = &cli.command {
        // Before anyone is asked for anything.
        command.confirm()?;
    }
    let output = Output(cli.output);
    let channel = match cli.command {
        Command::Replay(args) => return replay(args, output),
        _ => connect(&cli.socket()).await?,
    };
    let mut leases = LeasesClient::new(channel.clone());
    let mut guard = GuardClient::new(channel.clone());
    match cli.command {
        Command::Allocate(args) => allocate(leases, args, output).await,
        Command::Confirm { generation } => {
            let changed = answer(leases.confirm(ConfirmRequest { generation })).await?;
            output.print(&view::Changed::from(changed))
        }
        Command::Bind(args) => {
            let changed = answer(leases.bind(BindRequest::from(args))).await?;
            output.print(&view::Changed::from(changed))
        }
        Command::Release(args) => {
            let released = answer(leases.release(ReleaseRequest::from(args))).await?;
            output.print(&view::Released::from(released))
        }
        Command::Leases(args) => {
            let list = answer(leases.list(ListLeasesRequest::from(args))).await?;
            output.print(&view::Leases::from(list.leases))
        }
        Command::Pools => pools(channel, output).await,
        Command::Live { bridge } => {
            let request = LiveRequest { bridge: bridge.unwrap_or_default() };
            output.print(&view::LiveList::from(answer(guard.live(request)).await?))
        }
        Command::Ports => {
            output.print(&view::Ports::from(answer(guard.ports(PortsRequest {})).await?))
        }
        Command::Conflicts { follow: true, all: _ } => {
            let stream = answer(guard.watch_conflicts(WatchConflictsRequest {})).await?;
            follow::<_, view::Conflict>(stream, output).await
        }
        Command::Conflicts { follow: false, all } => {
            let conflicts = answer(guard.conflicts(ConflictsRequest { all })).await?;
            output.print(&view::Conflicts::from(conflicts))
        }
        Command::Trace { port: interface } => {
            let stream = answer(guard.trace(TraceRequest { interface })).await?;
            follow::<_, view::TracedFrame>(stream, output).await
        }
        Command::Silence { id, span } => {
            let too_long = |_| Error::Usage("that is longer than any calendar".to_owned());
            let duration = Some(span.try_into().map_err(too_long)?);
            let conflict = answer(guard.silence(SilenceRequest { id, duration })).await?;
            output.print(&view::Silenced::from(conflict))
        }
        Command::Events { follow: _, from } => {
            let stream =
                answer(leases.watch(WatchRequest { from, ..WatchRequest::default() })).await?;
            follow::<_, view::Event>(stream, output).await
        }
        Command::Operator(command) => command.run(channel, output).await,
        // It asks no agent.
        Command::Replay(args) => replay(args, output),
        Command::Status => {
            output.print(&view::Status::from(answer(guard.status(StatusRequest {})).await?))
        }
    }
}

fn replay(args: Replay, output: Output) -> Result<(), Error> {
    let Replay { file, prefix, gateway, port, ingress, uplink } = args;
    let (prefixes, gateways, uplinks) = (prefix, gateway, uplink);
    let settings = Settings { prefixes, gateways, port, ingress, uplinks };
    let report = replay::replay(&file, &settings)?;
    let damage = report.damage.clone();
    output.print(&view::Replayed::new(report, file.display().to_string()))?;
    damage.map_or(Ok(()), |damage| Err(Error::Found(damage)))
}

async fn allocate(
    mut leases: LeasesClient<Channel>,
    args: Allocate,
    output: Output,
) -> Result<(), Error> {
    let single = args.pool.len() == 1;
    let mut given = answer(leases.allocate(AllocateRequest::from(args))).await?.leases;
    match (single, given.pop_if(|_| single)) {
        (true, Some(lease)) => output.print(&view::Lease::from(lease)),
        _ => output.print(&view::Leases::from(given)),
    }
}

async fn pools(channel: Channel, output: Output) -> Result<(), Error> {
    let pools = answer(PoolsClient::new(channel).list(ListPoolsRequest {})).await?;
    output.print(&view::Pools::from(pools))
}

impl From<Allocate> for AllocateRequest {
    fn from(args: Allocate) -> Self {
        let Allocate { pool, sandbox, lifecycle, key, address, mac, interface, label } = args;
        Self {
            pools: pool,
            owner: Some(Owner { sandbox, lifecycle: lifecycle.unwrap_or_default() }),
            key: key.unwrap_or_default(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            interface: interface.unwrap_or_default(),
            labels: label.into_iter().collect(),
        }
    }
}

impl From<Bind> for BindRequest {
    fn from(Bind { generation, mac, interface }: Bind) -> Self {
        let mac = mac.map(|mac| mac.to_string()).unwrap_or_default();
        Self { generation, mac, interface: interface.unwrap_or_default() }
    }
}

impl From<Release> for ReleaseRequest {
    fn from(Release { generation, sandbox, lifecycle }: Release) -> Self {
        let lifecycle = lifecycle.unwrap_or_default();
        let owner = || sandbox.map(|sandbox| Which::Owner(Owner { sandbox, lifecycle }));
        Self { which: generation.map(Which::Generation).or_else(owner) }
    }
}

impl From<Leases> for ListLeasesRequest {
    fn from(Leases { pool, state, sandbox }: Leases) -> Self {
        Self {
            pool: pool.unwrap_or_default(),
            state: state.map_or(LeaseState::Unspecified, LeaseState::from).into(),
            sandbox: sandbox.unwrap_or_default(),
        }
    }
}
