//! Calls methods of the API as another user, and says what each came to: `call-as SOCKET UID GID
//! GROUPS METHOD…`. It becomes that user by itself, since the user may not even be able to find the
//! programs. Each method gets an empty message, or the one whose bytes stand behind it: `METHOD=HEX`. A
//! stream is left once it has begun.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut};
use guard_api::client::{CallError, connect};
use guard_tests::{become_user, of_hex};
use tokio::time::timeout;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, client::Grpc};
use tonic_prost::prost::encoding::{DecodeContext, WireType, skip_field};
use tonic_prost::prost::{DecodeError, Message};

/// Longer than any answer takes.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longer than a stream takes to be refused.
const BEGUN: Duration = Duration::from_secs(1);

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
            let (method, bytes) = method.split_once('=').unwrap_or((method, ""));
            let request = Request::new(Raw(of_hex(bytes)?));
            let path: PathAndQuery = method.parse().with_context(|| method.to_owned())?;
            let codec = tonic_prost::ProstCodec::<Raw, ()>::default();
            let call = client.server_streaming(request, path, codec);
            let called = timeout(TIMEOUT, call).await.with_context(|| method.to_owned())?;
            let said = match called {
                // A refusal may come after the head, and there a stream may say nothing for long.
                Ok(answer) => match timeout(BEGUN, answer.into_inner().message()).await {
                    Ok(said) => said.map(drop),
                    Err(_) => Ok(()),
                },
                Err(status) => Err(status),
            };
            match said {
                Ok(()) => println!("{method} OK"),
                Err(status) => println!("{method} {}", CallError::from(status)),
            }
        }
        Ok(())
    })
}

/// A message that is encoded already.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Message for Raw {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
