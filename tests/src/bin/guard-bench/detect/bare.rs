//! The limit: a thread that waits for the thief's frames on the bridge's device and writes the address
//! to a socket, and one that reads it there. What is between a frame and news of it at least: two
//! wake-ups.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use guard_tests::{BRIDGE, Lab, Mac, RawSocket};

use super::News;

pub const BARE: &str = "bare";

/// Where an ARP frame says who sent it, and for which address.
const SENDER: std::ops::Range<usize> = 6..12;
const ADDRESS: std::ops::Range<usize> = 28..32;

/// Tells of every frame that the thief sends, until `done`.
///
/// # Errors
/// There is no such bridge any more, or nobody listens.
pub fn tell(lab: &Lab, thief: Mac, news: &Sender<News>, done: &AtomicBool) -> Result<()> {
    let socket = RawSocket::open(lab.host(), BRIDGE)?;
    let (mut writer, mut reader) = UnixStream::pair().context("a pair of sockets")?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut address = [0; 4];
            // Ends with the writer.
            while reader.read_exact(&mut address).is_ok() {
                let news = news.send((BARE, Ipv4Addr::from(address), Instant::now()));
                news.context("nobody listens")?;
            }
            anyhow::Ok(())
        });
        while !done.load(Ordering::Relaxed) {
            let address = socket.receive(Duration::from_millis(100), |frame| {
                (frame.get(SENDER)? == thief.octets())
                    .then(|| frame.get(ADDRESS))?
                    .map(<[u8]>::to_vec)
            });
            // None comes between the loads.
            let Ok(address) = address else { continue };
            writer.write_all(&address).context("the reader has ended")?;
        }
        drop(writer);
        reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
    })
}
