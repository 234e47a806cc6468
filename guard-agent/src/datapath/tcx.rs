//! The program on a port as a TCX link (Linux 6.6 and later): pinned, it survives the agent, and the next
//! agent puts its program under the same link.
//!
//! A pinned link says nothing of the port: its device may be in another namespace by now, and the number
//! another's. Only what the kernel says of the port by its number counts.

use std::{
    error::Error,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::programs::{
    ProgramError,
    links::{FdLink, LinkType, PinnedLink},
};
use nix::libc::EEXIST;

use super::{
    KernelError,
    attach::{Attached, remove},
    bpf,
    classifier::Program,
};

/// What the names of pins begin with; the ifindex follows. The second is of the link that is about to
/// take the place of the first.
pub(super) const LINK: &str = "link-";
pub(super) const NEXT: &str = "next-";

/// How often, and how far apart, it is tried to attach anew where a link is on its way out.
const LET_GO_TRIES: u32 = 40;
const LET_GO_PAUSE: Duration = Duration::from_millis(5);

fn link_pin(pins: &Path, ifindex: u32) -> PathBuf {
    pins.join(format!("{LINK}{ifindex}"))
}

/// Puts the program on a port: under the link that an earlier agent left there, or before all others.
pub(super) fn attach(
    program: &mut Program,
    pins: &Path,
    ifindex: u32,
) -> Result<Attached, Box<dyn Error + Send + Sync>> {
    let pin = link_pin(pins, ifindex);
    if let Some((link, linked)) = linked(&pin)
        && bpf::programs(ifindex)?.contains(&linked)
    {
        let program_id = if program.is_own(linked) { linked } else { program.replace(link)? };
        return Ok(Attached { stands_for_it: pin, program_id });
    }
    // What was pinned is on another device, or someone has taken it off.
    remove(&pin)?;
    let link = attach_first(program, ifindex)?;
    bpf::pin(link.as_fd(), &pin)?;
    Ok(Attached { stands_for_it: pin, program_id: program.id() })
}

/// Puts the program before all others on a port where it is behind one. A link keeps its place, and the
/// kernel takes no program twice: another instance goes in front, and then the former link goes off.
pub(super) fn put_first(
    program: &mut Program,
    pins: &Path,
    ifindex: u32,
) -> Result<Attached, Box<dyn Error + Send + Sync>> {
    if bpf::programs(ifindex)?.contains(&program.id()) {
        program.renew()?;
    }
    let link = attach_first(program, ifindex)?;
    let (next, pin) = (pins.join(format!("{NEXT}{ifindex}")), link_pin(pins, ifindex));
    // Of an agent that was killed between the two.
    remove(&next)?;
    bpf::pin(link.as_fd(), &next)?;
    fs::rename(&next, &pin)?;
    Ok(Attached { stands_for_it: pin, program_id: program.id() })
}

fn attach_first(program: &mut Program, ifindex: u32) -> Result<OwnedFd, ProgramError> {
    let mut tries = 0;
    loop {
        match bpf::attach_first(program.fd()?, ifindex) {
            // A link whose pin has just been removed is let go of by a worker of the kernel
            // (bpf_link_put() in kernel/bpf/syscall.c).
            Err(refusal) if refusal.raw_os_error() == Some(EEXIST) && tries < LET_GO_TRIES => {
                tries += 1;
                #[expect(clippy::disallowed_methods, reason = "the kernel's worker tells nobody")]
                thread::sleep(LET_GO_PAUSE);
            }
            attached => return Ok(attached?),
        }
    }
}

/// A pinned TCX link, and the id of the program under it.
pub(super) fn linked(pin: &Path) -> Option<(FdLink, u32)> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    let info = link.info().ok().filter(|info| info.link_type().ok() == Some(LinkType::Tcx))?;
    Some((link, info.program_id()))
}

/// Unpins the link of a port, which takes the program off, wherever it is.
pub(super) fn detach(pins: &Path, ifindex: u32) -> Result<(), KernelError> {
    remove(&pins.join(format!("{NEXT}{ifindex}")))?;
    remove(&link_pin(pins, ifindex))
}

/// Whether a program under one of our links is on a port: the kernel names programs to those only who may
/// do everything.
pub(super) fn has_ours(pins: &[PathBuf], ifindex: u32) -> io::Result<bool> {
    let there = bpf::programs(ifindex)?;
    let mut linked = pins.iter().filter_map(|pins| linked(&link_pin(pins, ifindex)));
    Ok(linked.any(|(_, program)| there.contains(&program)))
}

/// Whether a link is pinned for a port, whatever device it is on.
pub(super) fn has_pinned_link(pins: &Path, ifindex: u32) -> bool {
    link_pin(pins, ifindex).exists()
}
