//! What HTTP is served on: the socket that the service manager holds, or one that is made here.

use std::{io, net::SocketAddr, time::Duration};

use axum::serve;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, UnixStream},
    time::sleep,
};

use crate::{
    config::HttpAddress,
    server::{
        Passed,
        socket::{Door, SocketError},
    },
};

/// The interface of loopback addresses. By an address alone a socket is reached from any other too,
/// where somebody has set `route_localnet` for it.
const LOOPBACK: &[u8] = b"lo";
/// Connections that the kernel keeps until they are taken, which they are at once.
const BACKLOG: i32 = 128;
/// How long to wait where the kernel gives no connection, for want of descriptors most likely.
const OUT_OF_FILES: Duration = Duration::from_millis(100);
/// Who may ask over TCP may ask here; the directory says who comes near.
const MODE: u32 = 0o666;

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// On an address and a port.
    Tcp(TcpListener),
    /// On a path.
    Unix(Door),
}

/// Why HTTP is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// On a port.
    #[error("cannot listen on {0}: {1}; `http` sets another address")]
    Tcp(SocketAddr, io::Error),
    /// On a path.
    #[error(transparent)]
    Unix(#[from] SocketError),
}

/// Opens what `http` names.
///
/// # Errors
/// It is in use, or cannot be made.
pub(super) fn open(address: &HttpAddress, passed: &mut Passed) -> Result<Listener, ListenError> {
    match address {
        HttpAddress::Tcp(address) => {
            let listener = tcp(*address, passed).and_then(TcpListener::from_std);
            Ok(Listener::Tcp(listener.map_err(|error| ListenError::Tcp(*address, error))?))
        }
        HttpAddress::Unix(path) => Ok(Listener::Unix(Door::open(path, MODE, passed)?)),
    }
}

fn tcp(address: SocketAddr, passed: &mut Passed) -> io::Result<std::net::TcpListener> {
    let held = passed.tcp(address);
    let is_held = held.is_some();
    let socket = match held {
        Some(socket) => socket,
        None => Socket::new(Domain::for_address(address), Type::STREAM, None)?,
    };
    socket.set_nonblocking(true)?;
    if address.ip().is_loopback() {
        socket.bind_device(Some(LOOPBACK))?;
    }
    if !is_held {
        // Connections of an agent before may still be ending.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

impl serve::Listener for Door {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (UnixStream, ()) {
        loop {
            if let Ok(stream) = Self::accept(self, || MODE).await {
                return (stream, ());
            }
            sleep(OUT_OF_FILES).await;
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
