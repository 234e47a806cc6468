//! What can be asked of the engine, and what it returns.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{
    evidence::Changes,
    lease::{Caller, Generation, InterfaceName, Lease, Owner, Pools, State, Subnet},
    mac::Mac,
    segment::Segment,
};

/// One request to the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Another command on somebody's behalf, as far as it may; without this one it is the agent's own.
    For(Caller, Box<Command>),
    /// Hand out an address from each pool, all or none.
    Allocate(Allocate),
    /// The sandbox runs.
    Confirm(Generation),
    /// Declare who may use the address. The caller has resolved the port.
    Bind {
        /// Which lease.
        generation: Generation,
        /// The only MAC; none leaves an earlier one.
        mac: Option<Mac>,
        /// The only port (name, ifindex); none leaves an earlier one.
        port: Option<(Arc<str>, u32)>,
    },
    /// Give back one lease.
    Release(Generation),
    /// Give back one lease, whose sandbox the caller infers to be gone; not while anything says that
    /// it is there.
    ReleaseGone(Generation),
    /// Give back all leases of an owner; without a lifecycle only where just one has leases.
    ReleaseOwner {
        /// The sandbox's name.
        sandbox: Arc<str>,
        /// One run of it.
        lifecycle: Option<Arc<str>>,
    },
    /// What a lease that was given back still binds is over: its address is nobody's, until it is free.
    Cut(Generation),
    /// End a lease on an operator's word. A live address goes to `releasing`, never to free.
    ForceRelease {
        /// The segment.
        segment: Segment,
        /// The address.
        address: IpAddr,
    },
    /// A subscriber is done with what it had to undo for this lease.
    AckHold {
        /// Which lease.
        generation: Generation,
        /// The subscriber's name in the configuration.
        subscriber: Arc<str>,
    },
    /// From now on released addresses wait for these subscribers, each at most so long.
    Subscribers(Vec<(Arc<str>, Duration)>),
    /// From now on the pools, which are the same, have these settings.
    Pools(Pools),
    /// Take over a lease that another allocator gave.
    Adopt {
        /// The pool's name.
        pool: Arc<str>,
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: Owner,
        /// The interface key.
        key: Arc<str>,
    },
    /// Something else is known of these: look at them again.
    Look(Changes),
    /// Look at every lease and every live address again: at boot, and as the net beneath.
    RecheckAll,
    /// Generations up to this one were handed out, whatever the store says.
    RaiseGeneration(Generation),
    /// An operator takes an address that nobody has out of use.
    Quarantine {
        /// The segment.
        segment: Segment,
        /// The address.
        address: IpAddr,
    },
    /// An operator ends an operator's quarantine.
    Unquarantine {
        /// The segment.
        segment: Segment,
        /// The address.
        address: IpAddr,
    },
    /// Carve a child subnet out of a pool.
    ReserveSubnet(ReserveSubnet),
    /// Give a child subnet's addresses back to the pool.
    ReleaseSubnet(WhichSubnet),
    /// Take the lowest free interface name with this prefix.
    ReserveInterface {
        /// What the name begins with; a number follows.
        prefix: Arc<str>,
        /// Who asks: with the same prefix it gets the same name.
        id: Arc<str>,
    },
    /// Give an interface name back.
    ReleaseInterface(Arc<str>),
    /// A pass of the reconciler has compared leases with what is in use.
    CountMisses(CountMisses),
    /// Give back those of these leases that are at the threshold and that still nothing speaks for.
    Reap {
        /// Which leases.
        generations: Vec<Generation>,
        /// How many misses it takes.
        threshold: u32,
        /// When the leases were read, on `CLOCK_BOOTTIME`: all that is known has to be of later.
        since: Duration,
    },
    /// Let deadlines that have passed take effect.
    Tick,
}

