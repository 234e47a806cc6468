//! Who may call what, by the credentials of the process at the other end of the socket.

use guard_core::lease::Caller;

use super::peer::Peer;
use crate::config::Access;

/// What a caller may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Anyone who can connect.
    Anyone,
    /// May call what changes nothing.
    Reader,
    /// Gives addresses to sandboxes, and takes them back.
    Controller,
    /// Does everything else: what is an operator's to decide.
    Administrator,
}

impl Role {
    /// The word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Reader => "reader",
            Self::Controller => "controller",
            Self::Administrator => "administrator",
        }
    }

    /// The setting that gives it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Anyone => "",
            Self::Reader => "access.reader_gids",
            Self::Controller => "access.controller_uids or [[controller]]",
            Self::Administrator => "access.admin_uids",
        }
    }
}

use Role::{Administrator, Anyone, Controller, Reader};

/// Every method that is served, and whose it is. One that is not here is not served.
const METHODS: &[(&str, Role)] = &[
    ("/grpc.health.v1.Health/Check", Anyone),
    ("/grpc.health.v1.Health/Watch", Anyone),
    // Tells what is in the proto file.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anyone),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anyone),
    ("/guard.v1.Leases/Allocate", Controller),
    ("/guard.v1.Leases/Confirm", Controller),
    ("/guard.v1.Leases/Bind", Controller),
    ("/guard.v1.Leases/Release", Controller),
    ("/guard.v1.Leases/Get", Reader),
    ("/guard.v1.Leases/List", Reader),
    ("/guard.v1.Leases/AckHold", Controller),
    // Says for a subscriber how far it has got.
    ("/guard.v1.Leases/Watch", Controller),
    ("/guard.v1.Pools/List", Reader),
    ("/guard.v1.Pools/Get", Reader),
    ("/guard.v1.Subnets/Reserve", Controller),
    ("/guard.v1.Subnets/Release", Controller),
    ("/guard.v1.Subnets/List", Reader),
    ("/guard.v1.Interfaces/Reserve", Controller),
    ("/guard.v1.Interfaces/Release", Controller),
    ("/guard.v1.Interfaces/List", Reader),
    ("/guard.v1.Guard/Live", Reader),
    ("/guard.v1.Guard/Ports", Reader),
    ("/guard.v1.Guard/Conflicts", Reader),
    ("/guard.v1.Guard/WatchConflicts", Reader),
    ("/guard.v1.Guard/Why", Reader),
    ("/guard.v1.Guard/Status", Reader),
    ("/guard.v1.Guard/Drops", Reader),
    ("/guard.v1.Guard/Enforcement", Reader),
    // Keeps an alert from everyone.
    ("/guard.v1.Guard/Silence", Administrator),
    // Puts a program on a port.
    ("/guard.v1.Guard/Trace", Administrator),
    ("/guard.v1.Admin/Backup", Administrator),
    ("/guard.v1.Admin/Recover", Administrator),
    ("/guard.v1.Admin/Check", Administrator),
    ("/guard.v1.Admin/Gc", Administrator),
    ("/guard.v1.Admin/ForceRelease", Administrator),
    ("/guard.v1.Admin/Quarantine", Administrator),
    ("/guard.v1.Admin/Reconcile", Administrator),
    ("/guard.v1.Admin/Adopt", Administrator),
    ("/guard.v1.Admin/Watchdog", Administrator),
    ("/guard.v1.Admin/IgnoreSource", Administrator),
    ("/guard.v1.Admin/SetMode", Administrator),
    ("/guard.v1.Admin/ResumeEnforcement", Administrator),
];

/// The role that the method at a path asks for; `None` where there is no such method.
pub(super) fn required(path: &str) -> Option<Role> {
    METHODS.iter().find(|(method, _)| *method == path).map(|(_, role)| *role)
}

/// Whether the method at a path changes anything: what it takes more than a reader for, but for these.
pub(super) fn changes(path: &str) -> bool {
    let only_reads = ["/guard.v1.Leases/Watch", "/guard.v1.Admin/Check"].contains(&path);
    !only_reads && required(path) > Some(Reader)
}

