//! The other limit: the same call through the same transport, with nothing behind it but one row for
//! each, written in groups. What a gRPC server costs on this machine, whatever is behind it.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result};
use guard_api::proto::{
    AckHoldRequest, AckHoldResponse, AllocateRequest, AllocateResponse, BindRequest, BindResponse,
    ConfirmRequest, ConfirmResponse, Event, GetLeaseRequest, Lease, ListLeasesRequest,
    ListLeasesResponse, ReleaseRequest, ReleaseResponse, WatchRequest,
    leases_server::{Leases, LeasesServer},
};
use tokio::net::UnixListener;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::raw::Raw;

/// Rows that wait at most.
const MOST: usize = 1024;

type Waiting = oneshot::Sender<u64>;

/// Serves on `socket` until the process ends; the rows go into `raw`.
///
/// # Errors
/// The socket cannot be had.
pub(crate) fn start(socket: &Path, raw: Raw) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        UnixListener::bind(socket).with_context(|| socket.display().to_string())?
    };
    let (rows, inbox) = mpsc::channel();
    thread::spawn(move || write(raw, &inbox));
    let server = Server::builder().add_service(LeasesServer::new(Bare(rows)));
    thread::spawn(move || {
        runtime.block_on(server.serve_with_incoming(UnixListenerStream::new(listener)))
    });
    Ok(())
}

/// Everything that waits is one transaction. Ends when nobody asks any more, or a row is refused:
/// then the callers learn that there is nobody.
fn write(mut raw: Raw, inbox: &Receiver<Waiting>) {
    while let Ok(first) = inbox.recv() {
        let waiting: Vec<_> = [first].into_iter().chain(inbox.try_iter().take(MOST)).collect();
        let Ok(numbers) = raw.commit_together(waiting.len()) else { return };
        for (answer, number) in waiting.into_iter().zip(numbers) {
            // Whoever has gone away does not wait for it.
            let _ = answer.send(number);
        }
    }
}

struct Bare(Sender<Waiting>);

fn unimplemented<T>() -> Result<T, Status> {
    Err(Status::unimplemented("only allocations are compared"))
}

#[tonic::async_trait]
impl Leases for Bare {
    type WatchStream = tokio_stream::Empty<Result<Event, Status>>;

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let AllocateRequest { pools, owner, .. } = request.into_inner();
        let (answer, answered) = oneshot::channel();
        let ended = || Status::internal("the writer has ended");
        self.0.send(answer).map_err(|_| ended())?;
        let generation = answered.await.map_err(|_| ended())?;
        let lease = Lease {
            pool: pools.into_iter().next().unwrap_or_default(),
            sandbox: owner.unwrap_or_default().sandbox,
            generation,
            ..Lease::default()
        };
        Ok(Response::new(AllocateResponse { leases: vec![lease] }))
    }

    async fn confirm(
        &self,
        _: Request<ConfirmRequest>,
    ) -> Result<Response<ConfirmResponse>, Status> {
        unimplemented()
    }

    async fn bind(&self, _: Request<BindRequest>) -> Result<Response<BindResponse>, Status> {
        unimplemented()
    }

    async fn release(
        &self,
        _: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        unimplemented()
    }

    async fn get(&self, _: Request<GetLeaseRequest>) -> Result<Response<Lease>, Status> {
        unimplemented()
    }

    async fn list(
        &self,
        _: Request<ListLeasesRequest>,
    ) -> Result<Response<ListLeasesResponse>, Status> {
        unimplemented()
    }

    async fn ack_hold(
        &self,
        _: Request<AckHoldRequest>,
    ) -> Result<Response<AckHoldResponse>, Status> {
        unimplemented()
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unimplemented()
    }
}
