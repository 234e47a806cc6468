//! What a real containerd does only now and then: an id that is given anew in the middle of a
//! removal, and a call that is refused.

use std::{
    path::Path,
    pin::Pin,
    sync::{Arc, LazyLock},
};

use futures_util::{Stream, stream};
use guard_api::proto::containerd::{
    containers::{
        GetContainerResponse, ListContainerMessage, ListContainersRequest, containers_server,
    },
    tasks::{DeleteResponse, GetResponse, WaitResponse, tasks_server},
};
use parking_lot::Mutex;
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, transport::Server};

use super::*;

/// Who has the id, and what was done to whom.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The run of the container that is there.
    run: &'static str,
    /// It is another one as soon as it is signalled.
    replaced: bool,
    /// Its record cannot be deleted.
    stuck: bool,
    done: Vec<String>,
}

impl State {
    fn note(&mut self, what: &str) {
        self.done.push(format!("{what} {}", self.run));
    }
}

fn container(run: &str) -> Container {
    let labels = [("x/sandbox", "s"), ("x/lifecycle", run)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Container { id: "c".to_owned(), labels, ..Container::default() }
}

#[tonic::async_trait]
impl containers_server::Containers for Fake {
    type ListStreamStream =
        Pin<Box<dyn Stream<Item = Result<ListContainerMessage, Status>> + Send>>;

    async fn get(
        &self,
        _: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        match self.0.lock().run {
            "" => Err(Status::not_found("c")),
            run => Ok(Response::new(GetContainerResponse { container: Some(container(run)) })),
        }
    }

    async fn list_stream(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn delete(&self, _: Request<DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let mut state = self.0.lock();
        state.note("delete");
        if state.stuck {
            return Err(Status::failed_precondition("it is leased"));
        }
        state.run = "";
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl tasks_server::Tasks for Fake {
    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::not_found("c"))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<()>, Status> {
        let mut state = self.0.lock();
        state.note(&request.into_inner().signal.to_string());
        if state.replaced {
            state.run = "2";
        }
        Ok(Response::new(()))
    }

    async fn wait(&self, _: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let killed = self.0.lock().done.iter().any(|done| done.starts_with("9 "));
        if killed { Ok(Response::new(WaitResponse {})) } else { std::future::pending().await }
    }

    async fn delete(
        &self,
        _: Request<DeleteTaskRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        self.0.lock().note("delete the task of");
        Ok(Response::new(DeleteResponse {}))
    }
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings {
    socket: "/nowhere".into(),
    namespace: "sandbox".to_owned(),
    sandbox_label: "x/sandbox".to_owned(),
    lifecycle_label: "x/lifecycle".to_owned(),
    address_label: "x/ip".to_owned(),
});

/// Removes run 1 from a containerd that is like this.
fn remove_from(fake: &Fake) -> Result<(), RemovalError> {
    let dir = tempfile::tempdir().unwrap();
    Runtime::new().unwrap().block_on(async {
        let settings = Settings { socket: dir.path().join("sock"), ..SETTINGS.clone() };
        serve(&settings.socket, fake);
        let mut listing = Listing::default();
        settings.read(&container("1"), &mut listing);
        remove(&settings, &listing.entries[0], Duration::from_millis(50)).await
    })
}

fn serve(socket: &Path, fake: &Fake) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(containers_server::ContainersServer::new(fake.clone()))
            .add_service(tasks_server::TasksServer::new(fake.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
}

fn fake(state: State) -> Fake {
    Fake(Arc::new(Mutex::new(state)))
}

#[test]
fn rule_5_whoever_has_the_id_by_now_is_spared() {
    let fake = fake(State { run: "1", replaced: true, ..State::default() });
    let error = remove_from(&fake).unwrap_err();
    assert!(matches!(error, RemovalError::Another), "{error}");
    assert_eq!(fake.0.lock().done, ["3 1"], "SIGQUIT for the old one, nothing for the new one");
}

#[test]
fn rule_4_each_step_follows_the_last_and_what_is_refused_is_no_removal() {
    let stuck = fake(State { run: "1", stuck: true, ..State::default() });
    let error = remove_from(&stuck).unwrap_err().to_string();
    assert!(error.contains("delete the container") && error.contains("it is leased"), "{error}");
    let steps = ["3 1", "9 1", "delete the task of 1", "delete 1"];
    assert_eq!(stuck.0.lock().done, steps);
    // The next time it goes.
    stuck.0.lock().stuck = false;
    remove_from(&stuck).unwrap();
    // And what is gone is gone.
    stuck.0.lock().done.clear();
    remove_from(&stuck).unwrap();
    assert!(stuck.0.lock().done.is_empty());
}
