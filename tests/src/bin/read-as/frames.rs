//! HTTP/2 by hand: connections that begin well, and go on with frames of any kind and content, or with
//! calls whose answers are never read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHODS: &[&str] = &[
    "/guard.v1.Leases/Get",
    "/guard.v1.Leases/List",
    "/guard.v1.Leases/Allocate",
    "/guard.v1.Pools/List",
    "/guard.v1.Subnets/List",
    "/guard.v1.Interfaces/List",
    "/guard.v1.Guard/Live",
    "/guard.v1.Guard/Ports",
    "/guard.v1.Guard/Conflicts",
    "/guard.v1.Guard/WatchConflicts",
    "/guard.v1.Guard/Why",
    "/guard.v1.Guard/Status",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/nothing",
];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

/// Opens one connection after the other for so long. How many frames were sent.
pub(crate) fn send(socket: &Path, span: Duration) -> Result<u64> {
    let (began, mut chance, mut frames) = (Instant::now(), Rng::new(), 0);
    while began.elapsed() < span {
        let mut stream = UnixStream::connect(socket).context("the agent is gone")?;
        stream.set_nonblocking(true)?;
        let mut bytes = PREFACE.to_vec();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        for _ in 0..chance.usize(1..200) {
            let before = bytes.len();
            any(&mut chance, &mut bytes);
            if chance.u8(..32) == 0 {
                let at = chance.usize(before..bytes.len());
                bytes[at] = chance.u8(..);
            }
            frames += 1;
            let (sent, read) = (stream.write_all(&bytes), chance.bool());
            bytes.clear();
            match sent {
                Ok(()) => {}
                // It does not take as fast as this; what was half sent is nonsense, too.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            if read {
                let _ = stream.read(&mut [0; 65_536]);
            }
        }
    }
    Ok(frames)
}

/// How an answer stays unread.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Unread {
    /// The agent may send all of it, and nobody takes it from the socket.
    Socket,
    /// The agent may not send any of it.
    Window,
}

/// Calls of one connection: no more than the agent takes at a time.
const CALLS: u32 = 256;

/// Makes one call very often, on so many connections, and reads no answer.
pub(crate) fn ask(
    socket: &Path,
    path: &str,
    message: &[u8],
    connections: usize,
    unread: Unread,
) -> Result<Vec<UnixStream>> {
    let mut all = Vec::new();
    for _ in 0..connections {
        let mut stream = UnixStream::connect(socket).context("the agent is gone")?;
        let window: u32 = if unread == Unread::Window { 0 } else { i32::MAX.cast_unsigned() };
        let mut bytes = PREFACE.to_vec();
        let setting: Vec<u8> = [0, 4].into_iter().chain(window.to_be_bytes()).collect();
        frame(&mut bytes, SETTINGS, 0, 0, &setting);
        frame(&mut bytes, WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
        let mut data = vec![0];
        data.extend(u32::try_from(message.len())?.to_be_bytes());
        data.extend(message);
        for call in 0..CALLS {
            frame(&mut bytes, HEADERS, 4, 2 * call + 1, &fields(path, |_| true));
            frame(&mut bytes, DATA, 1, 2 * call + 1, &data);
        }
        // One that is closed meanwhile has been refused.
        let _ = stream.write_all(&bytes);
        all.push(stream);
    }
    Ok(all)
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap_or_default().to_be_bytes();
    bytes.extend(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(content);
}

fn any(chance: &mut Rng, bytes: &mut Vec<u8>) {
    let stream = chance.u32(..40);
    match chance.u8(..12) {
        0..=3 => {
            // Numbers of a client's streams are odd.
            let end = chance.u8(..2);
            frame(bytes, HEADERS, 4 | end, stream | 1, &headers(chance));
            if end == 0 {
                frame(bytes, DATA, 1, stream | 1, &message(chance));
            }
        }
        4..=5 => frame(bytes, DATA, chance.u8(..2), stream | 1, &message(chance)),
        6 => {
            let content = chance.u32(1..1 << 20).to_be_bytes();
            frame(bytes, WINDOW_UPDATE, 0, stream & 1, &content);
        }
        7 => {
            let mut content = vec![0, chance.u8(1..7)];
            content.extend(chance.u32(..).to_be_bytes());
            frame(bytes, SETTINGS, 0, 0, &content);
        }
        _ => {
            let content: Vec<u8> = (0..chance.usize(..40)).map(|_| chance.u8(..)).collect();
            frame(bytes, chance.u8(..12), chance.u8(..), stream, &content);
        }
    }
}

fn headers(chance: &mut Rng) -> Vec<u8> {
    let method = METHODS[chance.usize(..METHODS.len())];
    fields(method, |_| chance.u8(..64) != 0)
}

/// Literal fields, none of which is to be remembered (RFC 7541, 6.2.2).
fn fields(method: &str, mut has: impl FnMut(&str) -> bool) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "guard"),
        (":path", method),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        if !has(name) {
            continue;
        }
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or_default());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A message as gRPC frames it, with fields as protobuf has them.
fn message(chance: &mut Rng) -> Vec<u8> {
    let mut content = Vec::new();
    for _ in 0..chance.usize(..6) {
        let text = ["", "10.8.64.2", "sandboxes", "br-guard", "\u{202e}", "00ff"];
        let text = text[chance.usize(..text.len())];
        content.push(chance.u8(1..6) << 3 | if chance.bool() { 2 } else { 0 });
        if chance.u8(..8) == 0 {
            content.push(chance.u8(..));
        } else {
            content.push(u8::try_from(text.len()).unwrap_or_default());
            content.extend(text.as_bytes());
        }
    }
    let mut length = u32::try_from(content.len()).unwrap_or_default();
    if chance.u8(..16) == 0 {
        length = chance.u32(..);
    }
    let mut message = vec![u8::from(chance.u8(..32) == 0)];
    message.extend(length.to_be_bytes());
    message.extend(content);
    message
}
