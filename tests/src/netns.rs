//! Network namespaces.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;

use crate::{command::run, reaper::Reaper};

/// A named network namespace. Cloning names it again; it goes when it is deleted, or with its lab.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

/// `ip netns add` makes `/run/netns` a shared mount the first time, which two at once get wrong.
static ADDING: Mutex<()> = Mutex::new(());

impl Netns {
    pub(crate) fn create(name: String, reaper: &Reaper) -> Result<Self> {
        let netns = Self { name };
        {
            let _one_at_a_time = ADDING.lock();
            ensure!(!netns.path().exists(), "{} is somebody else's", netns.name);
            // The reaper hears of it first, so that it cannot slip through.
            reaper.netns(&netns.name)?;
            run("ip", &["netns", "add", &netns.name])?;
        }
        // IPv6 would send router solicitations and reports of its own accord, and the lab's wires
        // carry only what a test puts on them.
        netns.run(|| -> Result<()> {
            for scope in ["all", "default"] {
                netns_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1")?;
            }
            Ok(())
        })??;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its name, as `ip netns` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `ip` commands in it, one a line.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, commands: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ip")?;
        let mut stdin = child.stdin.take().context("ip without standard input")?;
        stdin.write_all(commands.as_bytes()).context("writing to ip")?;
        stdin.write_all(b"\n").context("writing to ip")?;
        drop(stdin);
        let output = child.wait_with_output().context("waiting for ip")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "in {}: ip {commands:?}: {}", self.name, stderr.trim());
        Ok(())
    }

    /// A command that will run in it. `nsenter` becomes the program, so the process id is the
    /// program's; `ip netns exec` would remount `/sys` and hide the bpffs.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread that has entered it, and waits for it.
    ///
    /// # Errors
    /// The namespace is gone, or `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// Moves the calling thread into it, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("opening {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", self.name))
    }

    pub(crate) fn delete(&self) -> Result<()> {
        run("ip", &["netns", "del", &self.name]).map(drop)
    }
}

/// Sets a network setting of the namespace that the calling thread is in.
fn netns_sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    if !Path::new(&path).exists() {
        return Ok(());
    }
    std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}
