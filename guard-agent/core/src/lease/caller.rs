//! On whose behalf a command is carried out, and which controller may do what to which lease.

use std::{fmt, sync::Arc};

use super::{
    InterfaceName, Lease, Subnet,
    command::{Reason, Refusal},
};

/// A user that hands out and takes back leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its number.
    pub uid: u32,
    /// The pools that are its own; `None`: all.
    pub pools: Option<Vec<Arc<str>>>,
    /// The subscriber whose holds it acknowledges.
    pub subscriber: Option<Arc<str>>,
    /// Other controllers of a pool may do to its leases there what it may.
    pub shared: bool,
}

/// All controllers of the configuration, each user once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controllers(Arc<[Controller]>);

impl FromIterator<Controller> for Controllers {
    fn from_iter<I: IntoIterator<Item = Controller>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Controllers {
    /// The controller that a user is.
    pub fn get(&self, uid: u32) -> Option<&Controller> {
        self.0.iter().find(|controller| controller.uid == uid)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Controller> {
        self.0.iter()
    }
}

/// On whose behalf a command is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// The agent's own.
    #[default]
    Agent,
    /// An administrator's, by its user.
    Administrator(u32),
    /// That of a user who is one of these controllers.
    Controller(u32, Controllers),
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act<'a> {
    /// Take an address or a subnet from this pool.
    Pool(&'a str),
    /// Change a lease, or have it given once more.
    Lease {
        /// Its pool.
        pool: &'a str,
        /// Who made it, where that is known.
        maker: Option<u32>,
    },
    /// Give a child subnet back, or have it given once more.
    Subnet {
        /// Its parent.
        pool: &'a str,
        /// Who made it, where that is known.
        maker: Option<u32>,
    },
    /// Give the name of an interface back, or have it given once more.
    Interface {
        /// The name.
        name: &'a str,
        /// Who made it, where that is known.
        maker: Option<u32>,
    },
    /// Speak for this subscriber.
    Subscriber(&'a str),
}

impl fmt::Display for Act<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool)
            | Self::Lease { pool, maker: None }
            | Self::Subnet { pool, maker: None } => write!(f, "pool {pool:?}"),
            Self::Lease { pool, maker: Some(maker) } => {
                write!(f, "the lease that uid {maker} has made in pool {pool:?}")
            }
            Self::Subnet { pool, maker: Some(maker) } => {
                write!(f, "the subnet that uid {maker} has made in pool {pool:?}")
            }
            Self::Interface { name, maker } => {
                write!(f, "the name {name:?}")?;
                maker.map_or(Ok(()), |maker| write!(f, " that uid {maker} has reserved"))
            }
            Self::Subscriber(subscriber) => write!(f, "subscriber {subscriber:?}"),
        }
    }
}

impl Caller {
    /// Whose a lease, a subnet or a name is that is made on its behalf.
    pub(super) fn maker(&self) -> Option<u32> {
        match self {
            Self::Agent => None,
            Self::Administrator(uid) | Self::Controller(uid, _) => Some(*uid),
        }
    }

    /// Whether it may do this.
    ///
    /// A lease, a subnet or a name is its maker's. It is also that of each other controller, one of its
    /// pool where it has one, where its maker is not known, or is a controller that shares. A subscriber
    /// that no controller names is everyone's.
    pub fn may(&self, act: Act<'_>) -> bool {
        let Self::Controller(uid, all) = self else { return true };
        let Some(own) = all.get(*uid) else { return false };
        let has = |name: &str| {
            own.pools.as_ref().is_none_or(|pools| pools.iter().any(|pool| **pool == *name))
        };
        let is_own = |maker: Option<u32>| maker == Some(*uid);
        let is_free = |maker: Option<u32>| {
            maker.is_none_or(|maker| all.get(maker).is_some_and(|other| other.shared))
        };
        match act {
            Act::Pool(pool) => has(pool),
            Act::Lease { pool, maker } | Act::Subnet { pool, maker } => {
                is_own(maker) || has(pool) && is_free(maker)
            }
            Act::Interface { name: _, maker } => is_own(maker) || is_free(maker),
            Act::Subscriber(name) => {
                let is = |controller: &Controller| controller.subscriber.as_deref() == Some(name);
                is(own) || !all.iter().any(is)
            }
        }
    }

