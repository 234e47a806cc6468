//! An agent with canned answers, and `guardctl` that asks it.

use std::{
    io::{BufRead, BufReader},
    pin::Pin,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use futures_util::{Stream, StreamExt as _, stream};
use guard_api::proto::{
    self, guard_server::GuardServer, leases_server::LeasesServer, pools_server::PoolsServer,
};
use tokio::{net::UnixListener as Listener, runtime::Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A quarter of a container's id.
pub(crate) const ID: &str = "0123456789abcdef";

/// Answers what the request asks it to.
struct Canned;

fn lease(pool: &str) -> proto::Lease {
    proto::Lease {
        address: "10.8.64.2".to_owned(),
        pool: pool.to_owned(),
        state: proto::LeaseState::Held.into(),
        generation: 7,
        ..proto::Lease::default()
    }
}

fn event(seq: u64) -> proto::Event {
    let subject = Some(proto::event::Subject::Lease(lease("p")));
    proto::Event { seq, r#type: "lease.held".to_owned(), subject, time: None }
}

fn conflict() -> proto::Conflict {
    proto::Conflict {
        address: "10.8.64.2".to_owned(),
        kind: proto::ConflictKind::Duplicate.into(),
        claimants: vec![proto::Claimant::default()],
        ..proto::Conflict::default()
    }
}

#[tonic::async_trait]
impl proto::leases_server::Leases for Canned {
    type WatchStream = Events<proto::Event>;

    async fn allocate(
        &self,
        request: Request<proto::AllocateRequest>,
    ) -> Answer<proto::AllocateResponse> {
        let request = request.into_inner();
        if request.owner.unwrap_or_default().sandbox == "one-too-many" {
            let details = ErrorDetails::with_error_info("POOL_EXHAUSTED", "guard.v1", []);
            let message = "pool \"p\" has no free address; the next one cools down at 12:00";
            return Err(Status::with_error_details(Code::ResourceExhausted, message, details));
        }
        let leases = request.pools.iter().map(|pool| lease(pool)).collect();
        Ok(Response::new(proto::AllocateResponse { leases }))
    }

    async fn confirm(
        &self,
        request: Request<proto::ConfirmRequest>,
    ) -> Answer<proto::ConfirmResponse> {
        let (outcome, lease) = match request.into_inner().generation {
            7 => (proto::Outcome::Done, Some(lease("p"))),
            _ => (proto::Outcome::Stale, None),
        };
        Ok(Response::new(proto::ConfirmResponse { outcome: outcome.into(), lease }))
    }

    async fn bind(&self, request: Request<proto::BindRequest>) -> Answer<proto::BindResponse> {
        let proto::BindRequest { mac, interface, .. } = request.into_inner();
        let lease = Some(proto::Lease { mac, interface, ..lease("p") });
        Ok(Response::new(proto::BindResponse { outcome: proto::Outcome::Done.into(), lease }))
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Answer<proto::ReleaseResponse> {
        let (outcome, leases) = match request.into_inner().which {
            Some(proto::release_request::Which::Generation(7)) => {
                (proto::Outcome::Releasing, vec![lease("p")])
            }
            _ => (proto::Outcome::NotFound, vec![]),
        };
        Ok(Response::new(proto::ReleaseResponse {
            outcome: outcome.into(),
            total_size: i32::try_from(leases.len()).unwrap(),
            leases,
        }))
    }

    async fn get(&self, _: Request<proto::GetLeaseRequest>) -> Answer<proto::Lease> {
        Err(Status::unimplemented("guardctl does not ask"))
    }

    async fn list(
        &self,
        request: Request<proto::ListLeasesRequest>,
    ) -> Answer<proto::ListLeasesResponse> {
        let request = request.into_inner();
        if request.pool == "secret" {
            return Err(Status::permission_denied("not yours"));
        }
        let sandbox = match request.sandbox.as_str() {
            "" => ID.repeat(4),
            asked => asked.to_owned(),
        };
        let mut leases = vec![proto::Lease { state: request.state, sandbox, ..lease("p") }];
        // Of this pool there are three pages; the second has no row, which is allowed.
        let next_page_token = match (&*request.pool, &*request.page_token) {
            ("paged", "") => "two",
            ("paged", "two") => {
                leases.clear();
                "three"
            }
            ("endless", _) => "on",
            _ => "",
        };
        let next_page_token = next_page_token.to_owned();
        Ok(Response::new(proto::ListLeasesResponse { leases, next_page_token, seq: 0 }))
    }

    async fn ack_hold(&self, _: Request<proto::AckHoldRequest>) -> Answer<proto::AckHoldResponse> {
        Err(Status::unimplemented("guardctl does not ask"))
    }

    /// From 0: two events and the end. From 1: events without end. Else: one event and silence.
    async fn watch(&self, request: Request<proto::WatchRequest>) -> Answer<Self::WatchStream> {
        let events: Self::WatchStream = match request.into_inner().after_seq {
            Some(0) => stream::iter([event(1), event(2)].map(Ok)).boxed(),
            Some(1) => stream::iter(1..).map(|seq| Ok(event(seq))).boxed(),
            _ => stream::iter([Ok(event(1))]).chain(stream::pending()).boxed(),
        };
        Ok(Response::new(events))
    }
}

#[tonic::async_trait]
impl proto::pools_server::Pools for Canned {
    async fn list(&self, _: Request<proto::ListPoolsRequest>) -> Answer<proto::ListPoolsResponse> {
        Ok(Response::new(proto::ListPoolsResponse {
            pools: vec![proto::Pool::default()],
            ..Default::default()
        }))
    }

    async fn get(&self, _: Request<proto::GetPoolRequest>) -> Answer<proto::Pool> {
        Err(Status::unimplemented("guardctl does not ask"))
    }
}

#[tonic::async_trait]
impl proto::guard_server::Guard for Canned {
    type WatchConflictsStream = Events<proto::Conflict>;

    async fn live(&self, _: Request<proto::LiveRequest>) -> Answer<proto::LiveResponse> {
        Ok(Response::new(proto::LiveResponse {
            live: vec![proto::LiveAddress::default()],
            ..Default::default()
        }))
    }

    async fn ports(&self, _: Request<proto::PortsRequest>) -> Answer<proto::PortsResponse> {
        Ok(Response::new(proto::PortsResponse {
            ports: vec![proto::Port::default()],
            seq: 2,
            ..Default::default()
        }))
    }

    async fn conflicts(
        &self,
        _: Request<proto::ConflictsRequest>,
    ) -> Answer<proto::ConflictsResponse> {
        Ok(Response::new(proto::ConflictsResponse {
            conflicts: vec![conflict()],
            ..Default::default()
        }))
    }

    type TraceStream = Events<proto::TracedFrame>;

    async fn trace(&self, _: Request<proto::TraceRequest>) -> Answer<Self::TraceStream> {
        Err(Status::unimplemented("guardctl does not ask"))
    }

    async fn silence(&self, request: Request<proto::SilenceRequest>) -> Answer<proto::Conflict> {
        let proto::SilenceRequest { id, duration } = request.into_inner();
        assert_eq!(duration, Some(prost_types::Duration { seconds: 7200, nanos: 0 }));
        Ok(Response::new(proto::Conflict { id, ..conflict() }))
    }

    async fn watch_conflicts(
        &self,
        _: Request<proto::WatchConflictsRequest>,
    ) -> Answer<Self::WatchConflictsStream> {
        Ok(Response::new(stream::iter([Ok(conflict())]).chain(stream::pending()).boxed()))
    }

    async fn why(&self, _request: Request<proto::WhyRequest>) -> Answer<proto::WhyResponse> {
        Err(Status::unimplemented("why"))
    }

    async fn drops(&self, _: Request<proto::DropsRequest>) -> Answer<proto::DropsResponse> {
        Err(Status::unimplemented("guardctl does not ask"))
    }

    async fn enforcement(
        &self,
        _: Request<proto::EnforcementRequest>,
    ) -> Answer<proto::EnforcementResponse> {
        Err(Status::unimplemented("guardctl does not ask"))
    }

    async fn status(&self, _: Request<proto::StatusRequest>) -> Answer<proto::StatusResponse> {
        Ok(Response::new(proto::StatusResponse { ready: true, ..Default::default() }))
    }
}

/// A listening agent; it goes away when dropped.
pub(crate) struct Agent {
    pub dir: tempfile::TempDir,
    runtime: Option<Runtime>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Some(Self::serve(&dir));
        Self { dir, runtime }
    }

    fn serve(dir: &tempfile::TempDir) -> Runtime {
        let runtime = Runtime::new().unwrap();
        let listener =
            runtime.block_on(async { Listener::bind(dir.path().join("guard.sock")).unwrap() });
        let server = Server::builder()
            .add_service(LeasesServer::new(Canned))
            .add_service(PoolsServer::new(Canned))
            .add_service(GuardServer::new(Canned))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        runtime
    }

    /// Dies, and is there again once a client has said that it misses it.
    pub(crate) fn restart(&mut self, missed: &mut impl BufRead) {
        self.runtime.take().unwrap().shutdown_background();
        std::fs::remove_file(self.dir.path().join("guard.sock")).unwrap();
        let mut said = String::new();
        missed.read_line(&mut said).unwrap();
        assert!(said.ends_with("; waiting for the agent\n"), "{said}");
        self.runtime = Some(Self::serve(&self.dir));
    }

    pub(crate) fn ctl(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guardctl"));
        command.env("GUARD_SOCKET", self.dir.path().join("guard.sock"));
        command.env_remove("COLUMNS").args(line.split_whitespace());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.ctl(line).output().unwrap()
    }

    /// Starts a stream and reads its first line.
    pub(crate) fn follow(&self, line: &str) -> (Child, BufReader<ChildStdout>) {
        let mut command = self.ctl(line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        assert!(first.contains("10.8.64.2"), "{first}");
        (child, stdout)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[track_caller]
pub(crate) fn ended(output: &Output, code: i32, stderr: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.trim_end()), (Some(code), stderr));
}
