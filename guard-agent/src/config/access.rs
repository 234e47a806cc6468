//! Who may call what, and whose leases are whose.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use guard_core::lease::{Controller, Controllers, Pools};

use super::{
    CheckError, file,
    place::{Fault, at},
};

/// Who may call, by the credentials of the process that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Users who may do everything.
    pub admin_uids: Vec<u32>,
    /// They must have `CAP_NET_ADMIN` in the initial user namespace, too.
    pub admin_net_admin: bool,
    /// Users who hand out leases and take them back.
    pub controllers: Controllers,
    /// Groups whose members may read.
    pub reader_gids: Vec<u32>,
}

impl Default for Access {
    fn default() -> Self {
        let file::Access { admin_uids, admin_net_admin, controller_uids, reader_gids } =
            file::Access::default();
        let controllers = controller_uids.into_iter().map(of_all_pools).collect();
        Self { admin_uids, admin_net_admin, controllers, reader_gids }
    }
}

impl Access {
    /// Whether nobody else has a role.
    pub fn is_for_root_alone(&self) -> bool {
        let Self { admin_uids, admin_net_admin: _, controllers, reader_gids } = self;
        let mut uids = admin_uids.iter().chain(controllers.iter().map(|it| &it.uid));
        uids.all(|uid| *uid == 0) && reader_gids.is_empty()
    }
}

/// What `controller_uids` says of a user.
fn of_all_pools(uid: u32) -> Controller {
    Controller { uid, pools: None, subscriber: None, shared: false }
}

/// Checks `[access]` and the sections `[[controller]]`.
pub(super) fn check(
    access: file::Access,
    sections: Vec<file::Controller>,
    pools: &Pools,
    subscribers: &[(Arc<str>, Duration)],
) -> Result<Access, Fault> {
    let file::Access { admin_uids, admin_net_admin, controller_uids, reader_gids } = access;
    let listed: BTreeSet<u32> = controller_uids.into_iter().collect();
    let mut all: Vec<_> = listed.into_iter().map(of_all_pools).collect();
    for (index, section) in sections.into_iter().enumerate() {
        let file::Controller { uid, pools: names, subscriber, shared } = section;
        let refuse = |key: &str, what| {
            let error = CheckError::Setting { section: "[[controller]]", what };
            Err(at(format!("controller.{index}.{key}"))(error))
        };
        if all.iter().any(|known| known.uid == uid) {
            let what = format!("uid {uid} is a controller already; leave it in one place");
            return refuse("uid", what);
        }
        let mut own = Vec::with_capacity(names.len());
        for name in &names {
            let Some(pool) = pools.get(name) else {
                return refuse("pools", format!("uid {uid}: there is no [[pool]] {name:?}"));
            };
            own.push(Arc::clone(pool.name()));
        }
        let known = subscribers.iter().map(|(known, _)| known);
        let subscriber = match subscriber {
            None => None,
            Some(name) => match known.clone().find(|known| ***known == *name) {
                Some(known) => Some(Arc::clone(known)),
                None => {
                    let what = format!("uid {uid}: there is no [[subscriber]] {name:?}");
                    return refuse("subscriber", what);
                }
            },
        };
        let pools = (!own.is_empty()).then_some(own);
        all.push(Controller { uid, pools, subscriber, shared });
    }
    let controllers = all.into_iter().collect();
    Ok(Access { admin_uids, admin_net_admin, controllers, reader_gids })
}
