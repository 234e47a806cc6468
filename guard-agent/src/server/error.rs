//! Refusals as gRPC statuses: a status, an `ErrorInfo`, and where waiting helps a `RetryInfo`.

use std::{path::Path, sync::Arc, time::Duration};

use guard_core::{
    bounds::TooMuch,
    lease::command::{Reason, Refusal, Reply},
};
use ipnet::IpNet;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{access::Role, binding::Unbindable};
use crate::{
    enforcement::ModeError,
    health::Degraded,
    inventory::{Awaited, IgnoreError, host_local::HostLocalError},
    observer::EnsureError,
    store::StoreError,
};

/// `ErrorInfo.domain`.
const DOMAIN: &str = "guard.v1";
/// How soon what is starting or degraded may be over.
const SOON: Duration = Duration::from_secs(1);

/// Why nothing is handed out, whatever is asked for.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The boot pass is not over.
    #[error("the agent is starting: nothing is handed out before it has seen what is in use")]
    Starting,
    /// The pool's bridge does not exist.
    #[error("pool {pool:?}: bridge {bridge:?}: {why}")]
    BridgeAbsent {
        /// Which pool.
        pool: Arc<str>,
        /// Which bridge.
        bridge: Arc<str>,
        /// Since when and why.
        why: String,
    },
    /// No port is in the pool's VLAN.
    #[error("pool {pool:?}: {why}")]
    VlanAbsent {
        /// Which pool.
        pool: Arc<str>,
        /// On which bridge, and in which VLAN.
        why: String,
    },
    /// There is no store to write to.
    #[error("{0}")]
    Store(Refusal),
    /// The inventory or the directory has not answered completely, or not for too long.
    #[error(
        "source {}: {}; nothing is handed out meanwhile (allocate.source_stale, \
         allocate.when_degraded)",
        .0.name, .0.why
    )]
    InventoryDegraded(Awaited),
    /// The observer does not see all.
    #[error("{}: {}; nothing is handed out meanwhile (allocate.when_degraded)", .0.what, .0.why)]
    ObserverDegraded(Degraded),
}

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Not an address.
    #[error("address {0:?} is not an IP address")]
    Address(String),
    /// Not a MAC, or one that no host can have.
    #[error("mac {0:?} is not the MAC address of a host; write it as 02:00:00:00:00:0a")]
    Mac(String),
    /// No interface can have this name.
    #[error(
        "interface {0:?} is not a name that an interface can have: 1 to 15 bytes without spaces, '/' \
         and ':'; name the host's side of the veth"
    )]
    Interface(String),
    /// Not a name.
    #[error(
        "{field} {value:?} is not a name: {least} to {most} printable ASCII characters without spaces"
    )]
    Name {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// The shortest it may be.
        least: usize,
        /// The longest it may be.
        most: usize,
    },
    /// Not a prefix.
    #[error("prefix {0:?} is not a prefix; write it as 10.8.64.16/28")]
    Prefix(String),
    /// An address with the length of its prefix.
    #[error("prefix {net} is an address within {meant}; ask for {meant}, if that is meant")]
    HostBits {
        /// What was written.
        net: IpNet,
        /// What it is in.
        meant: IpNet,
    },
    /// Longer than any address.
    #[error("no prefix has a length of {0}")]
    Length(u32),
    /// Nothing is asked for.
    #[error("{0}")]
    Missing(&'static str),
    /// A page of some other list.
    #[error(
        "page_token is not one of this list: send the next_page_token of the answer before as it is, \
         and everything else as in that call; without a token the list begins anew"
    )]
    PageToken,
    /// A call about a lease that names none.
    #[error("{0} names no generation")]
    Generation(&'static str),
    /// No state of a lease.
    #[error(
        "state {0} is none that a lease has: held, active, releasing, cooling or quarantined; a free \
         address has no lease"
    )]
    State(i32),
    /// More than a call can have of something.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// A path that depends on who reads it.
    #[error("path {0:?} is not absolute")]
    Path(String),
    /// A pool twice in one call.
    #[error("pool {0:?} is named twice; one call gives one lease from each pool")]
    PoolTwice(String),
}

/// A length of time as a caller says it. The least one cannot be negated, as the conversion would.
pub(super) fn to_span(span: prost_types::Duration) -> Result<Duration, Invalid> {
    let negative = || Invalid::Missing("duration is negative");
    if span.seconds < 0 || span.nanos < 0 {
        return Err(negative());
    }
    span.try_into().map_err(|_| negative())
}

