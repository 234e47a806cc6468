//! How the program sits on a port. The kernel knows two ways:
//!
//! - TCX, from Linux 6.6: a link, pinned, that survives the agent; the next agent puts its program
//!   under the same link.
//! - A filter of the clsact qdisc, before: it survives the agent by itself. It is known by its
//!   priority and handle, which are ours alone, so that the next agent replaces the program of the
//!   same filter (`cls_bpf_change` swaps it under RCU). A directory on the bpffs stands for it,
//!   where a pin stands for a link.
//!
//! Either way no frame passes unseen in between.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, Link as _, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use nix::libc::{EEXIST, EINVAL, ENOENT};

use super::{KernelError, tc};
use crate::network::link;

/// Before all others: what a filter before ours lets pass for good (`TC_ACT_OK`) is never seen by
/// those behind it.
pub(super) const PRIORITY: u16 = 1;
/// "guar", so that it is nobody else's at this priority.
const HANDLE: TcHandle = TcHandle::new(0x6775, 0x6172);
/// "guat": the filter of a trace, which goes with its agent unless that is killed.
pub(super) const TRACE_HANDLE: TcHandle = TcHandle::new(0x6775, 0x6174);

/// How the program sits on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// As a TCX link.
    Tcx,
    /// As a filter of the clsact qdisc.
    Clsact,
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

    /// Puts the program on a port, or under the link or filter that an earlier agent left there.
    /// Gives back what stands for it below `pins`.
    ///
    /// # Errors
    /// The port is gone, or the kernel's refusal.
    pub fn attach(
        self,
        program: &mut SchedClassifier,
        pins: &Path,
        ifindex: u32,
        interface: &str,
    ) -> Result<PathBuf, KernelError> {
        match self {
            Self::Tcx => attach_tcx(program, pins, ifindex, interface),
            Self::Clsact => attach_clsact(program, pins, ifindex, interface),
        }
    }

    /// Whether a program of ours, of this agent or of an earlier one, sits on a link.
    ///
    /// # Errors
    /// The link is gone, or the kernel's refusal.
    pub fn has_ours(self, ifindex: u32, interface: &str) -> io::Result<bool> {
        match self {
            Self::Tcx => {
                let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress)
                    .map_err(io::Error::other)?;
                Ok(programs
                    .iter()
                    .any(|program| program.name_as_str() == Some(guard_ebpf::abi::PROGRAM)))
            }
            Self::Clsact => {
                let filters = tc::filters(ifindex, tc::INGRESS)?;
                let ours = (PRIORITY, u32::from(HANDLE));
                Ok(filters.iter().any(|filter| (filter.priority, filter.handle) == ours))
            }
        }
    }

    /// Whether this program sits on a port.
    ///
    /// # Errors
    /// The port is gone, or the kernel's refusal.
    pub fn is_on(self, program_id: u32, ifindex: u32, interface: &str) -> io::Result<bool> {
        match self {
            Self::Tcx => {
                let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress)
                    .map_err(io::Error::other)?;
                Ok(programs.iter().any(|program| program.id() == program_id))
            }
            Self::Clsact => {
                let filters = tc::filters(ifindex, tc::INGRESS)?;
                Ok(filters.iter().any(|filter| filter.program_id == Some(program_id)))
            }
        }
    }
}

fn link_pin(pins: &Path, ifindex: u32) -> PathBuf {
    pins.join(format!("link-{ifindex}"))
}

/// Whether a link of ours is pinned for a port, whatever device it is on.
pub fn has_pinned_link(pins: &Path, ifindex: u32) -> bool {
    link_pin(pins, ifindex).exists()
}

/// `own`: the qdisc is there for our filter, and goes with it.
fn filter_mark(pins: &Path, ifindex: u32, own: bool) -> PathBuf {
    pins.join(format!("{}-{ifindex}", if own { "clsact" } else { "filter" }))
}

/// The port that a pin or a directory stands for.
fn port_of(name: &str) -> Option<u32> {
    ["link-", "clsact-", "filter-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .and_then(|ifindex| ifindex.parse().ok())
}

/// The ports that have a link or a filter, those of an earlier agent included.
///
/// # Errors
/// The directory of pins cannot be read.
pub fn pinned(pins: &Path) -> Result<Vec<u32>, KernelError> {
    let error = |source| KernelError::Pin { path: pins.to_owned(), source };
    let mut ports = Vec::new();
    for entry in fs::read_dir(pins).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        ports.extend(name.to_str().and_then(port_of));
    }
    Ok(ports)
}

/// How often, and how far apart, it is tried to attach anew where a link is on its way out.
const LET_GO_TRIES: u32 = 40;
const LET_GO_PAUSE: Duration = Duration::from_millis(5);

fn attach_tcx(
    program: &mut SchedClassifier,
    pins: &Path,
    ifindex: u32,
    interface: &str,
) -> Result<PathBuf, KernelError> {
    let pin = link_pin(pins, ifindex);
    let attach_error =
        |source| KernelError::Attach { interface: interface.to_owned(), source: Box::new(source) };
    let link_error = |source| KernelError::Link { interface: interface.to_owned(), source };
    if let Ok(link) = PinnedLink::from_pin(&pin) {
        let link = FdLink::from(link).try_into().map_err(link_error)?;
        match program.attach_to_link(link) {
            Ok(id) => {
                drop(program.take_link(id).map_err(attach_error)?);
                return Ok(pin);
            }
            // The device of the link is gone and its ifindex has been used again, or someone has
            // taken the link off (both ENOLINK).
            Err(_) => remove(&pin)?,
        }
    }
    let mut tries = 0;
    let id = loop {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(interface, TcAttachType::Ingress, options) {
            Ok(id) => break id,
            // A link whose pin has just been removed is let go of by a worker of the kernel
            // (bpf_link_put() in kernel/bpf/syscall.c).
            Err(ProgramError::SyscallError(refusal))
                if refusal.io_error.raw_os_error() == Some(EEXIST) && tries < LET_GO_TRIES =>
            {
                tries += 1;
                #[expect(clippy::disallowed_methods, reason = "the kernel's worker tells nobody")]
                thread::sleep(LET_GO_PAUSE);
            }
            Err(source) => return Err(attach_error(source)),
        }
    };
    let link: FdLink =
        program.take_link(id).map_err(attach_error)?.try_into().map_err(link_error)?;
    link.pin(&pin).map_err(|source| KernelError::Pin {
        path: pin.clone(),
        source: io::Error::other(source),
    })?;
    Ok(pin)
}