/// What a pass of the reconciler has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountMisses {
    /// Leases that nothing speaks for.
    pub silent: Vec<Generation>,
    /// Leases that something speaks for.
    pub seen: Vec<Generation>,
    /// When the pass began, on `CLOCK_BOOTTIME`.
    pub started: Duration,
    /// When it had read the leases: all that is known has to be of later.
    pub since: Duration,
    /// A lease gets no second miss before this much time has passed since its last one.
    pub interval: Duration,
    /// Misses beyond this many are not counted.
    pub threshold: u32,
}

/// The arguments of carving a child subnet out of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveSubnet {
    /// The parent.
    pub pool: Arc<str>,
    /// Who asks: whoever asks again gets the same subnet.
    pub id: Arc<str>,
    /// The length of the prefix.
    pub length: u8,
    /// This prefix and no other; host bits do not count.
    pub prefix: Option<IpNet>,
}

/// Names a child subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichSubnet {
    /// By its identifier.
    Id(Arc<str>),
    /// By its prefix, which several bridges can have.
    Prefix {
        /// The prefix; host bits do not count.
        prefix: IpNet,
        /// The parent's name, where the prefix alone does not tell.
        pool: Option<Arc<str>>,
    },
}

/// The arguments of an allocation.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Allocate {
    /// One lease from each.
    pub pools: Vec<Arc<str>>,
    /// The sandbox's name.
    pub sandbox: Arc<str>,
    /// One run of it; may be empty.
    pub lifecycle: Arc<str>,
    /// Tells several interfaces of one sandbox apart.
    pub key: Arc<str>,
    /// This address and no other.
    pub address: Option<IpAddr>,
    /// Declares the binding's MAC.
    pub mac: Option<Mac>,
    /// Declares the binding's port.
    pub interface: Option<Arc<str>>,
    /// The controller's own words.
    pub labels: BTreeMap<String, String>,
    /// It is confirmed with this very command.
    pub confirmed: bool,
    /// What the sandbox is one run of; may be empty.
    pub workload: Arc<str>,
}

/// The reply to a command that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Allocate: the leases in the order of the pools. Confirm and Bind: the one lease.
    /// `CountMisses`: those that are silent still. Reap: those that were given back, as they are
    /// now.
    Leases(Vec<Arc<Lease>>),
    /// Release: what became of the address, or the furthest from free of several; the rows after.
    Released(State, Vec<Arc<Lease>>),
    /// The child subnet that was reserved or released.
    Subnet(Arc<Subnet>),
    /// The interface name that was reserved or released.
    Interface(Arc<InterfaceName>),
    /// The generation or the owner is not the lease's any more.
    Stale,
    /// No such lease, subnet or name.
    NotFound,
    /// Nothing to say.
    Done,
}

/// Why a command was refused. Nothing changed, except that candidates which turned out to be live
/// are quarantined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The name that clients test for.
    pub reason: Reason,
    /// The object, the reason and what to do.
    pub message: String,
    /// Where waiting helps, for how long.
    pub retry_after: Option<Duration>,
}

