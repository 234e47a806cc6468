//! What the agent may do: four capabilities (capabilities(7)), and nothing else once it runs. It can get no
//! others, whatever it executes and as whomever it runs.

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    libc::{self, PR_SET_SECUREBITS},
    sys::prctl::set_no_new_privs,
};

/// linux/securebits.h: uid 0 is nothing special, and stays so.
const NOROOT: libc::c_ulong = 1 << 0;
const NOROOT_LOCKED: libc::c_ulong = 1 << 1;

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
    /// The same.
    #[error("cannot give up what could give it privileges: {0}")]
    Locked(#[from] Errno),
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

/// Gives up all others, and what could bring them back. Capabilities are a thread's own: called before
/// there is a second thread.
///
/// # Errors
/// The kernel's refusal.
pub fn drop_others() -> Result<(), CapabilityError> {
    set_no_new_privs()?;
    // Whoever lacks it has them bounded by whoever started the agent, or has nothing to fall back on.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        let others = caps::read(None, CapSet::Bounding)?;
        for other in others.iter().filter(|other| !NEEDED.contains(other)) {
            caps::drop(None, CapSet::Bounding, *other)?;
        }
        set_securebits(NOROOT | NOROOT_LOCKED)?;
    }
    let keep = NEEDED.into_iter().collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    Ok(())
}

fn set_securebits(bits: libc::c_ulong) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "prctl(2) has no wrapper for this")]
    // SAFETY: it takes a number, and no memory of ours.
    let result = unsafe { libc::prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) };
    Errno::result(result).map(drop)
}
