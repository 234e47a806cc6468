//! Each way in which a source can fail, over a real connection, with a server that fails so.

mod lasting;
mod unreadable;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use guard_api::proto::containerd::{
    containers::{
        Container, DeleteContainerRequest, GetContainerRequest, GetContainerResponse,
        ListContainerMessage, ListContainersRequest, containers_server,
    },
    events::{Envelope, SubscribeRequest, events_server},
};
use guard_core::{
    evidence::{EvidenceView as _, PollOutcome},
    incident::{Flaps, Incidents},
    lease::Pools,
};
use parking_lot::Mutex;
use tokio::{
    net::UnixListener,
    runtime::Runtime,
    sync::{broadcast, mpsc},
};
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::{Request, Response, Status, transport::Server};

use super::*;
use crate::{
    events::{EventBus, IncidentLog, IncidentReporter},
    health::{self, Health},
    ledger::Ledger,
    live::SharedEvidence,
    metrics::Metrics,
    store::{Boot, Store},
    supervisor::Supervisor,
};

#[derive(Clone, Debug, PartialEq)]
enum Way {
    /// Lists the container that it has.
    Good,
    /// Has none.
    Empty,
    /// Answers with an error.
    Error,
    /// Lists a container, and goes away.
    CutOff,
    /// Lists a container, and then nothing.
    Slow,
    /// Lists these.
    These(Vec<Container>),
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Fake {
    way: Arc<Mutex<Way>>,
    /// Tells that the first container is on its way.
    begun: mpsc::UnboundedSender<()>,
    /// How often it was asked for a list.
    lists: Arc<AtomicUsize>,
}

fn container(id: &str, sandbox: &str, address: &str) -> Container {
    let labels = [("x/sandbox", sandbox), ("x/ip", address)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Container { id: id.to_owned(), labels, ..Container::default() }
}

#[tonic::async_trait]
impl containers_server::Containers for Fake {
    type ListStreamStream = Answers<ListContainerMessage>;

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        assert_eq!(request.metadata().get("containerd-namespace").unwrap(), "sandbox");
        let way = self.way.lock().clone();
        self.lists.fetch_add(1, Ordering::Relaxed);
        let begun = self.begun.clone();
        let first = |address| {
            let container = Some(container("c", "s", address));
            stream::iter([Ok(ListContainerMessage { container })])
        };
        let then_nothing = stream::once(async move {
            // The test may be over.
            let _ = begun.send(());
            std::future::pending().await
        });
        let answer = match way {
            Way::Good => first("10.0.0.2").boxed(),
            Way::Empty => stream::empty().boxed(),
            Way::Error => return Err(Status::unavailable("not now")),
            Way::CutOff | Way::Slow => first("10.0.0.2").chain(then_nothing).boxed(),
            Way::These(all) => stream::iter(all)
                .map(|container| Ok(ListContainerMessage { container: Some(container) }))
                .boxed(),
        };
        Ok(Response::new(answer))
    }

    async fn get(
        &self,
        _: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        Err(Status::unimplemented("it only lists"))
    }

    async fn delete(&self, _: Request<DeleteContainerRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("it only lists"))
    }
}

/// What becomes of those who follow the events.
#[derive(Clone)]
enum Follow {
    /// As containerd, they hear nothing before the first event.
    Silent,
    /// They hear these, and before them that the stream has begun.
    These(broadcast::Sender<()>),
    /// Their stream ends at once.
    Ends,
}

struct FakeEvents(Arc<Mutex<Follow>>);

#[tonic::async_trait]
impl events_server::Events for FakeEvents {
    type SubscribeStream = Answers<Envelope>;

    async fn subscribe(
        &self,
        _: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let follow = self.0.lock().clone();
        let events = match follow {
            Follow::Silent => std::future::pending().await,
            Follow::Ends => stream::empty().boxed(),
            Follow::These(events) => BroadcastStream::new(events.subscribe())
                .map(|event| {
                    event.map(|()| Envelope::default()).map_err(|_| Status::aborted("late"))
                })
                .boxed(),
        };
        Ok(Response::new(events))
    }
}

/// A server in a runtime of its own, which takes its connections along.
fn serve(socket: &Path, way: Way) -> (Runtime, Arc<Mutex<Way>>, mpsc::UnboundedReceiver<()>) {
    let Served { runtime, way, began, .. } = serve_with(socket, way, Follow::Silent);
    (runtime, way, began)
}

/// A fake that runs, and what can be done to it.
struct Served {
    runtime: Runtime,
    way: Arc<Mutex<Way>>,
    follow: Arc<Mutex<Follow>>,
    lists: Arc<AtomicUsize>,
    began: mpsc::UnboundedReceiver<()>,
}

