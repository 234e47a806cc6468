//! A connection, and the credentials of its other end, from the kernel.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use nix::libc;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

use super::{access::Role, capability, limit::Slot};
use crate::config::Access;

/// A user can be in so many groups; `NGROUPS_MAX` in `include/uapi/linux/limits.h`.
const MOST_GROUPS: usize = 65536;

/// Who called `connect`, as it was then.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The user; `None` where the kernel does not say.
    pub uid: Option<u32>,
    /// The process, as the agent's namespace knows it; for the log alone, since another may have the
    /// number by now.
    pub pid: Option<i32>,
    /// It has `CAP_NET_ADMIN` in the initial user namespace, where that was asked for.
    pub net_admin: bool,
    /// The highest role on the socket that it has connected to.
    pub most: Role,
    /// The group and the supplementary groups.
    pub groups: Arc<[u32]>,
}

impl Peer {
    #[cfg(test)]
    pub(super) fn new(uid: Option<u32>, groups: &[u32]) -> Self {
        let most = Role::Administrator;
        Self { uid, pid: None, net_admin: false, most, groups: groups.into() }
    }

    /// Reads what the kernel keeps of the process that connected to a socket on which nobody has more than
    /// a role.
    pub(super) fn of(stream: &UnixStream, most: Role, access: &Access) -> Self {
        let Ok(credentials) = stream.peer_cred() else {
            let groups = Arc::default();
            return Self { uid: None, pid: None, net_admin: false, most, groups };
        };
        // Without them it is in one group, which is less than it may have and never more.
        let mut groups = supplementary(stream).unwrap_or_default();
        groups.push(credentials.gid());
        let (uid, pid) = (Some(credentials.uid()), credentials.pid());
        let asked = access.admin_net_admin && access.admin_uids.contains(&credentials.uid());
        let net_admin = asked && capability::has_net_admin(stream, pid);
        Self { uid, pid, net_admin, most, groups: groups.into() }
    }
}

/// `SO_PEERGROUPS`, Linux 4.13 and later: unlike a look into `/proc` it cannot be about another
/// process that got the same id, and unlike one into the group database it is what the process has.
fn supplementary(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let size = groups.len() * size_of::<libc::gid_t>();
        let mut size = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "no crate that is used here has this option")]
        // SAFETY: the kernel writes at most `size` bytes to `groups`, which has so many, and any
        // bytes are numbers. It writes to `size` how many they are, or would be.
        let done = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let count = usize::try_from(size).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        if done == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE)
            || !(groups.len()..=MOST_GROUPS).contains(&count)
        {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    peer: Peer,
    /// Its place among the caller's, until it is closed.
    _slot: Slot,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, peer: Peer, slot: Slot) -> Self {
        Self { stream, peer, _slot: slot }
    }

    /// Who is at its other end.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_names_the_user_and_every_group() {
        let (here, _there) = UnixStream::pair().unwrap();
        let peer = Peer::of(&here, Role::Administrator, &Access::default());
        assert_eq!(peer.uid, Some(nix::unistd::getuid().as_raw()));
        assert_eq!(peer.pid, Some(nix::unistd::getpid().as_raw()));
        let own: Vec<_> =
            nix::unistd::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(supplementary(&here).unwrap(), own);
        assert!(peer.groups.contains(&nix::unistd::getgid().as_raw()));
    }
}
