//! A machine with a systemd of its own, in the host's namespace of a lab.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{command::output, journal::Journal, lab::Lab, process::Process, wait::TIMEOUT};

/// Where it finds the directory that it shares with the lab.
const SHARED: &str = "/shared";

/// What the agent asks for, beyond what systemd-nspawn lets a machine have by itself.
const CAPABILITIES: &str = "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_NET_RAW";

/// Debian under systemd-nspawn, with the network and the bpffs of the lab's host. What it changes
/// of its file system is gone with it.
#[derive(Debug)]
pub struct Machine {
    /// Its first process.
    leader: u32,
    shared: PathBuf,
    journal: Journal,
    _process: Process,
    /// One machine at a time has the file system.
    _turn: File,
}

impl Lab {
    /// Boots one.
    ///
    /// # Errors
    /// `cargo xtask setup` has not made its file system, or it does not come up.
    pub fn machine(&self) -> Result<Machine> {
        let home = std::env::home_dir().context("no home directory")?;
        let rootfs = home.join(".cache/guard/rootfs");
        anyhow::ensure!(rootfs.is_dir(), "{} is missing: `cargo xtask setup`", rootfs.display());
        let turn = File::open(&rootfs).context("opening the file system")?;
        turn.lock().context("waiting for another machine")?;
        let shared = self.dir().join("shared");
        fs::create_dir(&shared).context("a directory to share")?;
        let notify = self.dir().join("machine.notify");
        let said = UnixDatagram::bind(&notify).context("binding a socket")?;

        let mut nspawn = Command::new("systemd-nspawn");
        nspawn.env("NOTIFY_SOCKET", &notify);
        nspawn.arg("--quiet").arg("--boot").arg("--directory").arg(rootfs);
        nspawn.args(["--volatile=overlay", "--notify-ready=yes", "--console=read-only"]);
        // There is no other systemd to tell of it.
        nspawn.args(["--register=no", "--keep-unit", CAPABILITIES, "--system-call-filter=bpf"]);
        nspawn.arg(format!("--machine={}", self.id()));
        nspawn.arg(format!("--network-namespace-path={}", self.host().path().display()));
        nspawn.arg(format!("--bind={}:/sys/fs/bpf", self.dir().join("bpf").display()));
        nspawn.arg(format!("--bind={}:{SHARED}", shared.display()));
        let (journal, log) = (Journal::default(), self.dir().join("machine.log"));
        let process = Process::start(&mut nspawn, &journal, log, &self.reaper())?;

        let (sender, booted) = mpsc::channel();
        // One that never comes up ends with the test.
        thread::spawn(move || sender.send(leader(&said)));
        let leader = booted.recv_timeout(TIMEOUT).with_context(|| journal.text())??;
        self.reaper().pid(leader)?;
        Ok(Machine { leader, shared, journal, _process: process, _turn: turn })
    }
}

/// The first process of a machine that has booted.
fn leader(said: &UnixDatagram) -> Result<u32> {
    let mut leader = None;
    let mut message = [0; 4096];
    loop {
        let read = said.recv(&mut message).context("listening to systemd-nspawn")?;
        let text = String::from_utf8_lossy(message.get(..read).unwrap_or_default());
        for line in text.lines() {
            if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                leader = Some(pid.parse().with_context(|| line.to_owned())?);
            }
            if line == "READY=1" {
                return leader.context("ready without a first process");
            }
        }
    }
}

impl Machine {
    /// Runs a shell's command line in it, to its end, and returns its standard output.
    ///
    /// # Errors
    /// It failed.
    pub fn sh(&self, line: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.leader.to_string(), "--mount", "--uts", "--ipc", "--net"]);
        command.args(["--pid", "--root", "--wdns=/", "--", "sh", "-euc", line]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        output(&mut command).with_context(|| line.to_owned())
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = self.sh(&format!("systemctl show --property={name} --value {unit}"))?;
        Ok(value.trim().to_owned())
    }

    /// Puts a file where it finds it, and says where.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn share(&self, file: &Path) -> Result<String> {
        let name = file.file_name().context("a file without a name")?;
        fs::copy(file, self.shared.join(name)).with_context(|| file.display().to_string())?;
        Ok(format!("{SHARED}/{}", name.display()))
    }
}

/// systemd-nspawn cleans up once the machine's first process, and all others with it, are gone.
impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(leader) = i32::try_from(self.leader) {
            let _ = kill(Pid::from_raw(leader), Signal::SIGKILL);
            let _ = self.journal.await_exit();
        }
    }
}
