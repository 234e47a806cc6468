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

/// Listens on a path, for root alone.
///
/// # Errors
/// It is in use, or cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
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
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(error)?;
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(error)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/guard.sock");
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen(&path), Err(SocketError::InUse { .. })));
        drop(listener);
        drop(listen(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(listen(&path), Err(SocketError::NotASocket { .. })));
    }
}
