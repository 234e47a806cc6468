//! A containerd of the lab's own, with real containers in it.

mod containers;
mod image;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use parking_lot::Mutex;

pub use containers::Frozen;
pub(crate) use containers::SLEEP;

use crate::{
    command::output, config::Config, journal::Journal, lab::Lab, process::Process, reaper::Reaper,
};

/// `containerd` with a root, a state and a socket in the lab's directory, and a namespace that no
/// other lab has: containers of one namespace share their cgroups, whichever containerd has them.
#[derive(Debug)]
pub struct Containerd {
    dir: PathBuf,
    /// Where its programs are, if they are not the machine's.
    programs: Option<PathBuf>,
    namespace: String,
    reaper: Arc<Reaper>,
    running: Option<(Journal, Process)>,
    containers: Mutex<Vec<String>>,
}

impl Lab {
    /// Starts the machine's containerd.
    ///
    /// # Errors
    /// It is not installed.
    pub fn containerd(&self) -> Result<Containerd> {
        self.containerd_of(None)
    }

    /// Starts a containerd, of [`Containerd::others`] or the machine's.
    ///
    /// # Errors
    /// It does not come up.
    pub fn containerd_of(&self, programs: Option<PathBuf>) -> Result<Containerd> {
        let dir = self.dir().join("containerd");
        let rootfs = dir.join("rootfs/bin");
        fs::create_dir_all(&rootfs).context("the root of the containers")?;
        fs::copy("/bin/busybox", rootfs.join("busybox")).context("busybox-static")?;
        let unused = [
            "grpc.v1.cri",
            "cri.v1.images",
            "cri.v1.runtime",
            "snapshotter.v1.btrfs",
            "snapshotter.v1.zfs",
        ];
        let unused: Vec<_> = unused.iter().map(|name| format!("io.containerd.{name}")).collect();
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = {unused:?}\n\
             [grpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("sock")
        );
        fs::write(dir.join("config.toml"), config).context("containerd's configuration")?;
        let mut containerd = Containerd {
            dir,
            programs,
            namespace: self.id().to_owned(),
            reaper: self.reaper(),
            running: None,
            containers: Mutex::default(),
        };
        containerd.start()?;
        Ok(containerd)
    }
}

impl Config {
    /// Asks this containerd.
    ///
    /// # Errors
    /// Never, but for a fault of the lab.
    pub fn with_containerd(self, containerd: &Containerd) -> Result<Self> {
        let Containerd { namespace, .. } = containerd;
        let socket = containerd.socket();
        self.with(&format!(
            "[inventory.containerd]\nsocket = {socket:?}\nnamespace = {namespace:?}"
        ))
    }
}

impl Containerd {
    /// Starts it, after its end or for the first time.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&mut self) -> Result<()> {
        let journal = Journal::default();
        let mut command = self.program("containerd")?;
        command.arg("--config").arg(self.dir.join("config.toml"));
        let log = self.dir.join("containerd.log");
        let process = Process::start(&mut command, &journal, log, &self.reaper)?;
        journal.await_line(&["containerd successfully booted"])?;
        self.running = Some((journal, process));
        Ok(())
    }

    /// Other versions than the machine's, oldest first, as `cargo xtask setup` has brought them.
    ///
    /// # Errors
    /// There are none.
    pub fn others() -> Result<Vec<PathBuf>> {
        let home = std::env::home_dir().context("no home directory")?;
        let all = home.join(".cache/guard/containerd");
        let missing = || format!("{}: `cargo xtask setup` brings them", all.display());
        let entries = fs::read_dir(&all).with_context(missing)?;
        let found = entries.map(|entry| {
            let dir = entry?.path();
            let version = output(Command::new(dir.join("containerd")).arg("--version"))?;
            // `containerd github.com/containerd/containerd 1.7.24~ds1 …`
            let version = version.split_whitespace().nth(2).context("no version")?.to_owned();
            Ok((version, dir))
        });
        let mut found: Vec<_> = found.collect::<Result<_>>().with_context(missing)?;
        found.sort();
        Ok(found.into_iter().map(|(_, dir)| dir).collect())
    }

    /// Ends it with SIGKILL, as [`Containerd::kill`] does; the next start is that of another
    /// version, one of [`Containerd::others`], with the same state.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_for(&mut self, programs: PathBuf) -> Result<()> {
        self.programs = Some(programs);
        self.kill()
    }

    /// Ends it with SIGKILL, and waits for its end. The containers run on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let (journal, process) = self.running.take().context("containerd does not run")?;
        process.signal(Signal::SIGKILL)?;
        journal.await_exit().map(drop)
    }

    /// Stops it where it is: it neither answers nor ends its connections.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.running.as_ref().context("containerd does not run")?.1.signal(signal)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    fn ctr(&self, args: &[&str]) -> Result<String> {
        output(self.command(self.program("ctr")?).args(args))
    }

    /// Where the containers' root is that are not from an image.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// One of its programs. Its shim is the first that it finds.
    fn program(&self, name: &str) -> Result<Command> {
        let Some(programs) = &self.programs else { return Ok(Command::new(name)) };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(programs.clone()).chain(std::env::split_paths(&path));
        let mut command = Command::new(programs.join(name));
        command.env("PATH", std::env::join_paths(path).context("PATH")?);
        Ok(command)
    }

    /// A command that ends in `ctr`, and now speaks to this containerd.
    pub(crate) fn command(&self, mut ctr: Command) -> Command {
        ctr.arg("--address").arg(self.socket()).args(["--namespace", &self.namespace]);
        ctr
    }

    /// Its directory in the lab's.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The namespace of its containers.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Counts a container among those that go with it.
    pub(crate) fn remember(&self, id: &str) {
        self.containers.lock().push(id.to_owned());
    }
}

impl Drop for Containerd {
    /// What the reaper would only kill is removed in good order, if it can be.
    fn drop(&mut self) {
        if self.running.is_none() && self.start().is_err() {
            return;
        }
        let _ = self.thaw();
        for id in std::mem::take(&mut *self.containers.lock()) {
            let _ = self.ctr(&["task", "delete", "--force", &id]);
            let _ = self.ctr(&["container", "rm", &id]);
        }
        if let Some((journal, process)) = self.running.take()
            && process.signal(Signal::SIGTERM).is_ok()
        {
            let _ = journal.await_exit();
        }
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(controller.path().join(&self.namespace));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.namespace));
    }
}
