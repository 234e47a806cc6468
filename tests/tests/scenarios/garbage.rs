//! Garbage on every surface: a clear error or none, no crash, and nothing changed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bytes::{Buf as _, BufMut as _};
use guard_tests::{Agent, Lab, binary};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;

use crate::access::documented;

/// Bytes by chance, which can be repeated.
struct Chance(fastrand::Rng);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0.u64(..most)
    }

    /// No path comes of it, which a backup could be written to.
    fn byte(&mut self) -> u8 {
        match self.0.u8(..) {
            b'/' => b'.',
            byte => byte,
        }
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.byte()).collect()
    }

    /// Something that a decoder gets some way into: fields with proper tags and lengths, and anything
    /// in them.
    fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        for _ in 0..self.below(6) {
            let (field, inner) = (self.below(8) + 1, self.bytes(24));
            let kind = [0_u64, 2, 2, 2, 5, 7][usize::try_from(self.below(6)).unwrap_or(0)];
            message.push(u8::try_from((field << 3) | kind).unwrap_or(8));
            match kind {
                0 => message.push(self.byte() & 0x7f),
                2 => {
                    message.push(u8::try_from(inner.len()).unwrap_or(0));
                    let is_text = self.below(2) == 0;
                    message.extend(inner.iter().map(|b| if is_text { b % 26 + b'a' } else { *b }));
                }
                _ => message.extend(inner),
            }
        }
        message
    }
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

/// What must be as it was.
fn state(agent: &Agent) -> Result<Vec<String>> {
    ["leases", "pools", "subnets list", "interfaces list", "quarantine list", "conflicts"]
        .into_iter()
        .map(|command| {
            let args: Vec<_> = command.split(' ').collect();
            Ok(agent.json(&args)?.to_string())
        })
        .collect()
}

fn is_unharmed(agent: &Agent, before: &[String]) -> Result<()> {
    ensure!(state(agent)? == before, "something has changed");
    ensure!(agent.journal().count(&["panicked"]) == 0, "{}", agent.journal().text());
    agent.check()
}

#[test]
fn bytes_that_are_no_http_end_their_connection_and_nothing_else() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let before = state(&agent)?;
    let mut chance = Chance::new(7);
    for round in 0..300 {
        let mut stream = UnixStream::connect(agent.socket())?;
        stream.set_read_timeout(Some(guard_tests::TIMEOUT))?;
        let mut bytes = Vec::new();
        if round % 3 > 0 {
            bytes.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        if round % 3 > 1 {
            // Settings, so that the frames that follow are looked into.
            bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
            for _ in 0..chance.below(5) {
                let body = chance.bytes(60);
                let length = u8::try_from(body.len())?;
                let kind = u8::try_from(chance.below(11))?;
                bytes.extend([0, 0, length, kind, chance.byte(), 0, 0, 0]);
                bytes.push(u8::try_from(chance.below(4))?);
                bytes.extend(body);
            }
        } else {
            bytes.extend(chance.bytes(400));
        }
        // It may have hung up in the middle.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error).context("it neither answers nor hangs up"),
        }
    }
    is_unharmed(&agent, &before)
}

#[test]
fn messages_that_are_none_are_refused_by_every_method() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let before = state(&agent)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = guard_api::client::connect(&agent.socket()).await?;
        let mut client = tonic::client::Grpc::new(channel);
        let mut chance = Chance::new(8);
        for (method, _) in documented()? {
            for round in 0..30 {
                let bytes = if round % 3 == 0 { chance.bytes(80) } else { chance.message() };
                let path: PathAndQuery = method.parse()?;
                client.ready().await?;
                let call = client.server_streaming(tonic::Request::new(bytes.clone()), path, Raw);
                let answer = tokio::time::timeout(guard_tests::TIMEOUT, call).await;
                let answer = answer.with_context(|| format!("{method} {bytes:02x?}"))?;
                // A status is an answer; an end of the connection is none.
                let lost = answer.err().is_some_and(|s| std::error::Error::source(&s).is_some());
                ensure!(!lost, "{method} {bytes:02x?}");
            }
        }
        anyhow::Ok(())
    })?;
    is_unharmed(&agent, &before)
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() -> Result<()> {
    let long = "x".repeat(100_000);
    for (program, args) in [
        ("guardctl", &["--socket"][..]),
        ("guardctl", &["allocate"]),
        ("guardctl", &["allocate", "--pool", "", "--sandbox"]),
        ("guardctl", &["confirm", "--generation", "-1"]),
        ("guardctl", &["confirm", "--generation", "18446744073709551616"]),
        ("guardctl", &["release", "--generation", "1", "--sandbox", "s"]),
        ("guardctl", &["silence", "1", "--for", "forever"]),
        ("guardctl", &["", "x"]),
        ("guardctl", &[&long]),
        ("guardctl", &["subnets", "reserve", "--length", "999"]),
        ("guardctl", &["leases", "-o", "xml"]),
        ("guardctl", &["🦀", "--🦀"]),
        ("guard-agent", &[]),
        ("guard-agent", &["run", "--config"]),
        ("guard-agent", &["print-config", "more"]),
        ("guard-agent", &[&long]),
    ] {
        let output = Command::new(binary(program)?).args(args).output()?;
        let stderr = String::from_utf8(output.stderr)?;
        let shown = stderr.chars().take(200).collect::<String>();
        ensure!(output.status.code() == Some(2), "{program}: {:?}: {shown}", output.status);
        ensure!(output.stdout.is_empty() && !stderr.is_empty(), "{program} {shown}");
        ensure!(!stderr.contains("panicked"), "{program}: {shown}");
    }
    Ok(())
}
