//! What can be declared of a lease: the MAC and the port that may use its address.

use std::sync::Arc;

use guard_core::{evidence::EvidenceView as _, mac::Mac};
use nix::{libc::IFNAMSIZ, net::if_::if_nametoindex};
use tonic::Status;

use super::{
    Deps,
    error::{self, Invalid},
};
use crate::observer::EnsureError;

/// Why a lease cannot be bound like that.
#[derive(Debug, thiserror::Error)]
pub enum Unbindable {
    /// A frame from it is nobody's on a port (claims.md L02).
    #[error("mac {mac} is that of bridge {bridge:?} itself; name the sandbox's own, or none")]
    BridgeMac {
        /// The MAC.
        mac: Mac,
        /// The bridge that has it.
        bridge: Arc<str>,
    },
    /// The port is none, or not watched.
    #[error(transparent)]
    Port(#[from] EnsureError),
}

impl Unbindable {
    /// The bridge has no such port, yet.
    pub fn no_such_port(bridge: &str, interface: &str) -> Self {
        let (bridge, interface) = (bridge.to_owned(), interface.to_owned());
        EnsureError::NoSuchPort { interface, bridge }.into()
    }

    /// `ErrorInfo.reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BridgeMac { .. } => "MAC_RESERVED",
            Self::Port(EnsureError::NeverPort { .. }) => "NOT_A_PORT",
            Self::Port(EnsureError::NoSuchPort { .. }) => "PORT_UNKNOWN",
            Self::Port(EnsureError::NotCovered { .. } | EnsureError::Stopped) => {
                "OBSERVER_DEGRADED"
            }
        }
    }
}

impl From<Unbindable> for Status {
    fn from(error: Unbindable) -> Self {
        error::unbindable(&error)
    }
}

impl Deps {
    /// Watches the port that a lease on a bridge is to be bound to. None if there is no such port, and
    /// can be one later.
    ///
    /// # Errors
    /// The bridge has the MAC itself, the interface can be no port of it, or the port is not watched.
    pub(super) async fn bindable(
        &self,
        bridge: &Arc<str>,
        mac: Option<Mac>,
        interface: Option<&str>,
    ) -> Result<Option<u32>, Unbindable> {
        if let Some(mac) = mac {
            let own = if_nametoindex(&**bridge).ok().and_then(|ifindex| self.live.device(ifindex));
            if own.is_some_and(|own| own.mac == Some(mac)) {
                return Err(Unbindable::BridgeMac { mac, bridge: Arc::clone(bridge) });
            }
        }
        let Some(interface) = interface else { return Ok(None) };
        match self.observer.ensure(bridge, interface).await {
            Ok(ifindex) => Ok(Some(ifindex)),
            Err(EnsureError::NoSuchPort { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A MAC that a host can have; none if it is empty.
pub(super) fn to_mac(text: &str) -> Result<Option<Mac>, Invalid> {
    let invalid = || Invalid::Mac(text.to_owned());
    match text {
        "" => Ok(None),
        text => match text.parse::<Mac>() {
            Ok(mac) if mac.is_host() => Ok(Some(mac)),
            _ => Err(invalid()),
        },
    }
}

/// A name that an interface can have; none if it is empty.
pub(super) fn to_interface(name: &str) -> Result<Option<Arc<str>>, Invalid> {
    match name {
        "" => Ok(None),
        name if is_interface_name(name) => Ok(Some(name.into())),
        name => Err(Invalid::Interface(name.chars().take(64).collect())),
    }
}

/// As `dev_valid_name` has it (net/core/dev.c), whose space in Latin-1 is a byte of some letters of
/// UTF-8 too.
fn is_interface_name(name: &str) -> bool {
    let is_no_part =
        |byte: u8| matches!(byte, b'/' | b':' | b' ' | 0xa0) || byte.is_ascii_control();
    name.len() < IFNAMSIZ && name != "." && name != ".." && !name.bytes().any(is_no_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_an_interface_is_what_the_kernel_takes_for_one() {
        for name in ["v", "veth-web-1", "fifteen-bytes-1", "é.1", "...", r"odd\xff"] {
            assert_eq!(to_interface(name).unwrap().as_deref(), Some(name));
        }
        let long = "x".repeat(100_000);
        for name in
            [".", "..", "a/b", "a:b", "a b", " ", "a\tb", "a\nb", "a\0", "sixteen-bytes-12", &long]
        {
            let error = to_interface(name).unwrap_err();
            assert!(matches!(error, Invalid::Interface(_)), "{name:?}");
            assert!(error.to_string().contains("15 bytes"), "{error}");
        }
        assert_eq!(to_interface("").unwrap(), None);
    }

    #[test]
    fn a_mac_is_one_that_a_host_can_have() {
        assert_eq!(to_mac("02:00:00:00:00:0a").unwrap(), Some(Mac([2, 0, 0, 0, 0, 10])));
        assert_eq!(to_mac("").unwrap(), None);
        for mac in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "02:zz"] {
            assert!(matches!(to_mac(mac), Err(Invalid::Mac(_))), "{mac}");
        }
    }
}
