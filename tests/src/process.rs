//! A process of the lab.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::{journal::Journal, reaper::Reaper};

/// A child whose end its journal learns of.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    /// Held while the process is waited for and while it is signalled, so that a signal never
    /// goes to another one that got the same id.
    ended: Arc<Mutex<bool>>,
}

impl Process {
    pub(crate) fn start(
        command: &mut Command,
        journal: &Journal,
        log: PathBuf,
        reaper: &Reaper,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        reaper.pid(child.id())?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
        let ended = Arc::new(Mutex::new(false));
        let process = Self { pid, ended: Arc::clone(&ended) };
        let journal = journal.clone();
        std::thread::spawn(move || {
            if let Some(stderr) = child.stderr.take()
                && let Err(error) = journal.read(stderr, &log)
            {
                eprintln!("the agent's log: {error:#}");
            }
            journal.set_exit(wait(&mut child, &ended));
        });
        Ok(process)
    }

    pub(crate) fn id(&self) -> Pid {
        self.pid
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let ended = self.ended.lock();
        if *ended {
            bail!("the agent has ended already");
        }
        kill(self.pid, signal).context("signalling the agent")
    }
}

fn wait(child: &mut Child, ended: &Mutex<bool>) -> Option<i32> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    // First its end, leaving its id taken; then, under the lock, its id.
    if let Ok(pid) = i32::try_from(child.id()) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let _ = waitid(Id::Pid(Pid::from_raw(pid)), flags);
    }
    let mut ended = ended.lock();
    *ended = true;
    child.wait().ok().and_then(|status| status.code())
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.ended.lock();
        if !*ended {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}
