//! Each command: the call that it makes, and what it prints.

use std::path::Path;

use guard_api::{
    client::{answer, connect},
    pages,
    proto::{
        AllocateRequest, BindRequest, ConfirmRequest, Conflict, ConflictsRequest, Event,
        LeaseState, ListLeasesRequest, ListPoolsRequest, LiveRequest, Owner, PortsRequest,
        ReleaseRequest, SilenceRequest, StatusRequest, TraceRequest, WatchConflictsRequest,
        WatchRequest, guard_client::GuardClient, leases_client::LeasesClient,
        release_request::Which,
    },
};
use tonic::transport::Channel;

use crate::{
    cli::{Allocate, Bind, Cli, Command, Leases, Release, Task},
    error::Error,
    output::{Output, partly},
    stream::follow,
    top, view,
};

/// Does what was asked for.
///
/// # Errors
/// The agent refused or cannot be reached, or standard output cannot be written.
pub(crate) async fn run(cli: Cli) -> Result<(), Error> {
    let (socket, output) = (cli.socket(), Output(cli.output));
    match cli.task {
        Task::Agent(command) => ask(command, &socket, output).await,
        Task::Local(command) => command.run(output),
        Task::Top => top::run(socket, output).await,
    }
}

async fn ask(command: Command, socket: &Path, output: Output) -> Result<(), Error> {
    if let Command::Operator(command) = &command {
        // Before anyone is asked for anything.
        command.confirm()?;
    }
    let channel = connect(socket).await?;
    let mut leases = LeasesClient::new(channel.clone());
    let mut guard = GuardClient::new(channel.clone());
    match command {
        Command::Allocate(args) => allocate(leases, args, output).await,
        Command::Confirm { generation } => {
            output.print(&answer(leases.confirm(ConfirmRequest { generation })).await?)
        }
        Command::Bind(args) => output.print(&answer(leases.bind(BindRequest::from(args))).await?),
        Command::Release(args) => {
            let released = answer(leases.release(ReleaseRequest::from(args))).await?;
            partly(released.leases.len(), released.total_size);
            output.print(&released)
        }
        Command::Leases(args) => {
            let request = ListLeasesRequest::from(args);
            output.print(&pages::all(&channel, request).await?)
        }
        Command::Pools => pools(channel, output).await,
        Command::Live { bridge } => {
            let bridge = bridge.unwrap_or_default();
            let request = LiveRequest { bridge, ..LiveRequest::default() };
            output.print(&pages::all(&channel, request).await?)
        }
        Command::Ports => output.print(&pages::all(&channel, PortsRequest::default()).await?),
        Command::Conflicts { follow: true, all: _ } => {
            let stream = answer(guard.watch_conflicts(WatchConflictsRequest {})).await?;
            follow::<_, Conflict>(stream, output).await
        }
        Command::Conflicts { follow: false, all } => {
            let request = ConflictsRequest { all, ..ConflictsRequest::default() };
            output.print(&pages::all(&channel, request).await?)
        }
        Command::Trace { port: interface } => {
            let stream = answer(guard.trace(TraceRequest { interface })).await?;
            follow::<_, view::Traced>(stream, output).await
        }
        Command::Silence { id, span } => {
            let too_long = |_| Error::Usage("that is longer than any calendar".to_owned());
            let duration = Some(span.try_into().map_err(too_long)?);
            let conflict = answer(guard.silence(SilenceRequest { id, duration })).await?;
            output.print(&view::conflict::Silenced(conflict))
        }
        Command::Events { follow: _, from } => {
            let stream =
                answer(leases.watch(WatchRequest { from, ..WatchRequest::default() })).await?;
            follow::<_, Event>(stream, output).await
        }
        Command::Enforcement(command) => command.run(channel, output).await,
        Command::Operator(command) => command.run(channel, output).await,
        Command::Status { ready } => {
            let status = answer(guard.status(StatusRequest {})).await?;
            output.print(&status)?;
            if ready && !status.ready {
                return Err(Error::Found("the agent is not ready".to_owned()));
            }
            Ok(())
        }
    }
}

async fn allocate(
    mut leases: LeasesClient<Channel>,
    args: Allocate,
    output: Output,
) -> Result<(), Error> {
    let single = args.pool.len() == 1;
    let given = answer(leases.allocate(AllocateRequest::from(args))).await?;
    match given.leases.last() {
        Some(lease) if single => output.print(lease),
        _ => output.print(&given),
    }
}

async fn pools(channel: Channel, output: Output) -> Result<(), Error> {
    output.print(&pages::all(&channel, ListPoolsRequest::default()).await?)
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
            confirmed: false,
            workload: String::new(),
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
        let which = generation.map(Which::Generation).or_else(owner);
        Self { which, only_if_gone: false }
    }
}

impl From<Leases> for ListLeasesRequest {
    fn from(Leases { pool, state, sandbox }: Leases) -> Self {
        Self {
            pool: pool.unwrap_or_default(),
            state: state.map_or(LeaseState::Unspecified, LeaseState::from).into(),
            sandbox: sandbox.unwrap_or_default(),
            ..Self::default()
        }
    }
}
