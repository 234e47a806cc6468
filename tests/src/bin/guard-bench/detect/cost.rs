//! What a process has taken of the processors, and for how many frames.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::libc;
use nix::unistd::{SysconfVar, sysconf};

use crate::bpf;

/// Since the beginning.
#[derive(Debug)]
pub(super) struct Cost {
    cpu: Duration,
    /// That were processed.
    pub frames: u64,
    /// That came, and were not.
    pub dropped: u64,
}

impl Cost {
    /// The agent's, and its program's in the kernel.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn of_guard(pid: u32, program: u32) -> Result<Self> {
        let info = bpf::info(program)?;
        let cpu = cpu(pid)? + info.run_time();
        Ok(Self { cpu, frames: info.run_count(), dropped: 0 })
    }

    /// A peer's, and the frames that its packet socket has given to it, and has not; what the
    /// kernel does to copy a frame there is not counted.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn of_peer(pid: u32, (frames, dropped): (u64, u64)) -> Result<Self> {
        Ok(Self { cpu: cpu(pid)?, frames, dropped })
    }

    /// What it took since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let Self { cpu, frames, dropped } = before;
        Self {
            cpu: self.cpu.saturating_sub(*cpu),
            frames: self.frames - frames,
            dropped: self.dropped - dropped,
        }
    }

    /// None for fewer than a hundred thousand frames: the kernel counts a process's time in ticks.
    pub(super) fn seconds_per_million(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "frames of a benchmark")]
        let millions = self.frames as f64 / 1e6;
        (self.frames >= 100_000).then(|| (self.cpu.as_secs_f64() / millions * 1e4).round() / 1e4)
    }
}

/// The time that a process has run, in the kernel and out of it.
fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name may have anything in it.
    let (_, fields) = stat.rsplit_once(") ").with_context(|| path.clone())?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let hertz = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(Duration::from_millis(ticks * 1000 / u64::try_from(hertz)?))
}

/// The frames that a process has received on its packet socket, and those that it was too slow for,
/// since this was last asked (packet(7), `PACKET_STATISTICS`).
///
/// # Errors
/// It has none.
pub(super) fn packet_statistics(pid: u32) -> Result<(u64, u64)> {
    let pid = libc::pid_t::try_from(pid)?;
    let process =
        owned(syscall2(libc::SYS_pidfd_open, pid.into(), 0, 0)).context("opening a process")?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i64>().ok());
        let Some(number) = number.filter(|_| is_socket) else { continue };
        let copy = syscall2(libc::SYS_pidfd_getfd, process.as_raw_fd().into(), number, 0);
        let Ok(socket) = owned(copy) else { continue };
        if let Some((received, dropped)) = statistics(socket.as_raw_fd()) {
            return Ok((received.saturating_sub(dropped), dropped));
        }
    }
    anyhow::bail!("process {pid} has no packet socket")
}

fn statistics(socket: RawFd) -> Option<(u64, u64)> {
    // The third is in the newer form only.
    let mut counts = [0_u32; 3];
    let mut len = libc::socklen_t::try_from(size_of_val(&counts)).ok()?;
    #[expect(unsafe_code, reason = "an option that no wrapper knows")]
    // SAFETY: the kernel writes no more than `len` bytes, which `counts` has.
    let failed = unsafe {
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        libc::getsockopt(socket, level, name, counts.as_mut_ptr().cast(), &raw mut len)
    };
    (failed == 0).then(|| (counts[0].into(), counts[1].into()))
}

fn syscall2(number: i64, first: i64, second: i64, third: i64) -> io::Result<RawFd> {
    #[expect(unsafe_code, reason = "system calls that no wrapper knows")]
    // SAFETY: they take numbers, and touch no memory of ours.
    let result = unsafe { libc::syscall(number, first, second, third) };
    RawFd::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
}

fn owned(fd: io::Result<RawFd>) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "a descriptor comes as a number")]
    // SAFETY: the kernel has just opened it for us.
    fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
