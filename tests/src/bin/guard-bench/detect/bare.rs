//! The limit: a thread that waits for the thief's frames on the bridge's device and writes a byte to a
//! socket, and one that reads it there. What is between a frame and news of it at least: two wake-ups.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use guard_tests::{Arp, BRIDGE, Lab, RawSocket, Sandbox};

use super::{Next, PACE};

pub(super) const BARE: &str = "bare";

/// Where an Ethernet frame says who sent it.
const SENDER: std::ops::Range<usize> = 6..12;

/// How long the news of so many frames took, of those that there was news of. The frames claim what is
/// the thief's own, so that nobody else has anything to tell of them.
///
/// # Errors
/// The bridge is gone.
pub(super) fn latencies(
    lab: &Lab,
    thief: &Sandbox,
    own: Ipv4Addr,
    frames: usize,
    next: Next,
) -> Result<Vec<Duration>> {
    let (seen, done) = (RawSocket::open(lab.host(), BRIDGE)?, AtomicBool::new(false));
    let (writer, reader) = UnixStream::pair().context("a pair of sockets")?;
    let (news, told) = channel();
    let frame = Arp::announcement(thief.mac(), own).frame();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read(reader, &news));
        let done = &done;
        let writing = scope.spawn(move || {
            let from_thief =
                |frame: &[u8]| (frame.get(SENDER)? == thief.mac().octets()).then_some(());
            while !done.load(Ordering::Relaxed) {
                // None comes once all are through.
                if seen.receive(Duration::from_millis(100), from_thief).is_ok() {
                    (&writer).write_all(&[1]).context("the reader has ended")?;
                }
            }
            anyhow::Ok(())
        });
        let latencies = measure(&thief.raw_socket()?, &frame, frames, &told, next);
        done.store(true, Ordering::Relaxed);
        writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        latencies
    })
}

/// Tells of each byte, to the end.
fn read(mut reader: UnixStream, news: &Sender<Instant>) {
    while reader.read_exact(&mut [0]).is_ok() && news.send(Instant::now()).is_ok() {}
}

fn measure(
    socket: &RawSocket,
    frame: &[u8],
    frames: usize,
    told: &Receiver<Instant>,
    next: Next,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for _ in 0..frames {
        let sent = Instant::now();
        socket.send(frame)?;
        // Nothing more comes of it; the wait is the time to the next.
        while let Ok(at) =
            told.recv_timeout((sent + PACE).saturating_duration_since(Instant::now()))
        {
            latencies.push(at.saturating_duration_since(sent));
            if next == Next::Told {
                break;
            }
        }
    }
    Ok(latencies)
}
