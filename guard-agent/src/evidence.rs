//! Evidence: a source's word that an address is in use.

use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{lease::Owner, mac::Mac, segment::Segment};

/// Who says it. A source may only ever add a reason to keep an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// A claim that the observer saw.
    Wire,
    /// The kernel: a bound port that exists, an address of the host.
    Kernel,
    /// The container runtime.
    Inventory,
    /// The controller's directory.
    Controller,
}

impl Source {
    /// The word for it in JSON, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Kernel => "kernel",
            Self::Inventory => "inventory",
            Self::Controller => "controller",
        }
    }
}

/// Where a claim came from: a MAC behind a port of the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Station {
    /// The MAC that the protocol named.
    pub mac: Mac,
    /// The port's name.
    pub interface: Arc<str>,
    /// The port's ifindex, which no other port of this boot gets.
    pub ifindex: u32,
}

/// One source's word about one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who says it.
    pub source: Source,
    /// For people: "claimed by ARP", "bound port exists", "container 3f2a… (running)".
    pub detail: String,
    /// The MAC and the port, where the source knows them.
    pub mac: Option<Mac>,
    /// The port's name, where the source knows it.
    pub interface: Option<Arc<str>>,
    /// The port's ifindex, where the source knows it.
    pub ifindex: Option<u32>,
    /// The owner, where the source names one.
    pub owner: Option<Owner>,
    /// What else that owner is known by: the container's id.
    pub id: Option<Arc<str>>,
    /// Which of several segments with this address is meant is not known: it keeps the address on each
    /// of them, and gives it to nobody on any.
    pub unsure: bool,
    /// Since when.
    pub since: Timestamp,
    /// How long ago it was last seen.
    pub age: Duration,
}

impl Evidence {
    /// Whether it names this owner. A source that tells no lifecycles apart names all of them.
    pub fn names(&self, owner: &Owner) -> bool {
        if self.id.as_ref() == Some(&owner.sandbox) {
            return true;
        }
        self.owner.as_ref().is_some_and(|Owner { sandbox, lifecycle }| {
            *sandbox == owner.sandbox && (lifecycle.is_empty() || *lifecycle == owner.lifecycle)
        })
    }
}

/// Answers from memory, without I/O, what is known of an address.
pub trait EvidenceView {
    /// All current evidence that the address is in use; empty if there is none.
    fn evidence(&self, segment: &Segment, address: IpAddr) -> Vec<Evidence>;

    /// All addresses of a segment with current evidence.
    fn addresses(&self, segment: &Segment) -> Vec<IpAddr>;

    /// All evidence that this owner exists, whatever its addresses are.
    fn owner(&self, owner: &Owner) -> Vec<Evidence>;

    /// Whether there is any evidence that the address is in use: for those who have many to ask for.
    fn is_live(&self, segment: &Segment, address: IpAddr) -> bool {
        !self.evidence(segment, address).is_empty()
    }

    /// Whether there is any evidence that this owner exists.
    fn knows(&self, owner: &Owner) -> bool {
        !self.owner(owner).is_empty()
    }

    /// Whether the port with this ifindex exists: it is evidence for the leases bound to it.
    fn port_exists(&self, ifindex: u32) -> bool;

    /// Whether an interface of the namespace has this name, or this alternative name.
    fn link_exists(&self, name: &str) -> bool;
}
