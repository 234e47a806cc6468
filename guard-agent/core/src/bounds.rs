//! How long and how many: what a call, a listing or a file that somebody names may have. One table,
//! for the agent and for the programs that call it.

use std::fmt;

/// The most of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// So many.
    pub most: usize,
    /// Of these.
    pub of: &'static str,
}

/// There is more than a bound allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: more than {} {}", .bound.most, .bound.of)]
pub struct TooMuch {
    /// What has too much.
    pub object: String,
    /// Of what, and how much it may have.
    pub bound: Bound,
}

/// A name: of a sandbox, a lifecycle, a key, an interface, a subscriber.
pub const NAME: Bound = Bound::new(253, "bytes");
/// A workload: of a pod of Kubernetes that is a namespace of up to 63 bytes and a name of up to 253.
pub const WORKLOAD: Bound = Bound::new(512, "bytes");
/// The labels of a lease.
pub const LABELS: Bound = Bound::new(64, "labels");
/// The key of a label.
pub const LABEL_KEY: Bound = Bound::new(63, "bytes");
/// The value of a label.
pub const LABEL_VALUE: Bound = Bound::new(253, "bytes");
/// The pools of one allocation.
pub const POOLS: Bound = Bound::new(32, "pools");
/// Interface names that are reserved by one prefix.
pub const INTERFACES: Bound = Bound::new(16_384, "interface names");
/// Those of all prefixes that one user has reserved.
pub const INTERFACES_OF_ONE: Bound = Bound::new(65_536, "interface names");
/// What a source lists at once: more than any node has.
pub const LISTED: Bound = Bound::new(100_000, "entries");
/// A configuration: the agent's, a network's, the settings of a replay.
pub const CONFIGURATION: Bound = Bound::new(1 << 20, "bytes");
/// What resolv.conf(5) is read from.
pub const RESOLV_CONF: Bound = Bound::new(64 << 10, "bytes");
/// A file of `host-local`, which has two lines.
pub const RESERVATION: Bound = Bound::new(4 << 10, "bytes");
/// The files of one network of `host-local`.
pub const RESERVATIONS: Bound = Bound::new(100_000, "files");
/// A database that is handed in, with its log: it is copied.
pub const DATABASE: Bound = Bound::new(4 << 30, "bytes");

impl Bound {
    const fn new(most: usize, of: &'static str) -> Self {
        Self { most, of }
    }

    /// Whether an object may have so much.
    ///
    /// # Errors
    /// It may not: names it, and the bound.
    pub fn check(self, object: impl fmt::Display, has: usize) -> Result<(), TooMuch> {
        if has > self.most { Err(self.exceeded(object)) } else { Ok(()) }
    }

    /// An object has more.
    #[must_use]
    pub fn exceeded(self, object: impl fmt::Display) -> TooMuch {
        TooMuch { object: object.to_string(), bound: self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_object_and_its_bound() {
        assert_eq!(POOLS.check("the allocation", POOLS.most), Ok(()));
        let error = POOLS.check("the allocation", POOLS.most + 1).unwrap_err();
        assert_eq!(error.to_string(), "the allocation: more than 32 pools");
    }
}