/// On whose behalf a call is.
pub(super) fn caller(access: &Access, role: Role, uid: Option<u32>) -> Caller {
    // Nobody who has no role calls what asks for one.
    match (role, uid) {
        (Administrator, Some(uid)) => Caller::Administrator(uid),
        (_, uid) => Caller::Controller(uid.unwrap_or(u32::MAX), access.controllers.clone()),
    }
}

/// The highest role that the settings give to a caller.
pub(super) fn role(access: &Access, peer: &Peer) -> Role {
    let Access { admin_uids, admin_net_admin, controllers, reader_gids } = access;
    // Whom the kernel does not name is nobody.
    let Some(uid) = peer.uid else { return Anyone };
    let given = if admin_uids.contains(&uid) && (!admin_net_admin || peer.net_admin) {
        Administrator
    } else if controllers.get(uid).is_some() {
        Controller
    } else if peer.groups.iter().any(|gid| reader_gids.contains(gid)) {
        Reader
    } else {
        Anyone
    };
    given.min(peer.most)
}

/// What keeps a role from a caller beside the setting that gives it; empty where nothing does.
pub(super) fn hint(access: &Access, required: Role, peer: &Peer) -> &'static str {
    let is_listed = peer.uid.is_some_and(|uid| access.admin_uids.contains(&uid));
    if peer.most < required {
        "; on `reader_socket` nobody is more than a reader"
    } else if access.admin_net_admin && is_listed && !peer.net_admin {
        "; access.admin_net_admin asks for CAP_NET_ADMIN in the initial user namespace, too"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use guard_core::lease::Controller;
    use prost::Message as _;

    use super::*;
    use guard_api::proto;

    fn methods(descriptors: &[u8]) -> Vec<String> {
        let set = prost_types::FileDescriptorSet::decode(descriptors).unwrap();
        let services = set.file.iter().flat_map(|file| {
            file.service.iter().map(|service| format!("/{}.{}", file.package(), service.name()))
        });
        let methods = set.file.iter().flat_map(|file| &file.service).map(|service| &service.method);
        let rows = services.zip(methods).flat_map(|(service, methods)| {
            methods.iter().map(move |method| format!("{service}/{}", method.name()))
        });
        rows.collect()
    }

    #[test]
    fn every_method_that_is_served_has_one_row_and_nothing_else_has() {
        let served: BTreeSet<_> = [
            proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ]
        .into_iter()
        .flat_map(methods)
        .collect();
        let rows: Vec<_> = METHODS.iter().map(|(method, _)| (*method).to_owned()).collect();
        assert_eq!(rows.iter().cloned().collect::<BTreeSet<_>>(), served);
        assert_eq!(rows.len(), served.len(), "a method has two rows");
    }

    #[test]
    fn a_role_comes_from_the_user_or_from_any_of_its_groups() {
        let of = |uid| Controller { uid, pools: None, subscriber: None, shared: false };
        let controllers = std::iter::once(of(7)).collect();
        let access = Access { controllers, reader_gids: vec![100], ..Access::default() };
        let given = |uid, groups: &[u32]| role(&access, &Peer::new(uid, groups));
        assert_eq!(given(Some(0), &[]), Administrator);
        assert_eq!(given(Some(7), &[7]), Controller);
        assert_eq!(given(Some(8), &[8, 100]), Reader);
        assert_eq!(given(Some(8), &[0, 7]), Anyone);
        assert_eq!(given(None, &[100]), Anyone);
        // On a socket for readers nobody is more.
        let on_readers = |uid, groups: &[u32]| {
            role(&access, &Peer { most: Reader, ..Peer::new(Some(uid), groups) })
        };
        assert_eq!([on_readers(0, &[]), on_readers(7, &[])], [Reader, Reader]);
        assert_eq!([on_readers(8, &[100]), on_readers(8, &[])], [Reader, Anyone]);
        // Where it is asked for, a user alone is no administrator.
        let access = Access { admin_net_admin: true, ..access };
        let root = |net_admin, groups: &[u32]| {
            role(&access, &Peer { net_admin, ..Peer::new(Some(0), groups) })
        };
        assert_eq!([root(true, &[]), root(false, &[])], [Administrator, Anyone]);
        assert_eq!(root(false, &[100]), Reader);
    }
}
