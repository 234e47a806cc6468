//! The Unix socket: made anew over one that nobody listens on, never over one that is in use.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

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

/// Listens on a path, for those who may connect.
///
/// # Errors
/// It is in use, or cannot be made.
pub fn listen(path: &Path, access: &Access) -> Result<UnixListener, SocketError> {
    let error = |source| SocketError::Listen { path: path.to_owned(), source };
    if let Ok(known) = fs::symlink_metadata(path) {
        if !known.file_type().is_socket() {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        if UnixStream::connect(path).is_ok() {
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
    open_to(path, access)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/guard.sock");
        let access = Access::default();
        let listener = listen(&path, &access).unwrap();
        assert!(matches!(listen(&path, &access), Err(SocketError::InUse { .. })));
        drop(listener);
        drop(listen(&path, &access).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(listen(&path, &access), Err(SocketError::NotASocket { .. })));
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
