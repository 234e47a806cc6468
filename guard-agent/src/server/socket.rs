//! The Unix socket: made anew over one that nobody listens on, never over one that is in use.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::Passed;
use crate::config::Access;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent serves it.
    #[error(
        "socket {path} is in use: another process listens on it; stop it, or set `socket` to \
         another path"
    )]
    InUse {
        /// Which one.
        path: PathBuf,
    },
    /// Something else has its name.
    #[error("socket {path}: there is a file that is not a socket; move it away")]
    NotASocket {
        /// Which one.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot listen on socket {path}: {source}")]
    Listen {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Lets everyone connect, where roles are given to others than root, or root alone: then the door
/// is not even in sight.
///
/// # Errors
/// The mode cannot be set.
pub fn open_to(path: &Path, access: &Access) -> Result<(), SocketError> {
    let mode = if access.is_for_root_alone() { 0o600 } else { 0o666 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|source| SocketError::Listen { path: path.to_owned(), source })
}

/// A socket's file that this agent has made, removed when it is dropped: one that is there says that
/// someone listens.
#[derive(Debug)]
pub struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Where somebody else was faster, it is gone.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens on a path, for those who may connect.
///
/// # Errors
/// It is in use, or cannot be made.
pub fn listen(
    path: &Path,
    access: &Access,
    passed: &mut Passed,
) -> Result<(UnixListener, Option<OwnFile>), SocketError> {
    let opened = open(path, passed)?;
    open_to(path, access)?;
    Ok(opened)
}

/// Listens on a path: on the socket that the service manager holds there, or on a new one.
///
/// # Errors
/// It is in use, or cannot be made.
pub fn open(
    path: &Path,
    passed: &mut Passed,
) -> Result<(UnixListener, Option<OwnFile>), SocketError> {
    let error = |source| SocketError::Listen { path: path.to_owned(), source };
    if let Some(held) = passed.unix(path) {
        held.set_nonblocking(true).map_err(error)?;
        return Ok((UnixListener::from_std(held.into()).map_err(error)?, None));
    }
    if let Ok(known) = fs::symlink_metadata(path) {
        if !known.file_type().is_socket() {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        if is_in_use(path).map_err(error)? {
            return Err(SocketError::InUse { path: path.to_owned() });
        }
        fs::remove_file(path).map_err(error)?;
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        fs::create_dir_all(parent).map_err(error)?;
        // Whoever may connect may come in; all else that the agent makes is for itself alone.
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).map_err(error)?;
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    Ok((listener, Some(OwnFile(path.to_owned()))))
}

/// Whether somebody listens on a path, also where its queue is full: that is not waited for.
fn is_in_use(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(
        path: &Path,
        access: &Access,
    ) -> Result<(UnixListener, Option<OwnFile>), SocketError> {
        super::listen(path, access, &mut Passed::default())
    }

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/guard.sock");
        let access = Access::default();
        let (listener, file) = listen(&path, &access).unwrap();
        assert!(matches!(listen(&path, &access), Err(SocketError::InUse { .. })));
        drop(listener);
        assert!(path.exists());
        drop(file);
        assert!(!path.exists(), "an agent that ends in good order takes its socket away");
        // One that was killed does not.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(listen(&path, &access).unwrap());
        fs::write(&path, "").unwrap();
        assert!(matches!(listen(&path, &access), Err(SocketError::NotASocket { .. })));
    }

    #[tokio::test]
    async fn a_listener_whose_queue_is_full_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(matches!(listen(&path, &Access::default()), Err(SocketError::InUse { .. })));
        drop(waits);
    }

    #[tokio::test]
    async fn others_than_root_can_connect_where_some_have_a_role() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.sock");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let _listener = listen(&path, &Access::default()).unwrap();
        assert_eq!(mode(), 0o600);
        open_to(&path, &Access { reader_gids: vec![100], ..Access::default() }).unwrap();
        assert_eq!(mode(), 0o666);
        open_to(&path, &Access::default()).unwrap();
        assert_eq!(mode(), 0o600);
    }
}
