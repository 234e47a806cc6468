//! How the program sits on a port. The kernel knows two ways: [`super::tcx`], from Linux 6.6, and
//! [`super::clsact`], before. Either way it goes before all others, a program stays where an earlier agent
//! left it until the next one's takes its place, and no frame passes unseen in between.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use nix::libc::EINVAL;

use super::{KernelError, classifier::Program, clsact, tcx};

/// How the program sits on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// As a TCX link.
    Tcx,
    /// As a filter of the clsact qdisc.
    Clsact,
}

/// The program on a port.
pub(super) struct Attached {
    /// The pin or the directory, as old as the link or the filter.
    pub stands_for_it: PathBuf,
    /// The instance that is there.
    pub program_id: u32,
}

impl Attach {
    /// What this kernel offers, found out by asking: before 6.6 it does not know the question.
    ///
    /// # Errors
    /// Another refusal: a capability is missing.
    pub fn probe() -> Result<Self, ProgramError> {
        // Every network namespace has it.
        match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
            Ok(_) => Ok(Self::Tcx),
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(EINVAL) =>
            {
                Ok(Self::Clsact)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the program on a port, or under the link or filter that an earlier agent left there, whatever
    /// its place.
    pub(super) fn attach(
        self,
        program: &mut Program,
        pins: &Path,
        ifindex: u32,
    ) -> Result<Attached, Box<dyn Error + Send + Sync>> {
        match self {
            Self::Tcx => tcx::attach(program, pins, ifindex),
            Self::Clsact => clsact::attach(program, pins, ifindex),
        }
    }

    /// Puts the program before all others on a port that it is on.
    pub(super) fn put_first(
        self,
        program: &mut Program,
        pins: &Path,
        ifindex: u32,
    ) -> Result<Attached, Box<dyn Error + Send + Sync>> {
        match self {
            Self::Tcx => tcx::put_first(program, pins, ifindex),
            Self::Clsact => clsact::put_first(program, pins, ifindex),
        }
    }

    /// Whether a program of ours, of this agent or of an earlier one, sits on a link. `pins` are those of
    /// this layout and of others.
    ///
    /// # Errors
    /// The link is gone, or the kernel's refusal.
    pub(super) fn has_ours(self, pins: &[PathBuf], ifindex: u32) -> io::Result<bool> {
        match self {
            Self::Tcx => tcx::has_ours(pins, ifindex),
            Self::Clsact => clsact::has_ours(ifindex),
        }
    }
}

/// The port that a pin or a directory stands for.
pub(super) fn port_of(name: &str) -> Option<u32> {
    [tcx::LINK, tcx::NEXT, clsact::WITH_QDISC, clsact::ALONE]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .and_then(|ifindex| ifindex.parse().ok())
}

/// The ports that have a link or a filter, those of an earlier agent included.
///
/// # Errors
/// The directory of pins cannot be read.
pub(super) fn pinned(pins: &Path) -> Result<Vec<u32>, KernelError> {
    let error = |source| KernelError::Pin { path: pins.to_owned(), source };
    let mut ports = Vec::new();
    for entry in fs::read_dir(pins).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        ports.extend(name.to_str().and_then(port_of));
    }
    Ok(ports)
}

/// Takes the program off a port, or forgets it where the port is gone.
///
/// # Errors
/// The kernel's refusal, or a pin that cannot be removed.
pub(super) fn detach(pins: &Path, ifindex: u32) -> Result<(), KernelError> {
    tcx::detach(pins, ifindex)?;
    clsact::detach(pins, ifindex)
}

pub(super) fn remove(pin: &Path) -> Result<(), KernelError> {
    gone(pin, fs::remove_file(pin))
}

pub(super) fn gone(path: &Path, removed: io::Result<()>) -> Result<(), KernelError> {
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::Pin { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_port_names_it() {
        for name in ["link-7", "next-7", "clsact-7", "filter-7"] {
            assert_eq!(port_of(name), Some(7), "{name}");
        }
        assert_eq!(port_of("OWNED"), None);
    }
}
