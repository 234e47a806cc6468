//! Evidence: a source's word that an address is in use, and whether all sources have been heard.
//! Nothing is removed from it but by the source that said it.

mod completeness;
mod entry;
mod inventory;
mod live;
mod poll;
mod source_index;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    completeness::{Answered, Completeness, EventStream},
    entry::{Death, Entry, Listing, Place, Unread, Unreadable},
    inventory::Inventory,
    live::{Claim, HostAddresses, Live, Strength},
    poll::{PollOutcome, PollResult, SandboxState},
    source_index::ListingDiff,
};
use crate::{mac::Mac, owner::Owner, segment::Segment};

/// The container runtime's name in the configuration.
pub const CONTAINERD: &str = "containerd";

/// The directory's name in the configuration.
pub const DIRECTORY: &str = "directory";

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
    /// The port's ifindex.
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

/// What a link is known by over a restart of the agent, where nothing else tells: interface numbers
/// repeat within a boot, and so do names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Device {
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The ifindex of the link that it is joined to (`IFLA_LINK`), a veth's other end.
    pub peer: Option<u32>,
    /// The id of the namespace that this one is in (`IFLA_LINK_NETNSID`), where it is another.
    pub netns: Option<i32>,
}

/// A port of a watched bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// Its name.
    pub interface: Arc<str>,
    /// The bridge it belongs to.
    pub bridge: Arc<str>,
    /// It leads to other hosts.
    pub uplink: bool,
}

/// What is not known (yet), so that the absence of evidence proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Unknown {
    /// Ports, maps, host addresses and sources are being read for the first time.
    #[error("the boot pass has not ended")]
    Boot,
    /// A bridge does not exist, or is not watched.
    #[error("bridge {0} is not there to be watched")]
    Bridge(Arc<str>),
    /// A source has not listed all that it knows since then.
    #[error("{0} has not answered completely since")]
    Source(&'static str),
}

/// What has changed since the engine last looked. The view itself says what is true now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Links that have ended, by ifindex: the next link with that number is another one.
    pub ended: BTreeSet<u32>,
    /// Ports that are new, or have another name or bridge.
    pub ports: BTreeSet<u32>,
    /// The host has other addresses.
    pub hosts: bool,
    /// Of these addresses something else is known.
    pub places: BTreeSet<(Segment, IpAddr)>,
    /// A source lists others than before, perhaps owners whose addresses it does not know.
    pub owners: bool,
    /// More is known than before: what waits for that is looked at again.
    pub known: bool,
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds others.
    pub fn add(&mut self, others: Self) {
        let Self { ended, ports, hosts, places, owners, known } = others;
        self.ended.extend(ended);
        self.ports.extend(ports);
        self.places.extend(places);
        self.hosts |= hosts;
        self.owners |= owners;
        self.known |= known;
    }

    /// Only this address.
    pub fn of(segment: Segment, address: IpAddr) -> Self {
        Self { places: BTreeSet::from([(segment, address)]), ..Self::default() }
    }
}

/// What is known of an address, looked up in memory without I/O.
pub trait EvidenceView {
    /// All current evidence that the address is in use; empty if there is none.
    fn evidence(&self, segment: &Segment, address: IpAddr) -> Vec<Evidence>;

    /// For how long still somebody who has probed for an address keeps it from being handed out. That is
    /// no evidence of use (claims.md A05, N03).
    fn held_back(&self, segment: &Segment, address: IpAddr) -> Option<Duration>;

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

    /// Whether the link exists that leases with this ifindex are bound to, whatever its name and its
    /// bridge are now: it is evidence for them. False from its end on, also where another link has the
    /// number by now, until the engine has looked at [`Changes::ended`].
    fn port_exists(&self, ifindex: u32) -> bool;

    /// The port of a watched bridge with this ifindex.
    fn port(&self, ifindex: u32) -> Option<PortName>;

    /// The name that a port has now, for people: what is stored of it is the name that it had.
    fn name_now(&self, ifindex: u32) -> Option<Arc<str>> {
        self.port(ifindex).map(|port| port.interface)
    }

    /// The port of a bridge that has this name now.
    fn port_named(&self, bridge: &str, interface: &str) -> Option<u32>;

    /// What a link is known by over a restart.
    fn device(&self, ifindex: u32) -> Option<Device>;

    /// The host's own addresses on a segment.
    fn hosts(&self, segment: &Segment) -> Vec<IpAddr>;

    /// Whether all that was in use on a segment at that moment on `CLOCK_BOOTTIME` or since, and still
    /// is, is known: only then does the absence of evidence prove anything.
    ///
    /// # Errors
    /// What is not known.
    fn complete(&self, segment: &Segment, since: Duration) -> Result<(), Unknown>;

    /// Whether an interface of the namespace has this name, or this alternative name.
    fn link_exists(&self, name: &str) -> bool;
}
