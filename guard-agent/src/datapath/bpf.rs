//! What bpf(2) does by an interface's number. aya goes by the name, which may be another's by now.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc::{SYS_bpf, c_long, syscall};

/// Commands, the hook, and a place on it (linux/bpf.h).
const OBJ_PIN: c_long = 6;
const PROG_QUERY: c_long = 16;
const LINK_CREATE: c_long = 28;
const TCX_INGRESS: u32 = 46;
const BEFORE: u32 = 1 << 3;

/// The most programs that the kernel lets onto one hook (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: u32 = 64;

#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    programs: u32,
    reserved: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    reserved: u32,
    revision: u64,
}

#[repr(C)]
struct Pin {
    path: u64,
    object: u32,
    flags: u32,
}

/// The programs on the ingress of a link as TCX has them, by their ids, in the order in which they run.
///
/// # Errors
/// There is no such link (`ENODEV`), or no TCX (`EINVAL`).
pub(super) fn programs(ifindex: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MAX_PROGRAMS as usize];
    let mut query = Query {
        ifindex,
        attach_type: TCX_INGRESS,
        query_flags: 0,
        attach_flags: 0,
        program_ids: ids.as_mut_ptr() as u64,
        programs: MAX_PROGRAMS,
        reserved: 0,
    };
    call(PROG_QUERY, &mut query)?;
    let there = usize::try_from(query.programs).map_err(io::Error::other)?;
    Ok(ids.into_iter().take(there).collect())
}

/// Puts a program on the ingress of a link, before all others there.
///
/// # Errors
/// There is no such link, or the program is on it already (`EEXIST`).
pub(super) fn attach_first(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut create = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: TCX_INGRESS,
        flags: BEFORE,
        relative: 0,
        reserved: 0,
        revision: 0,
    };
    let link = i32::try_from(call(LINK_CREATE, &mut create)?).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the descriptor is a bare number")]
    // SAFETY: the kernel has just given it to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Pins a link.
///
/// # Errors
/// Something has this path, or it is not on a BPF file system.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let object = link.as_raw_fd().cast_unsigned();
    call(OBJ_PIN, &mut Pin { path: path.as_ptr() as u64, object, flags: 0 }).map(drop)
}

fn call<T>(command: c_long, attributes: &mut T) -> io::Result<c_long> {
    #[expect(unsafe_code, reason = "bpf(2) has no wrapper")]
    // SAFETY: the attributes are as long as said, and what they point to outlives the call.
    let result =
        unsafe { syscall(SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