fn attach_clsact(
    program: &mut SchedClassifier,
    pins: &Path,
    ifindex: u32,
    interface: &str,
) -> Result<PathBuf, KernelError> {
    let error =
        |source| KernelError::Attach { interface: interface.to_owned(), source: Box::new(source) };
    let made_qdisc = match qdisc_add_clsact(interface) {
        Ok(()) => true,
        Err(refusal) if errno(&refusal) == Some(EEXIST) => false,
        Err(refusal) => return Err(error(refusal.into())),
    };
    // Of an agent that was killed while it traced.
    remove_filter(ifindex, interface, TRACE_HANDLE).map_err(error)?;
    let ours =
        SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
            .map_err(|source| error(TcError::from(source).into()))?;
    let (id, new) = match program.attach_to_link(ours) {
        Ok(id) => (id, false),
        Err(ProgramError::TcError(refusal)) if errno(&refusal) == Some(ENOENT) => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            let options = TcAttachOptions::Netlink(options);
            let id = program.attach_with_options(interface, TcAttachType::Ingress, options);
            (id.map_err(error)?, true)
        }
        Err(refusal) => return Err(error(refusal)),
    };
    // Dropped, it would take the filter off; it holds nothing but numbers.
    std::mem::forget(program.take_link(id).map_err(error)?);
    mark(pins, ifindex, made_qdisc, new)
}

/// Sees to it that one directory stands for the filter, as old as the filter.
fn mark(pins: &Path, ifindex: u32, made_qdisc: bool, new: bool) -> Result<PathBuf, KernelError> {
    let [with_qdisc, alone] = [true, false].map(|own| filter_mark(pins, ifindex, own));
    // Without a mark that says otherwise, a qdisc that was there is someone else's.
    let own = made_qdisc || with_qdisc.exists();
    let (mark, other) = if own { (with_qdisc, alone) } else { (alone, with_qdisc) };
    remove_mark(&other)?;
    if new {
        remove_mark(&mark)?;
    }
    match fs::create_dir(&mark) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(KernelError::Pin { path: mark, source })
        }
        _ => Ok(mark),
    }
}

/// Takes the program off a port, or forgets it where the port is gone.
///
/// # Errors
/// The kernel's refusal, or a pin that cannot be removed.
pub fn detach(pins: &Path, ifindex: u32) -> Result<(), KernelError> {
    remove(&link_pin(pins, ifindex))?;
    for own in [true, false] {
        let mark = filter_mark(pins, ifindex, own);
        if mark.exists() {
            if let Some(interface) = link::name(ifindex) {
                take_filter_off(ifindex, &interface, own)?;
            }
            remove_mark(&mark)?;
        }
    }
    Ok(())
}

fn take_filter_off(ifindex: u32, interface: &str, own: bool) -> Result<(), KernelError> {
    let error = |source: ProgramError| KernelError::Detach {
        interface: interface.to_owned(),
        source: Box::new(source),
    };
    for handle in [TRACE_HANDLE, HANDLE] {
        remove_filter(ifindex, interface, handle).map_err(error)?;
    }
    if own {
        // What others have put there keeps it.
        tc::remove_clsact(ifindex).map_err(|e| error(TcError::from(e).into()))?;
    }
    Ok(())
}

/// Removes one of our filters, if it is there.
fn remove_filter(ifindex: u32, interface: &str, handle: TcHandle) -> Result<(), ProgramError> {
    let filters = tc::filters(ifindex, tc::INGRESS).map_err(TcError::from)?;
    let is_it =
        |filter: &tc::Filter| (filter.priority, filter.handle) == (PRIORITY, u32::from(handle));
    if filters.iter().any(is_it) {
        let attached = TcAttachType::Ingress;
        SchedClassifierLink::attached(interface, attached, PRIORITY, handle, None)
            .map_err(TcError::from)?
            .detach()?;
    }
    Ok(())
}

fn errno(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

pub(super) fn remove(pin: &Path) -> Result<(), KernelError> {
    gone(pin, fs::remove_file(pin))
}

fn remove_mark(mark: &Path) -> Result<(), KernelError> {
    gone(mark, fs::remove_dir(mark))
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<(), KernelError> {
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::Pin { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Takes the programs off all ports that have something below `pins`. Gives back how many.
///
/// # Errors
/// As [`detach`].
pub fn detach_all(pins: &Path) -> Result<usize, KernelError> {
    let ports = pinned(pins)?;
    ports.iter().try_for_each(|ifindex| detach(pins, *ifindex))?;
    Ok(ports.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_port_names_it() {
        let pins = Path::new("/pins");
        let names = [link_pin(pins, 7), filter_mark(pins, 7, true), filter_mark(pins, 7, false)];
        for name in names {
            let name = name.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(port_of(&name), Some(7), "{name}");
        }
        assert_eq!(port_of("OWNED"), None);
    }
}
