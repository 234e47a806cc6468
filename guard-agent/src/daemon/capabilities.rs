//! What the agent may do: four capabilities (capabilities(7)), and nothing else once it runs.

use caps::{CapSet, Capability};

/// Loading programs and maps; attaching them and netlink; reading what the verifier allows only to
/// the privileged; probes.
const NEEDED: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_RAW,
];

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// Some are not there.
    #[error(
        "missing {}; run as root, or grant CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Missing(Vec<Capability>),
    /// The kernel's refusal.
    #[error("cannot read or set the capabilities: {0}")]
    Kernel(#[from] caps::errors::CapsError),
}

/// Whether all that are needed are there.
///
/// # Errors
/// Names those that are missing.
pub fn check() -> Result<(), CapabilityError> {
    let have = caps::read(None, CapSet::Effective)?;
    let missing: Vec<_> =
        NEEDED.into_iter().filter(|capability| !have.contains(capability)).collect();
    if missing.is_empty() { Ok(()) } else { Err(CapabilityError::Missing(missing)) }
}

/// Gives up all others. Capabilities are a thread's own: called before there is a second thread.
///
/// # Errors
/// The kernel's refusal.
pub fn drop_others() -> Result<(), CapabilityError> {
    let keep = NEEDED.into_iter().collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    Ok(())
}
