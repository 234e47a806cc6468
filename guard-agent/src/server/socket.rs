//! The Unix socket: made anew over one that nobody listens on, never over one that is in use.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{Interval, MissedTickBehavior, interval},
};

use super::Passed;
use crate::config::Access;

/// How often it is looked whether its file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
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
pub(crate) fn open_to(path: &Path, access: &Access) -> Result<(), SocketError> {
    set_mode(path, mode_for(access))
}

/// The mode of the API's socket.
pub(super) fn mode_for(access: &Access) -> u32 {
    if access.is_for_root_alone() { 0o600 } else { 0o666 }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SocketError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|source| SocketError::Listen { path: path.to_owned(), source })
}

/// A socket's file that this agent has made, removed when it is dropped: one that is there says that
/// someone listens. One that another agent has put in its place stays.
#[derive(Debug)]
pub(super) struct OwnFile {
    path: PathBuf,
    /// The device and the number there.
    inode: (u64, u64),
}

impl OwnFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }

    fn is_there(&self) -> bool {
        inode(&self.path).is_ok_and(|inode| inode == self.inode)
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.is_there() {
            // Where somebody else was faster, it is gone.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Listens on a path, for those who may connect.
///
/// # Errors
/// It is in use, or cannot be made.
pub(crate) fn listen(
    path: &Path,
    access: &Access,
    passed: &mut Passed,
) -> Result<Door, SocketError> {
    Door::open(path, mode_for(access), passed)
}

/// A listening Unix socket. Where the agent has made it, it is made anew once its file is gone: a
/// socket that nobody can find is one that nobody is answered on.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    file: Option<OwnFile>,
    look: Interval,
    /// It was told that it cannot be made anew.
    told: bool,
}

impl Door {
    /// Listens on a path.
    ///
    /// # Errors
    /// It is in use, or cannot be made.
    pub(crate) fn open(path: &Path, mode: u32, passed: &mut Passed) -> Result<Self, SocketError> {
        let (listener, file) = open(path, mode, passed)?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { listener, file, look, told: false })
    }

    /// The next connection. `mode` is that of a file that is made anew.
    ///
    /// # Errors
    /// The kernel gives none.
    pub(crate) async fn accept(&mut self, mode: impl Fn() -> u32) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| stream),
                _ = self.look.tick() => self.look_after(&mode),
            }
        }
    }

    fn look_after(&mut self, mode: impl Fn() -> u32) {
        let Some(file) = self.file.as_ref().filter(|file| !file.is_there()) else { return };
        let path = file.path.clone();
        match open(&path, mode(), &mut Passed::default()) {
            Ok((listener, file)) => {
                tracing::warn!(path = %path.display(), "the socket was gone, and was made anew");
                (self.listener, self.file, self.told) = (listener, file, false);
            }
            Err(error) if !self.told => {
                tracing::error!(%error, "the socket is gone, and nobody can connect");
                self.told = true;
            }
            Err(_) => {}
        }
    }
}

/// Listens on a path: on the socket that the service manager holds there, or on a new one.
fn open(
    path: &Path,
    mode: u32,
    passed: &mut Passed,
) -> Result<(UnixListener, Option<OwnFile>), SocketError> {
    let error = |source| SocketError::Listen { path: path.to_owned(), source };
    if let Some(held) = passed.unix(path) {
        held.set_nonblocking(true).map_err(error)?;
        let listener = UnixListener::from_std(held.into()).map_err(error)?;
        set_mode(path, mode)?;
        return Ok((listener, None));
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
    let file = OwnFile::of(path).map_err(error)?;
    set_mode(path, mode)?;
    Ok((listener, Some(file)))
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

    fn listen(path: &Path, access: &Access) -> Result<Door, SocketError> {
        super::listen(path, access, &mut Passed::default())
    }

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/guard.sock");
        let access = Access::default();
        let door = listen(&path, &access).unwrap();
        assert!(matches!(listen(&path, &access), Err(SocketError::InUse { .. })));
        drop(door);
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
    #[tokio::test]
    async fn an_agent_takes_away_no_socket_but_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.sock");
        let old = listen(&path, &Access::default()).unwrap();
        fs::remove_file(&path).unwrap();
        let other = listen(&path, &Access::default()).unwrap();
        drop(old);
        assert!(path.exists());
        drop(other);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_is_made_anew_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.sock");
        let mut door = listen(&path, &Access::default()).unwrap();
        fs::remove_file(&path).unwrap();
        let connect = async {
            while UnixStream::connect(&path).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (accepted, ()) = tokio::join!(door.accept(|| 0o666), connect);
        accepted.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    }
}
