//! The network namespace of a container, by the id that ours has for it: the kernel's links name the
//! namespace of their other end by the same id (`IFLA_LINK_NETNSID`). Nothing here enters another
//! namespace.

use std::{
    fs::{File, OpenOptions},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use futures_util::StreamExt as _;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};
use nix::{
    libc,
    sys::statfs::{FsType, fstatfs},
};
use rtnetlink::Handle;
use tokio::time::timeout;

/// How long the kernel may take.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(1);

/// linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);

/// A connection to route netlink.
pub(super) struct Namespaces(Handle);

impl Namespaces {
    /// None where there is no socket to be had.
    pub(super) fn open() -> Option<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().ok()?;
        tokio::spawn(connection);
        Some(Self(handle))
    }

    /// The id of the namespace that a file stands for. None if it is none, or no link of ours leads
    /// there.
    pub(super) async fn of_file(&self, path: &Path) -> Option<i32> {
        let file = open(path)?;
        let fd = u32::try_from(file.as_raw_fd()).ok()?;
        self.id(NsidAttribute::Fd(fd)).await
    }

    /// The id of the namespace of a process that is in the control group of a container: another
    /// process namespace may have given its number to another one.
    pub(super) async fn of_process(&self, pid: u32, container: &str) -> Option<i32> {
        let id = self.id(NsidAttribute::Pid(pid)).await?;
        // Afterwards, so that its number was not another's when it was asked for.
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        groups.contains(container).then_some(id)
    }

    async fn id(&self, of: NsidAttribute) -> Option<i32> {
        let mut message = NsidMessage::default();
        message.attributes = vec![of];
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.0.clone().request(request).ok()?;
        let answer = timeout(KERNEL_TIMEOUT, answers.next()).await.ok()??;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(found)) = answer.payload
        else {
            return None;
        };
        found.attributes.into_iter().find_map(|attribute| match attribute {
            // -1 is none.
            NsidAttribute::Id(id) if id >= 0 => Some(id),
            _ => None,
        })
    }
}

/// Opens a namespace's file. The path is the runtime's word: whatever else it leads to is left alone,
/// and is not waited for.
fn open(path: &Path) -> Option<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let kind = fstatfs(&file).ok()?.filesystem_type();
    (kind == NSFS).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_is_opened() {
        assert!(open(Path::new("/proc/self/ns/net")).is_some());
        for other in ["/dev/null", "/proc/self/status", "/nowhere", "/"] {
            assert!(open(Path::new(other)).is_none(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_process_that_is_not_the_containers_tells_nothing() {
        let Some(namespaces) = Namespaces::open() else { return };
        let own = std::process::id();
        assert_eq!(namespaces.of_process(own, "no-control-group-is-called-so").await, None);
        assert_eq!(namespaces.of_process(u32::MAX, "").await, None);
    }
}