fn serve_with(socket: &Path, way: Way, follow: Follow) -> Served {
    let (begun, began) = mpsc::unbounded_channel();
    let (way, follow) = (Arc::new(Mutex::new(way)), Arc::new(Mutex::new(follow)));
    let lists = Arc::new(AtomicUsize::new(0));
    let runtime = Runtime::new().unwrap();
    let _ = std::fs::remove_file(socket);
    let listener = {
        let _inside = runtime.enter();
        UnixListener::bind(socket).unwrap()
    };
    let fake = Fake { way: Arc::clone(&way), begun, lists: Arc::clone(&lists) };
    runtime.spawn(
        Server::builder()
            .add_service(containers_server::ContainersServer::new(fake))
            .add_service(events_server::EventsServer::new(FakeEvents(Arc::clone(&follow))))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    Served { runtime, way, follow, lists, began }
}

struct Asked {
    sources: Sources,
    live: Arc<SharedEvidence>,
    health: Arc<Health>,
    reporter: Arc<IncidentReporter>,
    _dir: tempfile::TempDir,
}

/// Sources that ask at a socket.
fn asking(socket: &Path) -> Asked {
    let dir = tempfile::tempdir().unwrap();
    let boot = Boot { id: "boot".to_owned(), now: clock::now() };
    let store = Store::open(&dir.path().join("leases.db"), &boot).unwrap();
    let (live, health) = (Arc::new(SharedEvidence::default()), Arc::new(Health::default()));
    let pools = Pools::new(Vec::new()).unwrap();
    let changes = live.changes().clone();
    let _ledger = Ledger::start(pools, store, live.clone(), changes, Vec::new()).unwrap();
    let reporter = reporter(dir.path());
    let publisher = Publisher {
        live: live.clone(),
        health: health.clone(),
        segments: Arc::new([]),
        reporter: reporter.clone(),
    };
    let containerd = crate::config::containerd::Settings {
        socket: socket.to_owned(),
        namespace: "sandbox".to_owned(),
        sandbox_label: "x/sandbox".to_owned(),
        lifecycle_label: "x/lifecycle".to_owned(),
        address_label: "x/ip".to_owned(),
    };
    let settings = Settings { containerd: Some(containerd), directory: None };
    let sources = Sources::start(settings, &publisher, &Supervisor::new().0);
    Asked { sources, live, health, reporter, _dir: dir }
}

fn reporter(dir: &Path) -> Arc<IncidentReporter> {
    let minute = Duration::from_secs(60);
    let incidents = Incidents::new(minute, Flaps::new(minute, NonZeroU32::MIN), 1);
    let (bus, metrics) = (Arc::new(EventBus::new(1, [])), Arc::new(Metrics::new().unwrap()));
    let (log, _) =
        IncidentLog::open(&dir.join("incidents.db"), "boot", &Supervisor::new().0).unwrap();
    Arc::new(IncidentReporter::new(incidents, bus, metrics, log, Vec::new()))
}

impl Asked {
    async fn answer(&self) -> PollOutcome {
        let [heard] = self.sources.ask().await.try_into().unwrap();
        let failed = heard.outcome != PollOutcome::Complete;
        assert!(!failed || self.health.why(&health::source("containerd")).is_some());
        heard.outcome
    }

    fn is_known(&self) -> bool {
        self.is_live(2)
    }

    fn is_live(&self, last: u8) -> bool {
        let segment = guard_core::segment::Segment::new("rt0", 0);
        !self.live.evidence(&segment, IpAddr::from([10, 0, 0, last])).is_empty()
    }

    fn status(&self) -> SourceStatus {
        self.sources.status().pop().unwrap()
    }

    /// Waits until it is so.
    async fn until(&self, what: &str, is_so: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        for _ in 0..1000 {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.status());
    }
}

#[track_caller]
fn failed(answer: PollOutcome, says: &str) {
    match answer {
        PollOutcome::Failed(why) | PollOutcome::Partial(why) => {
            assert!(why.contains(says), "{why}");
        }
        PollOutcome::Complete => panic!("it counts as complete"),
    }
}

#[test]
fn rule_6_no_failure_of_containerd_is_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let asked = asking(&socket);
        failed(asked.answer().await, "No such file");
        let (server, way, mut began) = serve(&socket, Way::Good);
        assert_eq!(asked.answer().await, PollOutcome::Complete);
        assert!(asked.is_known());

        *way.lock() = Way::Error;
        failed(asked.answer().await, "not now");
        *way.lock() = Way::Slow;
        failed(asked.answer().await, "no answer within");

        *way.lock() = Way::CutOff;
        while began.try_recv().is_ok() {}
        let ((), answer) = tokio::join!(
            async {
                began.recv().await.unwrap();
                server.shutdown_background();
            },
            asked.answer()
        );
        failed(answer, "");
        failed(asked.answer().await, "");
        assert!(asked.is_known(), "a failure takes nothing away");

        // It is back, and really has nothing.
        let (server, _, _began) = serve(&socket, Way::Empty);
        assert_eq!(asked.answer().await, PollOutcome::Complete);
        assert!(!asked.is_known());
        assert_eq!(asked.health.why(&health::source("containerd")), None);
        server.shutdown_background();
    });
}

#[test]
fn what_is_no_grpc_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        // It listens, and never accepts.
        let _listener = UnixListener::bind(&socket).unwrap();
        let asked = asking(&socket);
        failed(asked.answer().await, "no answer within");
        assert!(asked.sources.status()[0].why().is_some());
        assert!(ANSWER_TIMEOUT < Duration::from_secs(5), "tests do not wait as long as agents");
    });
}
