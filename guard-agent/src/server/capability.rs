//! Whether the process at the other end of a socket could do to the network what the agent does.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use nix::libc;

/// `SO_PEERPIDFD`, Linux 6.5 and later; include/uapi/asm-generic/socket.h.
const SO_PEERPIDFD: libc::c_int = 77;
/// `CAP_NET_ADMIN`; include/uapi/linux/capability.h.
const NET_ADMIN: u32 = 12;
/// The initial user namespace: `PROC_USER_INIT_INO` in include/linux/proc_ns.h.
const INITIAL: &str = "user:[4026531837]";

/// Whether it has `CAP_NET_ADMIN` in the initial user namespace. Where anything of that cannot be read, it
/// has not.
///
/// The process is the one that has connected: a pidfd names it as long as it is there. Before Linux 6.5
/// there is its number alone, which may be another's by now.
pub(super) fn has_net_admin(socket: impl AsFd, pid: Option<i32>) -> bool {
    let Ok(pidfd) = pidfd(socket) else {
        return pid.is_some_and(|pid| of_process(pid).unwrap_or(false));
    };
    let Some(pid) = pid_of(&pidfd) else { return false };
    // Its number is its own as long as it is there: what was read in between was about it.
    of_process(pid).unwrap_or(false) && pid_of(&pidfd) == Some(pid)
}

fn of_process(pid: i32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(is_capable(&status) && is_in_initial_namespace(pid)?)
}

/// By `/proc/PID/status`.
fn is_capable(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    effective.is_some_and(|mask| mask >> NET_ADMIN & 1 == 1)
}

fn is_in_initial_namespace(pid: i32) -> io::Result<bool> {
    match fs::read_link(format!("/proc/{pid}/ns/user")) {
        Ok(namespace) => Ok(namespace.as_os_str() == INITIAL),
        // An agent that is not root may not see that of root's processes. All users are mapped to
        // themselves in no other one, unless root has made it so.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let map = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
            Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
        }
        Err(error) => Err(error),
    }
}

fn pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    let mut size = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no crate that is used here has this option")]
    // SAFETY: the kernel writes at most `size` bytes to `pidfd`, which has so many, and any bytes are a
    // number. What it has written is a descriptor of this process's own, which nobody else knows of.
    unsafe {
        let done = libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut size,
        );
        if done == 0 && pidfd >= 0 {
            Ok(OwnedFd::from_raw_fd(pidfd))
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// The number of the process, in the agent's namespace; none where it is over, or in another one.
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_process_at_the_other_end_is_this_one() {
        let (here, _there) = UnixStream::pair().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        if let Ok(pidfd) = pidfd(&here) {
            assert_eq!(pid_of(&pidfd), Some(own));
        }
        let expected = of_process(own).unwrap();
        assert_eq!(has_net_admin(&here, None), expected);
        assert_eq!(has_net_admin(&here, Some(own)), expected);
    }

    #[test]
    fn the_capability_is_one_bit_of_the_effective_ones() {
        assert!(is_capable("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000001000\n"));
        assert!(is_capable("CapEff:\t000001ffffffffff\n"));
        for not in ["CapPrm:\t000001ffffffffff\nCapEff:\t0\n", "CapEff:\t000001ffffffefff\n", ""] {
            assert!(!is_capable(not), "{not}");
        }
    }
}
