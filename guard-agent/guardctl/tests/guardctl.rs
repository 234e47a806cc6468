//! `guardctl` against an agent with canned answers: exit codes, what stands on stdout and stderr,
//! and the ends of streams. The agent proper meets it in the scenarios.
#![expect(clippy::unwrap_used, reason = "test helpers: a failure there is a failed test")]

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixListener,
    pin::Pin,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use futures_util::{Stream, StreamExt as _, stream};
use guard_api::proto::{
    self, guard_server::GuardServer, leases_server::LeasesServer, pools_server::PoolsServer,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{net::UnixListener as Listener, runtime::Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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
        let mut leases = vec![proto::Lease { state: request.state, ..lease("p") }];
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
        let events: Self::WatchStream = match request.into_inner().from {
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
struct Agent {
    dir: tempfile::TempDir,
    runtime: Option<Runtime>,
}

impl Agent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let listener =
            runtime.block_on(async { Listener::bind(dir.path().join("guard.sock")).unwrap() });
        let server = Server::builder()
            .add_service(LeasesServer::new(Canned))
            .add_service(PoolsServer::new(Canned))
            .add_service(GuardServer::new(Canned))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        Self { dir, runtime: Some(runtime) }
    }

    fn ctl(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guardctl"));
        command.env("GUARD_SOCKET", self.dir.path().join("guard.sock"));
        command.env_remove("COLUMNS").args(line.split_whitespace());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.ctl(line).output().unwrap()
    }

    /// Starts a stream and reads its first line.
    fn follow(&self, line: &str) -> (Child, BufReader<ChildStdout>) {
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
fn ended(output: &Output, code: i32, stderr: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.trim_end()), (Some(code), stderr));
}

const UNARY: [&str; 12] = [
    "allocate --pool p --sandbox s",
    "confirm --generation 7",
    "bind --generation 7 --mac 02:00:00:00:00:0A",
    "release --generation 7",
    "release --sandbox nobody",
    "leases",
    "pools",
    "live",
    "ports",
    "conflicts --all",
    "silence 7 --for 2h",
    "status",
];

#[test]
fn json_is_one_document_and_nothing_else() {
    let agent = Agent::start();
    for line in UNARY {
        let output = agent.run(&format!("{line} -o json"));
        ended(&output, 0, "");
        let text = String::from_utf8(output.stdout).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(document.is_object() && text.lines().count() == 1, "{line}: {text}");
    }
}

#[test]
fn tables_fit_eighty_columns_without_colour_on_a_pipe() {
    let agent = Agent::start();
    for line in UNARY {
        let output = agent.ctl(line).env("COLUMNS", "80").output().unwrap();
        ended(&output, 0, "");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.is_empty() && !text.contains('\x1b'), "{line}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{line}: {text}");
    }
}

#[test]
fn without_a_terminal_nothing_is_folded() {
    let agent = Agent::start();
    for line in UNARY {
        let lines = |columns: Option<&str>| {
            let mut command = agent.ctl(line);
            columns.map(|columns| command.env("COLUMNS", columns));
            let output = command.output().unwrap();
            ended(&output, 0, "");
            String::from_utf8(output.stdout).unwrap().lines().count()
        };
        let (unfolded, narrow) = (lines(None), lines(Some("24")));
        assert!(unfolded <= narrow, "{line}");
        assert!(line != "leases" || unfolded < narrow, "24 columns have no room for a lease");
        assert_eq!(unfolded, lines(Some("1000")), "{line}");
    }
}

#[test]
fn arguments_reach_the_agent_and_answers_the_reader() {
    let agent = Agent::start();
    let json = |line: &str| -> Value {
        serde_json::from_slice(&agent.run(&format!("-o json {line}")).stdout).unwrap()
    };
    assert_eq!(json("allocate --pool p --sandbox s")["generation"], 7);
    let several = json("allocate --pool p --pool q --sandbox s");
    assert_eq!(several["leases"][0]["pool"], "p");
    assert_eq!(several["leases"][1]["pool"], "q");
    let bound = json("bind --generation 7 --mac 02:00:00:00:00:0A");
    assert_eq!(bound["lease"]["mac"], "02:00:00:00:00:0a");
    assert_eq!(json("leases --state cooling")["leases"][0]["state"], "cooling");
    assert_eq!(json("release --generation 7")["outcome"], "releasing");
    assert_eq!(json("silence 7 --for 2h")["id"], "7");
}

