//! Asks for all leases, as another user and many times at once: `read-as SOCKET UID GID GROUPS MANNER
//! COUNT`. By the manner `loop` each list is read and asked for again, by `stall` none is ever read.
//! Says `begun` once all are asked for, and goes on until it is killed. By the manner `frames` it sends
//! frames by chance for so many seconds, and says how many. By `socket=PATH=HEX` and `window=PATH=HEX` it
//! makes a call with a message 256 times on each of so many connections, and takes no answer off its socket,
//! or lets the agent send none.

mod frames;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use frames::Unread;
use guard_api::proto::{ListLeasesRequest, ListLeasesResponse};
use guard_tests::{become_user, of_hex};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming, client::Grpc};

/// Lists on one connection: no more than the agent takes at a time.
const ON_ONE: usize = 128;
/// How soon one that is refused asks again.
const AGAIN: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Loop,
    Stall,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, uid, gid, groups, manner, count] = arguments.as_slice() else {
        bail!("read-as SOCKET UID GID GROUPS MANNER COUNT");
    };
    let count: usize = count.parse().context("COUNT")?;
    become_user(uid, gid, groups)?;
    let socket = PathBuf::from(socket);
    let manner = match manner.as_str() {
        "frames" => {
            let sent = frames::send(&socket, Duration::from_secs(count.try_into()?))?;
            println!("{sent}");
            return Ok(());
        }
        "loop" => Manner::Loop,
        "stall" => Manner::Stall,
        other => {
            let _unread = ask(&socket, other, count)?;
            println!("begun");
            loop {
                std::thread::park();
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut readers = JoinSet::new();
        let mut channel = None;
        for number in 0..count {
            if number % ON_ONE == 0 {
                channel = Some(connect(socket.clone(), manner).await?);
            }
            let channel = channel.clone().context("no connection")?;
            readers.spawn(read(channel, manner));
        }
        println!("begun");
        let ended = readers.join_next().await.context("nobody reads")??;
        ensure!(ended.is_err(), "it came to an end");
        ended
    })
}

/// Makes a call, `MANNER=PATH=HEX`, on so many connections.
fn ask(socket: &Path, call: &str, connections: usize) -> Result<Vec<UnixStream>> {
    let mut words = call.splitn(3, '=');
    let (manner, path, hex) = (words.next(), words.next(), words.next());
    let unread = match manner {
        Some("socket") => Unread::Socket,
        Some("window") => Unread::Window,
        _ => bail!("no manner: {call}"),
    };
    let message = of_hex(hex.context("no message")?)?;
    frames::ask(socket, path.context("no path")?, &message, connections, unread)
}

async fn connect(socket: PathBuf, manner: Manner) -> Result<Channel> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { anyhow::Ok(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    });
    let window = if manner == Manner::Stall { 1024 } else { 1 << 20 };
    let endpoint = Endpoint::from_static("http://guard").initial_stream_window_size(window);
    Ok(endpoint.connect_with_connector(connector).await?)
}

async fn read(channel: Channel, manner: Manner) -> Result<()> {
    let mut client = Grpc::new(channel);
    loop {
        // A connection that ended is made anew.
        if client.ready().await.is_err() {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        let request = ListLeasesRequest { page_size: i32::MAX, ..Default::default() };
        let codec = tonic_prost::ProstCodec::<ListLeasesRequest, ListLeasesResponse>::default();
        let path = "/guard.v1.Leases/List".parse().context("a path")?;
        match client.server_streaming(Request::new(request), path, codec).await {
            Ok(answer) if manner == Manner::Loop => drop(take(answer.into_inner()).await),
            Ok(answer) => stay(answer.into_inner()).await,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn take(mut answer: Streaming<ListLeasesResponse>) -> Result<()> {
    while answer.message().await?.is_some() {}
    Ok(())
}

/// Reads nothing, for longer than any test lasts.
async fn stay(answer: Streaming<ListLeasesResponse>) {
    tokio::time::sleep(Duration::from_secs(3600)).await;
    drop(answer);
}
