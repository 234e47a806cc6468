//! A containerd that lists what the test says, and fails as the test says.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use guard_api::proto::containerd::containers::{
    Container, DeleteContainerRequest, GetContainerRequest, GetContainerResponse,
    ListContainerMessage, ListContainersRequest, containers_server,
};
use guard_api::proto::containerd::events::{Envelope, SubscribeRequest, events_server};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::{config::Config, lab::Lab, serve::serve};

/// What a fake containerd has, and how it is.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Its containers.
    pub containers: Vec<Container>,
    /// It answers no list, for this reason.
    pub list_fails: bool,
    /// Whoever follows its events is told at once that there are no more.
    pub events_end: bool,
    /// How often it was asked for a list.
    pub lists: usize,
}

/// A fake containerd on a socket of the lab's. It tells of no event.
#[derive(Debug)]
pub struct FakeContainerd {
    socket: PathBuf,
    listed: Arc<Mutex<Listed>>,
    _runtime: Runtime,
}

#[derive(Clone)]
struct Service(Arc<Mutex<Listed>>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl containers_server::Containers for Service {
    type ListStreamStream = Answers<ListContainerMessage>;

    async fn list_stream(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let mut listed = self.0.lock();
        listed.lists += 1;
        if listed.list_fails {
            return Err(Status::unavailable("the metadata is locked"));
        }
        let message = |container| Ok(ListContainerMessage { container: Some(container) });
        let all: Vec<_> = listed.containers.iter().cloned().map(message).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(all))))
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

#[tonic::async_trait]
impl events_server::Events for Service {
    type SubscribeStream = Answers<Envelope>;

    async fn subscribe(
        &self,
        _: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let ends = self.0.lock().events_end;
        let events: Self::SubscribeStream =
            if ends { Box::pin(tokio_stream::empty()) } else { Box::pin(tokio_stream::pending()) };
        Ok(Response::new(events))
    }
}

impl Lab {
    /// Serves a containerd without containers.
    ///
    /// # Errors
    /// Its socket cannot be made.
    pub fn fake_containerd(&self) -> Result<FakeContainerd> {
        let socket = self.dir().join("fake-containerd.sock");
        let listed = Arc::new(Mutex::new(Listed::default()));
        let service = Service(Arc::clone(&listed));
        let services = Server::builder()
            .add_service(containers_server::ContainersServer::new(service.clone()))
            .add_service(events_server::EventsServer::new(service));
        let runtime = serve(&socket, services)?;
        Ok(FakeContainerd { socket, listed, _runtime: runtime })
    }
}

impl Config {
    /// Asks this containerd.
    ///
    /// # Errors
    /// Never, but for a fault of the lab.
    pub fn with_fake_containerd(self, containerd: &FakeContainerd) -> Result<Self> {
        let socket = &containerd.socket;
        self.with(&format!("[inventory.containerd]\nsocket = {socket:?}"))
    }
}

impl FakeContainerd {
    /// Changes what it has, or how it is.
    pub fn say(&self, change: impl FnOnce(&mut Listed)) {
        change(&mut self.listed.lock());
    }

    /// How often it was asked for a list.
    #[must_use]
    pub fn lists(&self) -> usize {
        self.listed.lock().lists
    }
}

/// A container with these labels, besides the one that names its sandbox.
#[must_use]
pub fn listed_container(id: &str, sandbox: &str, labels: &[(&str, &str)]) -> Container {
    let all = [("runtime.computer/sandbox", sandbox)].into_iter().chain(labels.iter().copied());
    let labels = all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Container { id: id.to_owned(), labels, ..Container::default() }
}