#[test]
fn rule_14_all_pages_are_one_document() {
    let agent = Agent::start();
    let output = agent.run("leases --pool paged -o json");
    ended(&output, 0, "");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["leases"].as_array().unwrap().len(), 2);
    let endless = agent.run("leases --pool endless");
    ended(&endless, 3, "lost the agent: it sends the same page again and again");
}

#[test]
fn stale_and_not_found_are_done() {
    let agent = Agent::start();
    let stale = agent.run("confirm --generation 6 --output json");
    ended(&stale, 0, "");
    assert_eq!(stale.stdout, b"{\"outcome\":\"stale\",\"lease\":null}\n");
    let missing = agent.run("release --sandbox nobody -o json");
    ended(&missing, 0, "");
    assert_eq!(missing.stdout, b"{\"outcome\":\"not_found\",\"leases\":[]}\n");
}

#[test]
fn a_refusal_is_one_line_and_exit_1() {
    let agent = Agent::start();
    let refused = agent.run("allocate --pool p --sandbox one-too-many -o json");
    let line = "RESOURCE_EXHAUSTED/POOL_EXHAUSTED: pool \"p\" has no free address; the next one \
                cools down at 12:00";
    ended(&refused, 1, line);
    assert!(refused.stdout.is_empty());
    ended(&agent.run("leases --pool secret"), 1, "PERMISSION_DENIED: not yours");
}

#[test]
fn bad_arguments_are_exit_2() {
    let agent = Agent::start();
    let output = agent.run("allocate --pool p --sandbox s --mac 02:zz");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\"02:zz\" is not a MAC address"), "{said}");
}

#[test]
fn without_an_agent_it_is_exit_3() {
    let agent = Agent::start();
    let output = agent.run("status --socket /nonexistent/guard.sock");
    let line = "cannot reach the agent at /nonexistent/guard.sock: No such file or directory (os \
                error 2); is guard-agent running?";
    ended(&output, 3, line);
}

#[test]
fn a_hung_agent_is_exit_3() {
    let agent = Agent::start();
    let socket = agent.dir.path().join("hung.sock");
    let _never_accepts = UnixListener::bind(&socket).unwrap();
    let output = agent.run(&format!("status --socket {}", socket.display()));
    ended(&output, 3, "no answer from the agent within 10s; is it hung?");
}

#[test]
fn a_stream_is_a_line_for_each_event_and_its_end_is_exit_3() {
    let agent = Agent::start();
    let output = agent.run("events --follow --from 0 -o json");
    ended(&output, 3, "lost the agent: it ended the stream");
    let text = String::from_utf8(output.stdout).unwrap();
    let seqs = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone());
    assert_eq!(seqs.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn an_interrupt_ends_a_stream_well() {
    let agent = Agent::start();
    let (child, _stdout) = agent.follow("conflicts --follow");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    ended(&child.wait_with_output().unwrap(), 0, "");
}

#[test]
fn a_reader_that_has_read_enough_ends_a_stream_well() {
    let agent = Agent::start();
    let (child, stdout) = agent.follow("events --follow --from 1");
    drop(stdout);
    ended(&child.wait_with_output().unwrap(), 0, "");
}

#[test]
fn an_agent_that_dies_ends_a_stream_with_exit_3() {
    let agent = Agent::start();
    let (child, _stdout) = agent.follow("events --follow");
    drop(agent);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("lost the agent: "), "{said}");
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let agent = Agent::start();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = agent.run(&format!("completions {shell}"));
        ended(&output, 0, "");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("force-release") && text.contains("dry-run"), "{shell}: {text:.200}");
        if shell == "bash" {
            let check = Command::new("bash").args(["-n", "-c", &text]).output().unwrap();
            ended(&check, 0, "");
        }
    }
}

#[test]
fn there_is_a_man_page_for_each_command() {
    let agent = Agent::start();
    let dir = agent.dir.path().join("man/man1");
    ended(&agent.run(&format!("man {}", dir.display())), 0, "");
    for name in ["guardctl", "guardctl-top", "guardctl-quarantine-add", "guardctl-subnets-reserve"]
    {
        let page = std::fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        for part in [".TH", "NAME", "SYNOPSIS", "Example"] {
            assert!(page.contains(part), "{part} is not in {name}: {page}");
        }
    }
    let output = agent.run(&format!("man {}/guardctl.1", dir.display()));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("cannot write into "), "{said}");
}
