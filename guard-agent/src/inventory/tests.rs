//! Each way in which a source can fail, over a real connection, with a server that fails so.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{net::UnixListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::*;
use crate::{
    evidence::EvidenceView as _,
    health::{self, Health},
    lease::Pools,
    ledger::Ledger,
    live::LiveSet,
    proto::containerd::{
        containers::{
            Container, DeleteContainerRequest, GetContainerRequest, GetContainerResponse,
            ListContainerMessage, ListContainersRequest, containers_server,
        },
        events::{Envelope, SubscribeRequest, events_server},
    },
    store::{Boot, Store},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Lists one whose address is none.
    Bad,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Fake {
    way: Arc<Mutex<Way>>,
    /// Tells that the first container is on its way.
    begun: mpsc::UnboundedSender<()>,
}

fn container(address: &str) -> ListContainerMessage {
    let labels = [("x/sandbox", "s"), ("x/ip", address)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    ListContainerMessage {
        container: Some(Container { id: "c".to_owned(), labels, ..Container::default() }),
    }
}

#[tonic::async_trait]
impl containers_server::Containers for Fake {
    type ListStreamStream = Answers<ListContainerMessage>;

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        assert_eq!(request.metadata().get("containerd-namespace").unwrap(), "sandbox");
        let way = *self.way.lock();
        let begun = self.begun.clone();
        let first = |address| stream::iter([Ok(container(address))]);
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
            Way::Bad => first("10.0.0").boxed(),
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

struct NoEvents;

#[tonic::async_trait]
impl events_server::Events for NoEvents {
    type SubscribeStream = Answers<Envelope>;

    async fn subscribe(
        &self,
        _: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        // As containerd, which answers with its first event.
        std::future::pending().await
    }
}

/// A server in a runtime of its own, which takes its connections along.
fn serve(socket: &Path, way: Way) -> (Runtime, Arc<Mutex<Way>>, mpsc::UnboundedReceiver<()>) {
    let (begun, began) = mpsc::unbounded_channel();
    let way = Arc::new(Mutex::new(way));
    let runtime = Runtime::new().unwrap();
    let _ = std::fs::remove_file(socket);
    let listener = {
        let _inside = runtime.enter();
        UnixListener::bind(socket).unwrap()
    };
    let fake = Fake { way: Arc::clone(&way), begun };
    runtime.spawn(
        Server::builder()
            .add_service(containers_server::ContainersServer::new(fake))
            .add_service(events_server::EventsServer::new(NoEvents))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    (runtime, way, began)
}

struct Asked {
    sources: Sources,
    live: Arc<LiveSet>,
    health: Arc<Health>,
    _dir: tempfile::TempDir,
}

/// Sources that ask at a socket.
fn asking(socket: &Path) -> Asked {
    let dir = tempfile::tempdir().unwrap();
    let boot = Boot { id: "boot".to_owned(), now: Now::read() };
    let store = Store::open(&dir.path().join("leases.db"), &boot).unwrap();
    let (live, health) = (Arc::new(LiveSet::default()), Arc::new(Health::default()));
    let pools = Pools::new(Vec::new()).unwrap();
    let changes = live.changes().clone();
    let _ledger = Ledger::start(pools, store, live.clone(), changes, Vec::new()).unwrap();
    let told = Told { live: live.clone(), health: health.clone(), segments: Arc::new([]) };
    let containerd = containerd::Settings {
        socket: socket.to_owned(),
        namespace: "sandbox".to_owned(),
        sandbox_label: "x/sandbox".to_owned(),
        lifecycle_label: "x/lifecycle".to_owned(),
        address_label: "x/ip".to_owned(),
    };
    let settings = Settings { containerd: Some(containerd), directory: None };
    Asked { sources: Sources::start(settings, &told), live, health, _dir: dir }
}

impl Asked {
    async fn answer(&self) -> Answer {
        let [heard] = self.sources.ask().await.try_into().unwrap();
        assert_eq!(heard.answer == Answer::Complete, self.health.inventory().is_none());
        heard.answer
    }

    fn is_known(&self) -> bool {
        let segment = crate::segment::Segment::new("rt0", 0);
        !self.live.evidence(&segment, IpAddr::from([10, 0, 0, 2])).is_empty()
    }
}

#[track_caller]
fn failed(answer: Answer, says: &str) {
    match answer {
        Answer::Failed(why) | Answer::Partial(why) => assert!(why.contains(says), "{why}"),
        Answer::Complete => panic!("it counts as complete"),
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
        assert_eq!(asked.answer().await, Answer::Complete);
        assert!(asked.is_known());

        *way.lock() = Way::Error;
        failed(asked.answer().await, "not now");
        *way.lock() = Way::Bad;
        failed(asked.answer().await, "10.0.0");
        assert!(asked.is_known(), "what is not shown in part may be there still");
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
        assert_eq!(asked.answer().await, Answer::Complete);
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
        assert!(PATIENCE < Duration::from_secs(5), "tests do not wait as long as agents");
    });
}
