//! The agent, as a plugin calls it: a few calls over one connection, again and again while it starts.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use guard_api::{
    client::{self, CallError, answer},
    pages,
    proto::{
        AllocateRequest, BindRequest, Lease, LeaseState, ListLeasesRequest, ListPoolsRequest,
        Outcome, Owner, Pool, ReleaseRequest, StatusRequest, StatusResponse,
        guard_client::GuardClient, leases_client::LeasesClient, release_request::Which,
    },
};
use tokio::time::sleep;
use tonic::transport::Channel;

use crate::{conf::NetConf, error::Error};

/// How long a restart of the agent may take. Runtimes wait a minute and more for a plugin.
const RETRY_FOR: Duration = Duration::from_secs(20);

/// How long to wait before it is tried again: a socket that comes tells nobody.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Agent(Channel);

impl Agent {
    /// Connects once.
    ///
    /// # Errors
    /// Nobody listens.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, CallError> {
        client::connect(socket).await.map(Self)
    }

    /// All pools.
    pub(crate) async fn pools(&self) -> Result<Vec<Pool>, CallError> {
        Ok(pages::all(&self.0, ListPoolsRequest::default()).await?.pools)
    }

    /// How it is.
    pub(crate) async fn status(&self) -> Result<StatusResponse, CallError> {
        answer(GuardClient::new(self.0.clone()).status(StatusRequest {})).await
    }

    /// The leases of one sandbox, or of all, that are held or active.
    pub(crate) async fn leases(&self, sandbox: &str) -> Result<Vec<Lease>, CallError> {
        let request = ListLeasesRequest { sandbox: sandbox.to_owned(), ..Default::default() };
        let mut leases = pages::all(&self.0, request).await?.leases;
        leases.retain(|lease| matches!(lease.state(), LeaseState::Held | LeaseState::Active));
        Ok(leases)
    }

    /// Those of one interface of a container, and those that were taken over from a `host-local`
    /// too old to say whose interface they are.
    pub(crate) async fn leases_of(
        &self,
        container: &str,
        conf: &NetConf,
        ifname: &str,
    ) -> Result<Vec<Lease>, CallError> {
        let mut leases = self.leases(container).await?;
        leases.retain(|lease| lease.key == conf.key(ifname) || lease.key == conf.key(""));
        Ok(leases)
    }

    /// An address from each pool, or none.
    pub(crate) async fn allocate(&self, request: AllocateRequest) -> Result<Vec<Lease>, CallError> {
        Ok(answer(self.client().allocate(request)).await?.leases)
    }

    /// Declares MAC and port.
    pub(crate) async fn bind(&self, request: BindRequest) -> Result<Outcome, CallError> {
        Ok(answer(self.client().bind(request)).await?.outcome())
    }

    /// Gives one lease back; with `only_if_gone` not while anything speaks for its container. What
    /// has ended before is no error.
    pub(crate) async fn release(
        &self,
        generation: u64,
        only_if_gone: bool,
    ) -> Result<(), CallError> {
        let request =
            ReleaseRequest { which: Some(Which::Generation(generation)), only_if_gone, cut: false };
        answer(self.client().release(request)).await.map(drop)
    }

    fn client(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.0.clone())
    }
}

/// The owner of everything that a container has.
pub(crate) fn owner(container: &str) -> Option<Owner> {
    Some(Owner { sandbox: container.to_owned(), lifecycle: String::new() })
}

/// Does some work with the agent, once more from its beginning while the agent restarts: every
/// call that we make may be made twice.
///
/// # Errors
/// The agent refused, or was not there for as long as a runtime waits.
pub(crate) async fn with_retry<T>(
    socket: &Path,
    mut work: impl AsyncFnMut(Agent) -> Result<T, Error>,
) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        let done = match Agent::connect(socket).await {
            Ok(agent) => work(agent).await,
            Err(error) => Err(error.into()),
        };
        match done {
            Err(error) if error.is_passing() && start.elapsed() < RETRY_FOR => {
                sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}
