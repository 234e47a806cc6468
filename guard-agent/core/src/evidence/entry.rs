//! What a source lists, one entry for each container or sandbox.

use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::owner::Owner;

/// One thing that a source lists: a container, or a sandbox of the controller's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Whose it is. Without a name where the source says none that a lease could be held under.
    pub owner: Owner,
    /// What else an owner may be known by: the container's id. Empty where there is nothing.
    pub id: Arc<str>,
    /// The addresses that it is said to have.
    pub addresses: Vec<IpAddr>,
    /// One of the labels or fields that are meant for us names it.
    pub labelled: bool,
    /// The owner's name is that of a sandbox, and not the container's id for want of one.
    pub named: bool,
    /// It has ended: no evidence, but an answer to whoever asks what became of it.
    pub dead: Option<Death>,
    /// For people.
    pub detail: Arc<str>,
    /// Since when it exists, or is dead: what the source says, or else when it was first listed.
    pub since: Timestamp,
    /// What of it could not be read. There it keeps what it said before.
    pub unread: Unread,
    /// Where it is, if one of its addresses can be on several segments.
    pub place: Place,
}

/// The network namespace of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// It does not matter: its addresses are on one segment each.
    #[default]
    Clear,
    /// It is not known, or no link of ours leads to it.
    Unknown,
    /// The namespace with this id in the agent's own (`RTM_GETNSID`).
    Netns(i32),
}

/// What is known of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Death {
    /// When it was first listed, on `CLOCK_BOOTTIME`. It is no earlier than the end itself.
    pub listed: Duration,
    /// When it was by the source's clock, if the source says so.
    pub at: Option<Timestamp>,
}

/// Which parts of an entry could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unread {
    /// Whose it is.
    pub owner: bool,
    /// One of its addresses.
    pub addresses: bool,
}

/// An entry that could not be read, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The container's id or the sandbox's name, cut where it is long. Empty where it has none.
    pub entry: Arc<str>,
    /// Whose it is, where that could be read.
    pub owner: Option<Owner>,
    /// What is wrong with it, for people.
    pub why: Arc<str>,
}

/// An answer of a source that was read to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All that it lists, as far as it can be read.
    pub entries: Vec<Entry>,
    /// What cannot. That concerns these entries, not the answer.
    pub unreadable: Vec<Unreadable>,
}

impl Entry {
    /// Whether it speaks for an owner. One that names no lifecycle speaks for all of the sandbox, and
    /// one without any name may be anybody's.
    pub fn speaks_for(&self, owner: &Owner) -> bool {
        if *self.id == *owner.sandbox || self.is_nameless() {
            return true;
        }
        let Owner { sandbox, lifecycle } = &self.owner;
        *sandbox == owner.sandbox && (lifecycle.is_empty() || *lifecycle == owner.lifecycle)
    }

    /// Whether nothing says which container or sandbox it is.
    pub fn is_nameless(&self) -> bool {
        self.id.is_empty() && self.owner.sandbox.is_empty()
    }

    /// Whether it is another answer about the same container or sandbox.
    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && (!self.id.is_empty() || self.owner == other.owner)
    }

    /// Whether it takes anything from what was said of it before.
    pub(super) fn needs_former(&self) -> bool {
        let Unread { owner, addresses } = self.unread;
        (owner || addresses) && !self.is_nameless()
    }

    /// Keeps what it said before in those parts that cannot be read now.
    pub(super) fn keep_former(&mut self, all: &[Self]) {
        let Some(former) = all.iter().find(|former| former.is_same(self)) else { return };
        if self.unread.owner && former.named {
            self.owner = former.owner.clone();
            self.named = true;
        }
        if self.unread.addresses {
            self.addresses.extend_from_slice(&former.addresses);
            self.addresses.sort();
            self.addresses.dedup();
        }
    }
}
