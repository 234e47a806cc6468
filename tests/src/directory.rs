//! A controller's directory, served by the test: what it says, and how it fails, is the test's
//! choice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use guard_api::proto::directory::{
    GetRequest, GetResponse, ListRequest, ListResponse, Sandbox, State, directory_server,
};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::{lab::Lab, serve::serve};

/// What a directory knows, and how it is.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The sandboxes that are in its index: `NAME`, or `NAME/LIFECYCLE`.
    pub listed: BTreeMap<String, State>,
    /// Those that it finds when it is asked by name, which are written in the same way.
    pub found: BTreeMap<String, State>,
    /// Since when those are in their state, as far as it says so.
    pub since: BTreeMap<String, SystemTime>,
    /// It answers no list, for this reason.
    pub list_fails: bool,
    /// It answers no question by name.
    pub get_fails: bool,
    /// It leaves questions by name open, until it does not any more.
    pub get_hangs: bool,
    /// Whom it was asked for by name.
    pub asked: Vec<String>,
}

/// A directory on a socket of the lab's.
#[derive(Debug)]
pub struct Directory {
    socket: PathBuf,
    said: Arc<Mutex<Said>>,
    _runtime: Runtime,
}

struct Service(Arc<Mutex<Said>>);

impl Said {
    fn sandbox(&self, (name, state): (&String, &State)) -> Sandbox {
        let (sandbox, lifecycle) = name.split_once('/').unwrap_or((name, ""));
        let (sandbox, lifecycle) = (sandbox.to_owned(), lifecycle.to_owned());
        let since = self.since.get(name).map(|since| (*since).into());
        Sandbox { sandbox, lifecycle, state: (*state).into(), since }
    }
}

#[tonic::async_trait]
impl directory_server::Directory for Service {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let said = self.0.lock();
        if said.list_fails {
            return Err(Status::unavailable("the index is being built"));
        }
        let sandboxes = said.listed.iter().map(|entry| said.sandbox(entry)).collect();
        Ok(Response::new(ListResponse { sandboxes }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { sandbox: mut name, lifecycle } = request.into_inner();
        if !lifecycle.is_empty() {
            name = format!("{name}/{lifecycle}");
        }
        self.0.lock().asked.push(name.clone());
        while self.0.lock().get_hangs {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let said = self.0.lock().clone();
        if said.get_fails {
            return Err(Status::internal("the store does not answer"));
        }
        let sandbox = said.found.get_key_value(&name).map(|entry| said.sandbox(entry));
        Ok(Response::new(GetResponse { sandbox }))
    }
}

impl Lab {
    /// Serves a directory that knows no sandbox.
    ///
    /// # Errors
    /// Its socket cannot be made.
    pub fn directory(&self) -> Result<Directory> {
        let socket = self.dir().join("directory.sock");
        let said = Arc::new(Mutex::new(Said::default()));
        let service = directory_server::DirectoryServer::new(Service(Arc::clone(&said)));
        let runtime = serve(&socket, Server::builder().add_service(service))?;
        Ok(Directory { socket, said, _runtime: runtime })
    }
}

impl Directory {
    /// What the agent's configuration says of it.
    #[must_use]
    pub fn section(&self) -> String {
        format!("[directory]\nsocket = {:?}", self.socket)
    }

    /// Changes what it knows, or how it is.
    pub fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock());
    }

    /// How often it was asked for a sandbox by name.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.said.lock().asked.iter().filter(|asked| *asked == name).count()
    }
}