/// The names of refusals, as `interface.md` fixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Only live addresses were left to try.
    NoConflictFreeAddress,
    /// No address is free.
    PoolExhausted,
    /// The requested address is in use.
    AddressLive,
    /// The requested address is leased to another.
    AddressHeld,
    /// The requested address is cooling down.
    AddressCooling,
    /// The requested address is quarantined.
    AddressQuarantined,
    /// The same asker has another address or another MAC.
    OwnerHasLease,
    /// The requested address is in none of the pools.
    AddressOutsidePool,
    /// Network, broadcast, gateway or host address.
    AddressReserved,
    /// The configuration excludes it.
    AddressExcluded,
    /// The lease, the pool or the subscriber is another controller's.
    NotYours,
    /// Several lifecycles of the sandbox hold leases.
    AmbiguousOwner,
    /// No pool has this name.
    PoolUnknown,
    /// No aligned block of the length is free.
    SubnetExhausted,
    /// The identifier has another child subnet.
    SubnetHeld,
    /// Another child subnet has a part of the requested prefix.
    SubnetOverlaps,
    /// An address of the requested prefix is leased, resting or quarantined.
    SubnetLeased,
    /// An address of the requested prefix is in use.
    SubnetLive,
    /// The requested prefix has an address that the pool never hands out.
    SubnetReserved,
    /// The requested prefix is not inside the pool.
    SubnetOutsidePool,
    /// The length is none that the pool can be divided by, or is not the prefix's.
    SubnetMalformed,
    /// The prefix is a child subnet on several bridges.
    SubnetAmbiguous,
    /// All names with the prefix that an interface can have are taken.
    NameExhausted,
    /// No interface can have a name with this prefix.
    NameMalformed,
    /// The store is lost, unreadable or at odds with the index.
    StoreDamaged,
    /// The store cannot be written at the moment.
    StoreUnwritable,
    /// There is nothing to recover.
    StoreHealthy,
    /// No mass release waits for this consent.
    ConsentUnknown,
    /// The watchdog is off, or has nobody to ask.
    WatchdogOff,
    /// Not all that may be in use is known: the boot pass has not ended.
    Starting,
    /// Nor is it known while the bridge does not exist.
    BridgeAbsent,
    /// Nor before a source has answered.
    InventoryDegraded,
    /// The agent is ending.
    Stopping,
}

/// What changed, told after it is on disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The address has (again) a row; it is not free.
    Put(Arc<Lease>),
    /// The address is free again.
    Free(Arc<Lease>),
}

impl Reason {
    /// Whether the store is what stands in the way.
    pub fn is_store(self) -> bool {
        matches!(self, Self::StoreDamaged | Self::StoreUnwritable)
    }

    /// The name of the refusal on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoConflictFreeAddress => "NO_CONFLICT_FREE_ADDRESS",
            Self::PoolExhausted => "POOL_EXHAUSTED",
            Self::AddressLive => "ADDRESS_LIVE",
            Self::AddressHeld => "ADDRESS_HELD",
            Self::AddressCooling => "ADDRESS_COOLING",
            Self::AddressQuarantined => "ADDRESS_QUARANTINED",
            Self::OwnerHasLease => "OWNER_HAS_LEASE",
            Self::AddressOutsidePool => "ADDRESS_OUTSIDE_POOL",
            Self::AddressReserved => "ADDRESS_RESERVED",
            Self::AddressExcluded => "ADDRESS_EXCLUDED",
            Self::NotYours => "NOT_YOURS",
            Self::AmbiguousOwner => "AMBIGUOUS_OWNER",
            Self::PoolUnknown => "POOL_UNKNOWN",
            Self::SubnetExhausted => "SUBNET_EXHAUSTED",
            Self::SubnetHeld => "SUBNET_HELD",
            Self::SubnetOverlaps => "SUBNET_OVERLAPS",
            Self::SubnetLeased => "SUBNET_LEASED",
            Self::SubnetLive => "SUBNET_LIVE",
            Self::SubnetReserved => "SUBNET_RESERVED",
            Self::SubnetOutsidePool => "SUBNET_OUTSIDE_POOL",
            Self::SubnetMalformed => "SUBNET_MALFORMED",
            Self::SubnetAmbiguous => "SUBNET_AMBIGUOUS",
            Self::NameExhausted => "NAME_EXHAUSTED",
            Self::NameMalformed => "NAME_MALFORMED",
            Self::StoreDamaged => "STORE_DAMAGED",
            Self::StoreUnwritable => "STORE_UNWRITABLE",
            Self::StoreHealthy => "STORE_HEALTHY",
            Self::ConsentUnknown => "CONSENT_UNKNOWN",
            Self::WatchdogOff => "WATCHDOG_OFF",
            Self::Starting => "STARTING",
            Self::BridgeAbsent => "BRIDGE_ABSENT",
            Self::InventoryDegraded => "INVENTORY_DEGRADED",
            Self::Stopping => "STOPPING",
        }
    }
}

impl Refusal {
    /// A refusal that waiting does not cure.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }
}
