//! Calls methods of the API as another user, and says what each came to: `call-as SOCKET UID GID
//! GROUPS METHOD…`. It becomes that user by itself, since the user may not even be able to find the
//! programs. Each method gets an empty message; a stream is left once it has begun.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use guard_api::client::{CallError, connect};
use guard_tests::become_user;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, client::Grpc};

/// Longer than any answer takes.
const TIMEOUT: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, uid, gid, groups, methods @ ..] = arguments.as_slice() else {
        bail!("call-as SOCKET UID GID GROUPS METHOD…");
    };
    become_user(uid, gid, groups)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = match connect(Path::new(socket)).await {
            Ok(channel) => channel,
            Err(error) => {
                println!("{error}");
                return Ok(());
            }
        };
        let mut client = Grpc::new(channel);
        for method in methods {
            client.ready().await.with_context(|| method.clone())?;
            let path: PathAndQuery = method.parse().with_context(|| method.clone())?;
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let call = client.server_streaming(Request::new(()), path, codec);
            match tokio::time::timeout(TIMEOUT, call).await.with_context(|| method.clone())? {
                Ok(_) => println!("{method} OK"),
                Err(status) => println!("{method} {}", CallError::from(status)),
            }
        }
        Ok(())
    })
}
