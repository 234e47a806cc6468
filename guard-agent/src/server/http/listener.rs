//! What HTTP is served on: the socket that the service manager holds, or one that is made here.

use std::{
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    config::HttpAddress,
    server::{
        Passed,
        socket::{self, OwnFile, SocketError},
    },
};

/// The interface of loopback addresses. By an address alone a socket is reached from any other too,
/// where somebody has set `route_localnet` for it.
const LOOPBACK: &[u8] = b"lo";
/// Connections that the kernel keeps until they are taken, which they are at once.
const BACKLOG: i32 = 128;
/// Who may ask over TCP may ask here; the directory says who comes near.
const MODE: u32 = 0o666;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// On an address and a port.
    Tcp(TcpListener),
    /// On a path, with the file that is to go with it.
    Unix(UnixListener, Option<OwnFile>),
}

/// Why HTTP is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
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
pub fn open(address: &HttpAddress, passed: &mut Passed) -> Result<Listener, ListenError> {
    match address {
        HttpAddress::Tcp(address) => {
            let listener = tcp(*address, passed).and_then(TcpListener::from_std);
            Ok(Listener::Tcp(listener.map_err(|error| ListenError::Tcp(*address, error))?))
        }
        HttpAddress::Unix(path) => Ok(unix(path, passed)?),
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

fn unix(path: &Path, passed: &mut Passed) -> Result<Listener, SocketError> {
    let (listener, file) = socket::open(path, passed)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))
        .map_err(|source| SocketError::Listen { path: path.to_owned(), source })?;
    Ok(Listener::Unix(listener, file))
}