fn status(code: Code, reason: &str, message: String, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, brief(message), details)
}

/// A message that fits the header that it is sent in: of a longer one, as the kernel's verifier
/// writes them, the beginning and the end, where the reason is.
pub(super) fn brief(message: String) -> String {
    const HEAD: usize = 512;
    const TAIL: usize = 1536;
    if message.len() <= HEAD + TAIL {
        return message;
    }
    let head = message.floor_char_boundary(HEAD);
    let tail = message.ceil_char_boundary(message.len() - TAIL);
    format!("{} … {}", &message[..head], &message[tail..])
}

impl From<Closed> for Status {
    fn from(closed: Closed) -> Self {
        let reason = match closed {
            Closed::Starting => "STARTING",
            Closed::BridgeAbsent { .. } => "BRIDGE_ABSENT",
            Closed::VlanAbsent { .. } => "VLAN_ABSENT",
            // It knows whether waiting helps.
            Closed::Store(refusal) => return refused(refusal),
            Closed::InventoryDegraded(_) => "INVENTORY_DEGRADED",
            Closed::ObserverDegraded(_) => "OBSERVER_DEGRADED",
        };
        status(Code::Unavailable, reason, closed.to_string(), Some(SOON))
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let reason = match invalid {
            Invalid::Address(_) => "ADDRESS_MALFORMED",
            Invalid::Mac(_) => "MAC_MALFORMED",
            Invalid::Interface(_) => "INTERFACE_MALFORMED",
            Invalid::Name { field: "id", .. } => "ID_MALFORMED",
            Invalid::Name { .. } => "OWNER_MALFORMED",
            Invalid::Prefix(_) | Invalid::HostBits { .. } | Invalid::Length(_) => {
                Reason::SubnetMalformed.name()
            }
            Invalid::PageToken => "PAGE_TOKEN",
            Invalid::Missing(_)
            | Invalid::PoolTwice(_)
            | Invalid::Path(_)
            | Invalid::TooMuch(_)
            | Invalid::Generation(_)
            | Invalid::State(_) => "REQUEST_MALFORMED",
        };
        status(Code::InvalidArgument, reason, invalid.to_string(), None)
    }
}

/// The caller is not one of those who may.
pub(super) fn role_required(path: &str, required: Role, uid: Option<u32>, hint: &str) -> Status {
    let (role, key) = (required.name(), required.key());
    let caller = uid.map_or_else(|| "the caller".to_owned(), |uid| format!("uid {uid}"));
    let message = format!(
        "{} wants the role {role}, which {caller} does not have: {key} in the agent's \
         configuration gives it{hint}",
        method(path)
    );
    let metadata = [("role".to_owned(), role.to_owned()), ("setting".to_owned(), key.to_owned())];
    let details = ErrorDetails::with_error_info("ROLE_REQUIRED", DOMAIN, metadata);
    Status::with_error_details(Code::PermissionDenied, message, details)
}

/// The caller has as many calls open as it may have.
pub(super) fn too_many_calls(most: u32) -> Status {
    let message = format!("{most} calls are open already; end some, or wait for their answers");
    status(Code::ResourceExhausted, "TOO_MANY_CALLS", message, Some(SOON))
}

/// There is no place for one more large answer.
pub(super) fn too_much_work() -> Status {
    let message = "so many answers are being made or read already that there was no place for this one; \
                   read what you have asked for, or ask later";
    status(Code::ResourceExhausted, "TOO_MUCH_WORK", message.to_owned(), Some(SOON))
}

/// The request is longer than any that makes sense.
pub(super) fn too_large(most: usize) -> Status {
    let message = format!("the request is longer than {most} bytes");
    status(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message, None)
}

/// The agent stops: a stream ends, and another agent may go on with it.
pub(super) fn stopping() -> Status {
    let message = "the agent stops; ask the next one, for the events after the last that came";
    status(Code::Unavailable, "STOPPING", message.to_owned(), Some(SOON))
}

/// Nobody waits for this subscriber.
pub(super) fn subscriber_unknown(name: &str) -> Status {
    let message = format!(
        "there is no [[subscriber]] {name:?} in the agent's configuration, and the lease does not wait \
         for one"
    );
    status(Code::NotFound, "SUBSCRIBER_UNKNOWN", message, None)
}

/// Nothing is served at this path.
pub(super) fn method_unknown(path: &str) -> Status {
    let message = format!("there is no method {}; server reflection lists them", method(path));
    status(Code::Unimplemented, "METHOD_UNKNOWN", message, None)
}

