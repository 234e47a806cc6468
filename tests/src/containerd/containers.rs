//! The containers of a containerd: run, stopped, looked at.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Containerd, image};
use crate::{command::output, netns::Netns, sandbox::Sandbox, wait::eventually};

/// The labels that the agent looks for by default.
const SANDBOX: &str = "runtime.computer/sandbox";
const ADDRESS: &str = "runtime.computer/ip";

/// What a container does that does nothing.
pub(crate) const SLEEP: &[&str] = &["sleep", "1000000"];

impl Containerd {
    /// Runs a container that does nothing, in the namespace of a sandbox where there is one, with
    /// the labels that name it and its address.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn run(&self, id: &str, sandbox: Option<&Sandbox>, address: &str) -> Result<()> {
        self.run_labelled(id, sandbox, &[(SANDBOX, id), (ADDRESS, address)])
    }

    /// As [`Containerd::run`], choosing the labels.
    ///
    /// # Errors
    /// As [`Containerd::run`].
    pub fn run_labelled(
        &self,
        id: &str,
        sandbox: Option<&Sandbox>,
        labels: &[(&str, &str)],
    ) -> Result<()> {
        self.run_in(id, sandbox.map(Sandbox::netns), labels)
    }

    /// As [`Containerd::run_labelled`], in any namespace.
    ///
    /// # Errors
    /// As [`Containerd::run`].
    pub fn run_in(&self, id: &str, netns: Option<&Netns>, labels: &[(&str, &str)]) -> Result<()> {
        self.detach(id, &self.run_args(id, &options(netns, labels), SLEEP))
    }

    /// As [`Containerd::run_labelled`], choosing what busybox does in [`Containerd::rootfs`].
    ///
    /// # Errors
    /// As [`Containerd::run`].
    pub fn run_words(&self, id: &str, labels: &[(&str, &str)], words: &[&str]) -> Result<()> {
        self.detach(id, &self.run_args(id, &options(None, labels), words))
    }

    /// As [`Containerd::run_labelled`], from an image, so that it writes to a snapshot of its own.
    ///
    /// # Errors
    /// As [`Containerd::run`].
    pub fn run_image(
        &self,
        id: &str,
        sandbox: Option<&Sandbox>,
        labels: &[(&str, &str)],
    ) -> Result<()> {
        let image = image::import(self)?;
        let mut args = ["run", "--snapshotter", image::SNAPSHOTTER].map(str::to_owned).to_vec();
        args.extend(options(sandbox.map(Sandbox::netns), labels));
        args.extend([&*image, id, "/bin/busybox"].map(str::to_owned));
        args.extend(SLEEP.iter().map(|&word| word.to_owned()));
        self.detach(id, &args)
    }

    /// Runs a container of any root, with options of `ctr run`, to its end, and returns what it
    /// says.
    ///
    /// # Errors
    /// As [`Containerd::run`], or it failed.
    pub fn run_to_end(
        &self,
        id: &str,
        options: &[String],
        rootfs: &Path,
        words: &[&str],
    ) -> Result<String> {
        let args = rootfs_args(&["--rm"], options, rootfs, id, words);
        output(self.command(self.program("ctr")?).args(args))
    }

    /// As [`Containerd::run_to_end`], for one that runs on.
    ///
    /// # Errors
    /// As [`Containerd::run`].
    pub fn run_on(
        &self,
        id: &str,
        options: &[String],
        rootfs: &Path,
        words: &[&str],
    ) -> Result<()> {
        self.detach(id, &rootfs_args(&["--detach"], options, rootfs, id, words))
    }

    fn detach(&self, id: &str, args: &[String]) -> Result<()> {
        self.remember(id);
        output(self.command(self.program("ctr")?).args(args))?;
        self.reap(id)
    }

    /// The arguments of `ctr run` for a container that runs `busybox` with these words.
    pub(crate) fn run_args(&self, id: &str, options: &[String], words: &[&str]) -> Vec<String> {
        let words = [&["/bin/busybox"], words].concat();
        rootfs_args(&[], options, &self.rootfs(), id, &words)
    }

    /// A container that runs on is the lab's to take away.
    pub(crate) fn reap(&self, id: &str) -> Result<()> {
        let pid = self.pid(id)?;
        // Both outlive containerd: the container, and the shim that is its parent.
        self.reaper.pid(parent(pid)?)?;
        self.reaper.pid(pid)
    }

    /// Kills a container's process and removes the container, as an operator does who knows
    /// nothing of networks.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "kill", "--signal", "SIGKILL", id])?;
        eventually(&format!("the end of {id}"), || {
            Ok(self
                .ctr(&["task", "ls"])?
                .lines()
                .any(|line| is_of(line, id, "STOPPED"))
                .then_some(()))
        })?;
        // Its status is that of the process, which was killed.
        let _ = self.ctr(&["task", "delete", id]);
        self.ctr(&["container", "rm", id])?;
        self.containers.lock().retain(|known| known != id);
        Ok(())
    }

    /// Kills a container's process, and leaves its record.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn stop(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "kill", "--signal", "SIGKILL", id])?;
        eventually(&format!("the end of {id}"), || {
            let _ = self.ctr(&["task", "delete", id]);
            Ok((!self.ctr(&["task", "ls"])?.lines().any(|line| is_of(line, id, ""))).then_some(()))
        })
    }

    /// The ids of those that have a task, whatever its state.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn tasks(&self) -> Result<Vec<String>> {
        let listed = self.ctr(&["task", "ls", "--quiet"])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// The keys of the snapshots that containers write to.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        let listed = self.ctr(&["snapshot", "--snapshotter", image::SNAPSHOTTER, "ls"])?;
        let keys = listed.lines().filter(|line| line.trim_end().ends_with("Active"));
        Ok(keys.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
    }

    /// Stops the shim of a container, without which containerd cannot act on it. It goes on when
    /// the value is dropped.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn freeze_shim(&self, id: &str) -> Result<Frozen> {
        let shim = Pid::from_raw(i32::try_from(parent(self.pid(id)?)?).context("a process id")?);
        kill(shim, Signal::SIGSTOP).context("stopping a shim")?;
        Ok(Frozen(shim))
    }

    /// Pauses a container.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn pause(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "pause", id]).map(drop)
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn resume(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "resume", id]).map(drop)
    }

    /// Changes a label of a container.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn label(&self, id: &str, name: &str, value: &str) -> Result<()> {
        self.ctr(&["container", "label", id, &format!("{name}={value}")]).map(drop)
    }

    /// The containers that there are.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn list(&self) -> Result<Vec<String>> {
        let list = self.ctr(&["container", "ls", "--quiet"])?;
        Ok(list.split_whitespace().map(str::to_owned).collect())
    }

    /// The id of the first process in a container.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self, id: &str) -> Result<u32> {
        let tasks = self.ctr(&["task", "ls"])?;
        let line = tasks.lines().find(|line| is_of(line, id, ""));
        let pid = line.and_then(|line| line.split_whitespace().nth(1));
        pid.and_then(|pid| pid.parse().ok()).with_context(|| format!("{id} is not in {tasks:?}"))
    }
}

/// The arguments of `ctr run` for a container of a root file system.
fn rootfs_args(
    flags: &[&str],
    options: &[String],
    rootfs: &Path,
    id: &str,
    words: &[&str],
) -> Vec<String> {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let root = rootfs.to_string_lossy();
    [
        owned(&["run", "--rootfs"]),
        owned(flags),
        options.to_vec(),
        owned(&[&*root, id]),
        owned(words),
    ]
    .concat()
}

/// What every container is run with.
fn options(netns: Option<&Netns>, labels: &[(&str, &str)]) -> Vec<String> {
    let mut options = vec!["--detach".to_owned()];
    for (name, value) in labels {
        options.extend(["--label".to_owned(), format!("{name}={value}")]);
    }
    if let Some(netns) = netns {
        options.extend(["--with-ns".to_owned(), format!("network:{}", netns.path().display())]);
    }
    options
}

/// A process that stands still. What it belongs to must still be there when it is dropped.
#[derive(Debug)]
pub struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn is_of(line: &str, id: &str, status: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some(id) && words.nth(1).is_some_and(|word| status.is_empty() || word == status)
}

fn parent(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a container's end")?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).context("a process without a parent")
}
