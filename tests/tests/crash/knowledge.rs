//! One client, and what it has been told.

use anyhow::{Result, bail};
use guard_api::proto::{Lease, Outcome};
use guard_tests::{Client, POOL, reason};
use tonic::Status;

/// How many leases a client keeps: with 16 clients more than half of a /24, so that an address is
/// soon given a second time.
const KEEPS: usize = 9;

/// What a client asked for and had no answer to.
#[derive(Clone, Debug)]
pub(crate) enum Doubt {
    /// An address for this sandbox.
    Allocate(String),
    /// The end of the lease of this generation.
    Release(u64),
}

/// What one client knows.
#[derive(Debug)]
pub(crate) struct Knowledge {
    id: usize,
    sandboxes: usize,
    /// Given to it and not given back.
    pub held: Vec<Lease>,
    /// The generations that it has given back.
    pub ended: Vec<u64>,
    /// At most one: it asks one thing at a time.
    pub doubt: Option<Doubt>,
}

impl Knowledge {
    /// Nothing yet.
    pub(crate) fn new(id: usize) -> Self {
        Self { id, sandboxes: 0, held: Vec::new(), ended: Vec::new(), doubt: None }
    }

    /// Allocates, confirms and releases until the agent is gone.
    ///
    /// # Errors
    /// The agent refused something, or answered what cannot be.
    pub(crate) async fn live(mut self, mut client: Client) -> Result<Self> {
        loop {
            if let Err(status) = self.step(&mut client).await? {
                // Only an agent that is there says why; what remains is a broken connection, or an
                // agent that does not know what became of it either.
                if reason(&status).is_some_and(|reason| reason != "STOPPING") {
                    bail!("client {} was refused: {status}", self.id);
                }
                return Ok(self);
            }
        }
    }

    async fn step(&mut self, client: &mut Client) -> Result<Result<(), Status>> {
        if self.held.len() >= KEEPS {
            let lease = self.held.remove(self.sandboxes % KEEPS);
            self.doubt = Some(Doubt::Release(lease.generation));
            match client.release(lease.generation).await {
                Ok(Outcome::Cooling) => self.ended.push(lease.generation),
                Ok(outcome) => bail!("release of {lease:?} answered {outcome:?}"),
                Err(status) => return Ok(Err(status)),
            }
            self.doubt = None;
            return Ok(Ok(()));
        }
        self.sandboxes += 1;
        let sandbox = format!("c{}-{}", self.id, self.sandboxes);
        self.doubt = Some(Doubt::Allocate(sandbox.clone()));
        let lease = match client.allocate(POOL, &sandbox).await {
            Ok(lease) => lease,
            Err(status) => return Ok(Err(status)),
        };
        self.doubt = None;
        let generation = lease.generation;
        self.held.push(lease);
        if self.sandboxes.is_multiple_of(2) {
            match client.confirm(generation).await {
                Ok(Outcome::Done) => {}
                Ok(outcome) => bail!("confirm of {generation} answered {outcome:?}"),
                Err(status) => return Ok(Err(status)),
            }
        }
        Ok(Ok(()))
    }
}