/// `/guard.v1.Leases/Allocate` as people write it: `Leases.Allocate`. Whoever calls chose the path.
fn method(path: &str) -> String {
    let short = path.strip_prefix("/guard.v1.").or(path.strip_prefix('/')).unwrap_or(path);
    let printable = short.chars().filter(char::is_ascii_graphic).take(128);
    printable.collect::<String>().replace('/', ".")
}

/// No pool has this address.
pub(super) fn address_unknown(address: std::net::IpAddr) -> Status {
    let message =
        format!("no pool has {address}, and nobody uses it; `guardctl pools` lists the pools");
    status(Code::NotFound, "ADDRESS_UNKNOWN", message, None)
}

/// A lease cannot be bound to what was named.
pub(super) fn unbindable(error: &Unbindable) -> Status {
    let (code, retry) = match error {
        Unbindable::BridgeMac { .. } | Unbindable::Port(EnsureError::NeverPort { .. }) => {
            (Code::InvalidArgument, None)
        }
        Unbindable::Port(EnsureError::NoSuchPort { .. }) => (Code::NotFound, None),
        Unbindable::Port(EnsureError::NotCovered { .. } | EnsureError::Stopped) => {
            (Code::Unavailable, Some(SOON))
        }
    };
    status(code, error.reason(), error.to_string(), retry)
}

/// The source is not done without.
pub(super) fn not_ignored(error: &IgnoreError) -> Status {
    let (code, reason) = match error {
        IgnoreError::Unknown { .. } => (Code::NotFound, "SOURCE_UNKNOWN"),
        IgnoreError::Healthy { .. } => (Code::FailedPrecondition, "SOURCE_HEALTHY"),
    };
    status(code, reason, error.to_string(), None)
}

/// The kernel does not have what was asked for.
pub(super) fn not_in_kernel(message: String) -> Status {
    status(Code::Unavailable, "OBSERVER_DEGRADED", message, Some(SOON))
}

/// The kernel has no room for a binding.
pub(super) fn no_room_in_kernel(address: std::net::IpAddr) -> Status {
    let message = format!(
        "the binding of {address} is stored, and the kernel has no room for all of it: until it has, \
         nothing is dropped on its port"
    );
    status(Code::ResourceExhausted, "KERNEL_MAP_FULL", message, Some(SOON))
}

/// No lease has this generation.
pub(super) fn lease_unknown(generation: u64) -> Status {
    let message = format!("no lease has generation {generation}; it may have ended");
    status(Code::NotFound, "LEASE_UNKNOWN", message, None)
}

/// No incident has this id.
pub(super) fn conflict_unknown(id: &str) -> Status {
    let message = format!("there is no conflict {id:?}; `guardctl conflicts --all` lists them");
    status(Code::NotFound, "CONFLICT_UNKNOWN", message, None)
}

/// No `[[bridge]]` section has this name.
pub(super) fn bridge_unknown(name: &str) -> Status {
    let message = format!("{name:?} is not a watched bridge; `guardctl status` lists them");
    status(Code::NotFound, "BRIDGE_UNKNOWN", message, None)
}

/// No watched bridge has this port.
pub(super) fn port_unknown(port: &str) -> Status {
    let message =
        format!("{port:?} is not a port of a watched bridge; `guardctl ports` lists them");
    status(Code::NotFound, "PORT_UNKNOWN", message, None)
}

/// There is nothing to see on it yet.
pub(super) fn port_uncovered(port: &str) -> Status {
    not_in_kernel(format!("port {port:?} is not watched; `guardctl status` says why"))
}

/// A mode is not changed.
pub(super) fn mode(error: &ModeError, bridge: &str, port: &str) -> Status {
    let message = error.to_string();
    match error {
        ModeError::BridgeUnknown => bridge_unknown(bridge),
        ModeError::PortUnknown => port_unknown(port),
        ModeError::Preflight(_) => status(Code::FailedPrecondition, "PREFLIGHT", message, None),
        ModeError::Kernel(_) | ModeError::Store(_) => not_in_kernel(message),
    }
}

