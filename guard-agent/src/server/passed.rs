//! Listening sockets that the service manager holds over restarts, and passes to each agent that it
//! starts (sd_listen_fds(3)). Which is for what is told by where it listens.

use std::{
    net::SocketAddr,
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
};

use socket2::Socket;

/// Those that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<Socket>);

impl Passed {
    /// All that this process was started with.
    pub(crate) fn all() -> Self {
        let passed = sd_notify::listen_fds().map(|fds| {
            let own = |fd| {
                #[expect(unsafe_code, reason = "a descriptor comes as a number")]
                // SAFETY: the service manager has passed it to this process, and nothing else here
                // takes what it passes: an agent asks for that once.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                Socket::from(fd)
            };
            fds.map(own).collect()
        });
        Self(passed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager passes sockets that cannot be taken");
            Vec::new()
        }))
    }

    /// The one that listens on a path.
    pub(crate) fn unix(&mut self, path: &Path) -> Option<Socket> {
        self.take(|socket| {
            socket.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
        })
    }

    /// The one that listens on an address and a port.
    pub(crate) fn tcp(&mut self, wanted: SocketAddr) -> Option<Socket> {
        self.take(|socket| {
            socket.local_addr().is_ok_and(|address| address.as_socket() == Some(wanted))
        })
    }

    fn take(&mut self, is_it: impl Fn(&Socket) -> bool) -> Option<Socket> {
        let at = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(at))
    }

    /// Warns of those that no setting names: whoever connects to one waits for nobody.
    pub(crate) fn warn_of_others(self) {
        for socket in self.0 {
            let address = socket.local_addr().ok();
            let address = address.and_then(|address| match address.as_pathname() {
                Some(path) => Some(path.display().to_string()),
                None => address.as_socket().map(|address| address.to_string()),
            });
            tracing::warn!(
                address,
                "the service manager listens where `socket`, `reader_socket` and `http` do not say: make \
                 guard-agent.socket and the configuration say the same"
            );
        }
    }
}