    /// As [`Self::may`], with the refusal.
    ///
    /// # Errors
    /// It is another's.
    pub fn check(&self, act: Act<'_>) -> Result<(), Refusal> {
        if self.may(act) {
            return Ok(());
        }
        let uid = self.maker().map_or_else(String::new, |uid| format!("uid {uid}'s"));
        let message = format!("{act} is not {uid}: [[controller]] in the agent's configuration");
        Err(Refusal::new(Reason::NotYours, message))
    }
}

impl Lease {
    /// What changes it, for [`Caller::may`].
    pub fn act(&self) -> Act<'_> {
        Act::Lease { pool: &self.pool, maker: self.maker }
    }
}

impl Subnet {
    /// What gives it back or once more, for [`Caller::may`].
    pub(super) fn act(&self) -> Act<'_> {
        Act::Subnet { pool: &self.pool, maker: self.maker }
    }
}

impl InterfaceName {
    /// What gives it back or once more, for [`Caller::may`].
    pub(super) fn act(&self) -> Act<'_> {
        Act::Interface { name: &self.name, maker: self.maker }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(uid: u32, pools: &[&str], subscriber: &str, shared: bool) -> Controller {
        let pools = pools.iter().map(|pool| Arc::from(*pool)).collect::<Vec<_>>();
        Controller {
            uid,
            pools: (!pools.is_empty()).then_some(pools),
            subscriber: (!subscriber.is_empty()).then(|| Arc::from(subscriber)),
            shared,
        }
    }

    #[test]
    fn who_may_do_what() {
        let all: Controllers = [
            controller(1, &["a"], "proxy", false),
            controller(2, &[], "", false),
            controller(3, &["a"], "", true),
            controller(4, &["b"], "firewall", false),
            controller(5, &["a"], "proxy", false),
        ]
        .into_iter()
        .collect();
        let lease = |pool, maker| Act::Lease { pool, maker };
        let subnet = |pool, maker| Act::Subnet { pool, maker };
        let name = |maker| Act::Interface { name: "veth0", maker };
        // Of the controllers 1 to 5, and of 6, which is none.
        let rows = [
            (Act::Pool("a"), [true, true, true, false, true, false]),
            (Act::Pool("b"), [false, true, false, true, false, false]),
            // Its maker's.
            (lease("a", Some(1)), [true, false, false, false, false, false]),
            (lease("a", Some(2)), [false, true, false, false, false, false]),
            // Also where the pool is not its maker's any more.
            (lease("b", Some(1)), [true, false, false, false, false, false]),
            // Of one that shares; of others with that pool.
            (lease("a", Some(3)), [true, true, true, false, true, false]),
            (lease("b", Some(3)), [false, true, true, true, false, false]),
            // Of nobody who is known; of an administrator; of one who was a controller once.
            (lease("a", None), [true, true, true, false, true, false]),
            (lease("b", None), [false, true, false, true, false, false]),
            (lease("a", Some(0)), [false; 6]),
            (lease("a", Some(9)), [false; 6]),
            // A subnet as a lease, and a name, which has no pool.
            (subnet("b", Some(1)), [true, false, false, false, false, false]),
            (subnet("b", Some(3)), [false, true, true, true, false, false]),
            (subnet("a", None), [true, true, true, false, true, false]),
            (name(Some(1)), [true, false, false, false, false, false]),
            (name(Some(3)), [true, true, true, true, true, false]),
            (name(None), [true, true, true, true, true, false]),
            (name(Some(0)), [false; 6]),
            // Two may have one subscriber, and one may be nobody's.
            (Act::Subscriber("proxy"), [true, false, false, false, true, false]),
            (Act::Subscriber("firewall"), [false, false, false, true, false, false]),
            (Act::Subscriber("other"), [true, true, true, true, true, false]),
        ];
        for (act, may) in rows {
            for (uid, may) in (1..).zip(may) {
                let caller = Caller::Controller(uid, all.clone());
                assert_eq!(caller.may(act), may, "uid {uid}: {act}");
                let refused = caller.check(act).err().map(|refusal| refusal.reason);
                assert_eq!(refused, (!may).then_some(Reason::NotYours));
            }
            assert!(Caller::Administrator(7).may(act) && Caller::Agent.may(act), "{act}");
        }
    }
}