/// A file of an operator's, or the store, cannot be read or written.
pub(super) fn store(error: &StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::Locked { .. } => {
            status(Code::FailedPrecondition, "STORE_IN_USE", message, None)
        }
        StoreError::NotAStore { .. } | StoreError::Newer { .. } => {
            status(Code::InvalidArgument, "NOT_A_STORE", message, None)
        }
        StoreError::Io { path, source } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            let message = format!("{} is there already; name another file", path.display());
            status(Code::AlreadyExists, "FILE_EXISTS", message, None)
        }
        StoreError::Io { .. } | StoreError::Unwritable { .. } | StoreError::Marker { .. } => {
            status(Code::FailedPrecondition, "FILE_UNUSABLE", message, None)
        }
        StoreError::Missing { .. } | StoreError::Damaged { .. } | StoreError::Behind { .. } => {
            status(Code::FailedPrecondition, Reason::StoreDamaged.name(), message, None)
        }
    }
}

/// A file or a directory does not answer.
pub(super) fn file_late(path: &Path, after: Duration) -> Status {
    let message =
        format!("{}: not done after {} s; is its disk stuck?", path.display(), after.as_secs());
    status(Code::FailedPrecondition, "FILE_UNUSABLE", message, None)
}

/// The reservations of another allocator cannot be read.
pub(super) fn reservations(error: &HostLocalError) -> Status {
    status(Code::FailedPrecondition, "FILE_UNUSABLE", error.to_string(), None)
}

/// The engine answers each command in its own way; this is not it.
pub(super) fn unexpected(reply: &Reply) -> Status {
    Status::internal(format!("the lease engine answered {reply:?}; please report this"))
}

/// No pool has this name.
pub(super) fn pool_unknown(name: &str) -> Status {
    let message = format!("there is no pool {name:?}; `guardctl pools` lists them");
    status(Code::NotFound, Reason::PoolUnknown.name(), message, None)
}

/// A refusal of the engine or the store.
pub(super) fn refused(refusal: Refusal) -> Status {
    let Refusal { reason, message, retry_after } = refusal;
    let code = match reason {
        Reason::NoConflictFreeAddress
        | Reason::PoolExhausted
        | Reason::SubnetExhausted
        | Reason::NameExhausted => Code::ResourceExhausted,
        Reason::AddressLive
        | Reason::AddressHeld
        | Reason::AddressCooling
        | Reason::AddressQuarantined
        | Reason::OwnerHasLease
        | Reason::SubnetHeld
        | Reason::SubnetOverlaps
        | Reason::SubnetLeased
        | Reason::SubnetLive
        | Reason::StoreHealthy
        | Reason::ConsentUnknown
        | Reason::WatchdogOff => Code::FailedPrecondition,
        Reason::AddressOutsidePool
        | Reason::AddressReserved
        | Reason::AddressExcluded
        | Reason::AmbiguousOwner
        | Reason::SubnetReserved
        | Reason::SubnetOutsidePool
        | Reason::SubnetMalformed
        | Reason::SubnetAmbiguous
        | Reason::NameMalformed => Code::InvalidArgument,
        Reason::NotYours => Code::PermissionDenied,
        Reason::PoolUnknown => Code::NotFound,
        Reason::StoreDamaged
        | Reason::StoreUnwritable
        | Reason::Starting
        | Reason::BridgeAbsent
        | Reason::InventoryDegraded
        | Reason::Stopping => Code::Unavailable,
    };
    status(code, reason.name(), message, retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_never_longer_than_its_header() {
        assert_eq!(brief("short".to_owned()), "short");
        let long = brief(format!("what{}why", "é".repeat(100_000)));
        assert!(long.len() < 2100 && long.starts_with("what") && long.ends_with("why"), "{long}");
    }

    #[test]
    fn any_length_of_time_can_be_asked_for() {
        let of = |seconds, nanos| to_span(prost_types::Duration { seconds, nanos });
        for (seconds, nanos) in [(i64::MIN, i32::MIN), (i64::MIN, 0), (-1, 0), (0, -1)] {
            assert!(matches!(of(seconds, nanos), Err(Invalid::Missing(_))), "{seconds} {nanos}");
        }
        assert_eq!(of(1, 5).unwrap(), Duration::new(1, 5));
        assert!(of(i64::MAX, i32::MAX).is_ok());
    }

    #[test]
    fn a_refusal_names_its_reason_and_when_to_retry() {
        let status = refused(Refusal {
            reason: Reason::PoolExhausted,
            message: "pool \"a\" has no free address".into(),
            retry_after: Some(Duration::from_secs(30)),
        });
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("POOL_EXHAUSTED", DOMAIN));
        let retry = details.retry_info().unwrap().retry_delay;
        assert_eq!(retry, Some(Duration::from_secs(30)));
    }
}
