//! The program on a port as a filter of the clsact qdisc, before Linux 6.6: it survives the agent by
//! itself. It is known by its priority and handle, which are ours alone, so that the next agent replaces
//! the program of the same filter (`cls_bpf_change` swaps it under RCU). A directory on the bpffs stands
//! for it, where a pin stands for a link.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, TcAttachType,
    links::Link as _,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use nix::libc::{EEXIST, ENODEV};

use super::{
    KernelError,
    attach::{Attached, gone, pinned},
    classifier::Program,
    tc,
};
use crate::network::link;

/// Before all others: what a filter before ours lets pass for good (`TC_ACT_OK`) is never seen by
/// those behind it.
pub(super) const PRIORITY: u16 = 1;
/// 0x67756172 ("guar") and the number after it, so that they are nobody else's at this priority. Of one priority the filter that
/// was made last is the first: what has to go in front is made anew, under the other handle.
const HANDLES: [TcHandle; 2] = [TcHandle::new(0x6775, 0x6172), TcHandle::new(0x6775, 0x6173)];
/// The number after these: the filter of a trace, which goes with its agent unless that is killed.
pub(super) const TRACE_HANDLE: TcHandle = TcHandle::new(0x6775, 0x6174);

/// What the names of directories begin with; the ifindex follows. With the first, the qdisc is there for
/// our filter, and goes with it.
pub(super) const WITH_QDISC: &str = "clsact-";
pub(super) const ALONE: &str = "filter-";

fn mark_of(pins: &Path, ifindex: u32, own: bool) -> PathBuf {
    pins.join(format!("{}{ifindex}", if own { WITH_QDISC } else { ALONE }))
}

/// Our filters on the ingress of a link, in the order in which they run.
fn ours(ifindex: u32) -> io::Result<Vec<TcHandle>> {
    let filters = tc::filters(ifindex, tc::INGRESS)?.into_iter();
    let ours = filters.filter(|filter| filter.priority == PRIORITY);
    Ok(ours
        .filter_map(|filter| HANDLES.into_iter().find(|handle| u32::from(*handle) == filter.handle))
        .collect())
}

/// Whether a filter of ours is on a link.
pub(super) fn has_ours(ifindex: u32) -> io::Result<bool> {
    Ok(!ours(ifindex)?.is_empty())
}

fn name(ifindex: u32) -> io::Result<String> {
    link::name(ifindex).ok_or_else(|| io::Error::from_raw_os_error(ENODEV))
}

/// Puts the program on a port: into the filter that an earlier agent left there, or before all others.
pub(super) fn attach(
    program: &mut Program,
    pins: &Path,
    ifindex: u32,
) -> Result<Attached, Box<dyn Error + Send + Sync>> {
    let interface = name(ifindex)?;
    let made_qdisc = match qdisc_add_clsact(&interface) {
        Ok(()) => true,
        Err(refusal) if errno(&refusal) == Some(EEXIST) => false,
        Err(refusal) => return Err(refusal.into()),
    };
    // Of an agent that was killed while it traced.
    remove_filter(ifindex, &interface, TRACE_HANDLE)?;
    let ours = ours(ifindex)?;
    if let Some((first, others)) = ours.split_first() {
        let filter = filter(&interface, *first)?;
        let classifier = program.classifier()?;
        let id = classifier.attach_to_link(filter)?;
        // Dropped, it would take the filter off; it holds nothing but numbers.
        std::mem::forget(classifier.take_link(id)?);
        for other in others {
            remove_filter(ifindex, &interface, *other)?;
        }
    } else {
        add(program, &interface, HANDLES[0])?;
    }
    let stands_for_it = mark(pins, ifindex, made_qdisc, ours.is_empty())?;
    Ok(Attached { stands_for_it, program_id: program.id() })
}

/// Puts the program before all others on a port where it is behind one: in front with a new filter, and
/// then the former goes.
pub(super) fn put_first(
    program: &mut Program,
    pins: &Path,
    ifindex: u32,
) -> Result<Attached, Box<dyn Error + Send + Sync>> {
    let interface = name(ifindex)?;
    let former = ours(ifindex)?;
    let free = HANDLES.into_iter().find(|handle| !former.contains(handle));
    let free = free.ok_or("both filters are on the port")?;
    add(program, &interface, free)?;
    for handle in former {
        remove_filter(ifindex, &interface, handle)?;
    }
    let stands_for_it = mark(pins, ifindex, false, true)?;
    Ok(Attached { stands_for_it, program_id: program.id() })
}

fn add(program: &mut Program, interface: &str, handle: TcHandle) -> Result<(), ProgramError> {
    let options = NlOptions { priority: PRIORITY, handle, classid: None };
    let options = TcAttachOptions::Netlink(options);
    let classifier = program.classifier()?;
    let id = classifier.attach_with_options(interface, TcAttachType::Ingress, options)?;
    std::mem::forget(classifier.take_link(id)?);
    Ok(())
}

fn filter(interface: &str, handle: TcHandle) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, handle, None)
}

/// Sees to it that one directory stands for the filter, as old as the filter.
fn mark(pins: &Path, ifindex: u32, made_qdisc: bool, new: bool) -> Result<PathBuf, KernelError> {
    let [with_qdisc, alone] = [true, false].map(|own| mark_of(pins, ifindex, own));
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

/// The filters that an agent of another layout left are this one's now, where this one has put its program
/// into them.
pub(super) fn hand_over(from: &Path, to: &Path) -> Result<(), KernelError> {
    for ifindex in pinned(from)? {
        let [with_qdisc, alone] = [true, false].map(|own| mark_of(from, ifindex, own));
        if ![true, false].iter().any(|own| mark_of(to, ifindex, *own).exists()) {
            continue;
        }
        if with_qdisc.exists() {
            mark(to, ifindex, true, false)?;
        }
        remove_mark(&with_qdisc)?;
        remove_mark(&alone)?;
    }
    Ok(())
}

/// Takes the filter off a port, or forgets it where the port is gone.
pub(super) fn detach(pins: &Path, ifindex: u32) -> Result<(), KernelError> {
    for own in [true, false] {
        let mark = mark_of(pins, ifindex, own);
        if mark.exists() {
            if let Some(interface) = link::name(ifindex) {
                take_off(ifindex, &interface, own).map_err(|source| KernelError::Detach {
                    interface,
                    source: Box::new(source),
                })?;
            }
            remove_mark(&mark)?;
        }
    }
    Ok(())
}

fn take_off(ifindex: u32, interface: &str, own: bool) -> Result<(), ProgramError> {
    for handle in HANDLES.into_iter().chain([TRACE_HANDLE]) {
        remove_filter(ifindex, interface, handle)?;
    }
    if own {
        // What others have put there keeps it.
        tc::remove_clsact(ifindex).map_err(TcError::from)?;
    }
    Ok(())
}

/// Removes one of our filters, if it is there.
fn remove_filter(ifindex: u32, interface: &str, handle: TcHandle) -> Result<(), ProgramError> {
    let filters = tc::filters(ifindex, tc::INGRESS).map_err(TcError::from)?;
    let is_it =
        |filter: &tc::Filter| (filter.priority, filter.handle) == (PRIORITY, u32::from(handle));
    if filters.iter().any(is_it) {
        filter(interface, handle).map_err(TcError::from)?.detach()?;
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

fn remove_mark(mark: &Path) -> Result<(), KernelError> {
    gone(mark, fs::remove_dir(mark))
}
