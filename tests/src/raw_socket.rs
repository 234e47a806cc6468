//! Raw frames on an interface.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send,
    socket,
};

use crate::{netns::Netns, wait::TIMEOUT};

/// A packet socket bound to one interface: it sends what it is given, and receives everything.
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
}

impl RawSocket {
    /// Opens one on an interface of a namespace.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        netns.run(|| Self::open_here(interface))?
    }

    fn open_here(interface: &str) -> Result<Self> {
        // The kernel's own description of the interface is the address to bind to.
        let address = getifaddrs()
            .context("listing interfaces")?
            .filter(|found| found.interface_name == interface)
            .filter_map(|found| found.address)
            .find(|address| address.family() == Some(AddressFamily::Packet))
            .with_context(|| format!("there is no interface {interface}"))?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .context("opening a packet socket")?;
        bind(socket.as_raw_fd(), &address).with_context(|| format!("binding to {interface}"))?;
        Ok(Self { socket })
    }

    /// Sends one frame, as it is. Where a flood leaves the queue of the other end no room, it is sent
    /// once there is some.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                // Nobody tells when there is.
                Err(Errno::ENOBUFS) if Instant::now() < deadline => std::thread::yield_now(),
                sent => return sent.map(drop).context("sending a frame"),
            }
        }
    }

    /// Waits for a frame that `wanted` makes something of.
    ///
    /// # Errors
    /// None came in time, or the interface is gone.
    pub fn receive<T>(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).context("waiting for that long")?;
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, timeout).context("waiting for a frame")? == 0 {
                bail!("no such frame came within {patience:?}");
            }
            let read = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)
                .context("receiving a frame")?;
            let frame = buffer.get(..read).context("more than the buffer holds")?;
            if let Some(found) = wanted(frame) {
                return Ok(found);
            }
        }
    }
}
