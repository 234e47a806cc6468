//! The API, as a controller calls it: one connection, any number of calls one after the other.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use guard_api::proto::leases_client::LeasesClient;
use guard_api::proto::{
    AckHoldRequest, AllocateRequest, ConfirmRequest, Event, Lease, ListLeasesRequest, Outcome,
    Owner, ReleaseRequest, WatchRequest, event, release_request,
};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use crate::frame::Mac;

/// How long a refusal says that one should wait, if it says so.
#[must_use]
pub fn retry_delay(refused: &Status) -> Option<Duration> {
    refused.get_details_retry_info()?.retry_delay
}

/// Why an agent refuses; nothing where it is not the agent that says so.
#[must_use]
pub fn reason(refused: &Status) -> Option<String> {
    Some(refused.get_details_error_info()?.reason)
}

/// A connection of a controller.
#[derive(Clone, Debug)]
pub struct Client(LeasesClient<Channel>);

impl Client {
    /// Connects to the agent's socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self> {
        Ok(Self(LeasesClient::new(guard_api::client::connect(socket).await?)))
    }

    /// Allocates an address for a sandbox.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn allocate(&mut self, pool: &str, sandbox: &str) -> Result<Lease, Status> {
        let request = AllocateRequest {
            pools: vec![pool.to_owned()],
            owner: Some(Owner { sandbox: sandbox.to_owned(), lifecycle: String::new() }),
            ..AllocateRequest::default()
        };
        let leases = self.ask(request).await?;
        let missing = || Status::internal("an answer without a lease");
        leases.into_iter().next().ok_or_else(missing)
    }

    /// Allocates an address from each pool for a sandbox, declaring its MAC and its port.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn allocate_bound(
        &mut self,
        pools: &[&str],
        (sandbox, key): (&str, &str),
        mac: Mac,
        port: &str,
    ) -> Result<Vec<Lease>, Status> {
        let request = AllocateRequest {
            pools: pools.iter().map(|&pool| pool.to_owned()).collect(),
            owner: Some(Owner { sandbox: sandbox.to_owned(), lifecycle: String::new() }),
            key: key.to_owned(),
            mac: mac.to_string(),
            interface: port.to_owned(),
            ..AllocateRequest::default()
        };
        self.ask(request).await
    }

    /// Allocates what is asked for.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn ask(&mut self, request: AllocateRequest) -> Result<Vec<Lease>, Status> {
        Ok(self.0.allocate(request).await?.into_inner().leases)
    }

    /// Releases what is named.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn end(&mut self, request: ReleaseRequest) -> Result<Outcome, Status> {
        Ok(self.0.release(request).await?.into_inner().outcome())
    }

    /// Says that the sandbox runs.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn confirm(&mut self, generation: u64) -> Result<Outcome, Status> {
        let answer = self.0.confirm(ConfirmRequest { generation }).await?.into_inner();
        Ok(answer.outcome())
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn release(&mut self, generation: u64) -> Result<Outcome, Status> {
        let which = Some(release_request::Which::Generation(generation));
        self.end(ReleaseRequest { which, only_if_gone: false, cut: false }).await
    }

    /// Says for a subscriber that a released lease need not wait for it.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn acknowledge(
        &mut self,
        generation: u64,
        subscriber: &str,
    ) -> Result<Outcome, Status> {
        let request = AckHoldRequest { generation, subscriber: subscriber.to_owned() };
        Ok(self.0.ack_hold(request).await?.into_inner().outcome())
    }

    /// Follows events as a subscriber of this name: those after `from`, or those from now on.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn watch(
        &mut self,
        subscriber: &str,
        from: Option<u64>,
    ) -> Result<Streaming<Event>, Status> {
        let subscriber = subscriber.to_owned();
        let request = WatchRequest { after_seq: from, subscriber, ..WatchRequest::default() };
        Ok(self.0.watch(request).await?.into_inner())
    }

    /// Reads all events that are held as a subscriber of this name, until the one of this type
    /// about this generation; returns how many there were.
    ///
    /// # Errors
    /// The stream ends before.
    pub async fn watch_until(
        &mut self,
        subscriber: &str,
        generation: u64,
        kind: &str,
    ) -> Result<usize, Status> {
        let mut events = self.watch(subscriber, Some(0)).await?;
        let mut count = 0;
        while let Some(event) = events.message().await? {
            count += 1;
            let is_it = |lease: &Lease| lease.generation == generation;
            if event.r#type == kind
                && matches!(&event.subject, Some(event::Subject::Lease(lease)) if is_it(lease))
            {
                return Ok(count);
            }
        }
        Err(Status::aborted("the stream has ended"))
    }

    /// All leases, in every state.
    ///
    /// # Errors
    /// The agent refuses, or is gone.
    pub async fn leases(&mut self) -> Result<Vec<Lease>, Status> {
        let mut request = ListLeasesRequest::default();
        let mut all = Vec::new();
        loop {
            let page = self.0.list(request.clone()).await?.into_inner();
            all.extend(page.leases);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// As [`Client::release`], and the address must be given back by it.
    ///
    /// # Errors
    /// It was not.
    pub async fn give_back(&mut self, generation: u64) -> Result<()> {
        let outcome = self.release(generation).await?;
        ensure!(outcome == Outcome::Cooling, "release answered {outcome:?}");
        Ok(())
    }
}
