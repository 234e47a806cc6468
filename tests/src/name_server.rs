//! Who answers at an address: servers that say their name, and a client that asks for it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{netns::Netns, sandbox::Sandbox};

const PORT: u16 = 7;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A TCP server in a sandbox that answers each connection with the sandbox's name.
#[derive(Debug)]
pub struct NameServer {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Starts one.
    ///
    /// # Errors
    /// The sandbox is gone, or has one already.
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let listener = sandbox.netns().run(|| TcpListener::bind(any))?.context("listening")?;
        let accepting = listener.try_clone().context("cloning a listener")?;
        let name = sandbox.name().to_owned();
        // A socket stays in the namespace that it was made in, whatever thread uses it.
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                // A client that hung up is no concern of the server's.
                let _ = stream.write_all(name.as_bytes());
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // On Linux this makes `accept` return.
        let how = nix::sys::socket::Shutdown::Both;
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), how);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What became of a number of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// How many each server answered.
    pub by_name: BTreeMap<String, u64>,
    /// How many nobody did.
    pub failed: u64,
}

impl Answers {
    /// How many connections were tried.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_name.values().sum::<u64>() + self.failed
    }

    /// How many landed at somebody else than `name`.
    #[must_use]
    pub fn misdelivered(&self, name: &str) -> u64 {
        self.by_name.iter().filter(|(answered, _)| *answered != name).map(|(_, n)| n).sum()
    }
}

/// Connects `count` times, one after the other, from a namespace to the name server at `address`.
///
/// # Errors
/// The namespace is gone.
pub fn ask(from: &Netns, address: Ipv4Addr, count: u64) -> Result<Answers> {
    from.run(|| {
        let mut answers = Answers::default();
        for _ in 0..count {
            match ask_once(SocketAddr::from((address, PORT))) {
                Ok(name) => *answers.by_name.entry(name).or_default() += 1,
                Err(_) => answers.failed += 1,
            }
        }
        answers
    })
}

fn ask_once(server: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, CLIENT_TIMEOUT)?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.shutdown(Shutdown::Write)?;
    let mut name = String::new();
    stream.read_to_string(&mut name)?;
    Ok(name)
}
