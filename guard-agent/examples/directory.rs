//! A controller's directory, which the agent asks what became of sandboxes. Here it is a file with a
//! line for each of them, a name and `alive` or `dead`; yours has its own store in the place of
//! `Directory::read`.
//!
//! ```sh
//! cargo run --example directory -- /run/controller/directory.sock /run/controller/sandboxes
//! ```

use std::path::PathBuf;

use anyhow::Context as _;
use guard_api::proto::directory::{
    GetRequest, GetResponse, ListRequest, ListResponse, Sandbox, State, directory_server,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// The sandboxes of a file.
pub(crate) struct Directory {
    file: PathBuf,
}

impl Directory {
    /// All of them or an error: a part would be taken for all.
    fn read(&self) -> Result<Vec<Sandbox>, Status> {
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Status::unavailable(format!("{}: {error}", self.file.display())))?;
        text.lines().map(sandbox).collect()
    }
}

fn sandbox(line: &str) -> Result<Sandbox, Status> {
    let (name, state) = match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, "alive"] => (name, State::Alive),
        [name, "dead"] => (name, State::Dead),
        _ => return Err(Status::data_loss(format!("not `NAME alive` or `NAME dead`: {line:?}"))),
    };
    // One that names no lifecycle is about all of the sandbox's.
    Ok(Sandbox { sandbox: name.to_owned(), state: state.into(), ..Sandbox::default() })
}

#[tonic::async_trait]
impl directory_server::Directory for Directory {
    /// The index. It may lag behind, since whoever is not in it is asked for by name.
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(ListResponse { sandboxes: self.read()? }))
    }

    /// The word about one: that there is none means that there never will be again.
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { sandbox, lifecycle: _ } = request.into_inner();
        let found = self.read()?.into_iter().find(|known| known.sandbox == sandbox);
        Ok(Response::new(GetResponse { sandbox: found }))
    }
}

/// Answers on a socket until it is stopped.
pub(crate) async fn serve(socket: PathBuf, file: PathBuf) -> anyhow::Result<()> {
    // What an earlier run has left would be in the way.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
    let service = directory_server::DirectoryServer::new(Directory { file });
    let server = Server::builder().add_service(service);
    server.serve_with_incoming(UnixListenerStream::new(listener)).await.context("serving")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(socket), Some(file)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: directory SOCKET FILE");
    };
    serve(socket, file).await
}
