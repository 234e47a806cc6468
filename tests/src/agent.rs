//! The agent under test.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::command::binary;
use crate::config::Config;
use crate::journal::Journal;
use crate::lab::Lab;
use crate::netns::Netns;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;
use crate::wait::eventually;

/// What to start: a configuration, and what runs between `nsenter` and the agent.
#[derive(Clone, Debug)]
pub struct Launch {
    text: String,
    wrapper: Vec<String>,
    degraded: bool,
}

impl Launch {
    /// With the text of a configuration file, whatever it says.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { text: text.to_owned(), wrapper: Vec::new(), degraded: false }
    }

    /// With a configuration.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn config(config: &Config) -> Result<Self> {
        Ok(Self::text(&config.text()?))
    }

    /// Where something is missing, so that it serves without being ready.
    #[must_use]
    pub fn degraded(mut self) -> Self {
        self.degraded = true;
        self
    }

    /// Under a program that executes what follows its own arguments.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }
}

/// How a run of the agent ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it logged, as one text.
    pub log: String,
}

/// `guard-agent run` in the host's namespace of a lab. It is killed when it is dropped.
#[derive(Debug)]
pub struct Agent {
    launch: Launch,
    host: Netns,
    dir: PathBuf,
    reaper: Arc<Reaper>,
    journal: Journal,
    process: Process,
}

static RUNS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// A configuration that fits this lab.
    ///
    /// # Errors
    /// Never, but for a fault of the lab.
    pub fn config(&self) -> Result<Config> {
        Config::of(self)
    }

    /// Starts the agent with [`Lab::config`], and waits until it serves and is ready.
    ///
    /// # Errors
    /// It is not built, or did not become ready.
    pub fn agent(&self) -> Result<Agent> {
        self.agent_with(Launch::config(&self.config()?)?)
    }

    /// As [`Lab::agent`], choosing how.
    ///
    /// # Errors
    /// As [`Lab::agent`].
    pub fn agent_with(&self, launch: Launch) -> Result<Agent> {
        let agent = self.launch(launch)?;
        agent.await_ready()?;
        Ok(agent)
    }

    /// Runs the agent where it is expected to give up by itself.
    ///
    /// # Errors
    /// It cannot be started, or goes on.
    pub fn agent_that_fails(&self, launch: Launch) -> Result<Exit> {
        let agent = self.launch(launch)?;
        let code = agent.journal.await_exit()?;
        Ok(Exit { code, log: agent.journal.text() })
    }

    fn launch(&self, launch: Launch) -> Result<Agent> {
        let (host, dir, reaper) = (self.host().clone(), self.dir().to_owned(), self.reaper());
        let (journal, process) = start(&launch, &host, &dir, &reaper)?;
        Ok(Agent { launch, host, dir, reaper, journal, process })
    }
}

impl Agent {
    /// What it says.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The namespace that it runs in.
    #[must_use]
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("guard.sock")
    }

    /// Ends it with SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It goes on, or did not exit with 0.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        match self.journal.await_exit()? {
            Some(0) => Ok(()),
            code => bail!("SIGTERM ended the agent with {code:?}:\n{}", self.journal.text()),
        }
    }

    /// Ends it with SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.journal.await_exit().map(drop)
    }

    /// Starts it anew, with the same configuration and a new journal, after its end.
    ///
    /// # Errors
    /// It did not become ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.journal.await_exit()?;
        (self.journal, self.process) = start(&self.launch, &self.host, &self.dir, &self.reaper)?;
        self.await_ready()
    }

    /// Waits for `/readyz` to answer with this status, and returns the body.
    ///
    /// # Errors
    /// It does not.
    pub fn await_readyz(&self, status: u16) -> Result<String> {
        // Readiness comes and goes without an event.
        let mut last = None;
        let found = eventually(&format!("{status} from /readyz"), || {
            let answer = self.http("/readyz")?;
            let body = (answer.status == status).then(|| answer.body.clone());
            last = Some(answer);
            Ok(body)
        });
        found.with_context(|| format!("last: {last:?}"))
    }

    /// Waits until the port of a sandbox is covered. Only `bind` promises that by itself; a frame
    /// that a new port sends before is not seen by anyone.
    ///
    /// # Errors
    /// It is not.
    pub fn await_port(&self, sandbox: &Sandbox) -> Result<()> {
        eventually(&format!("{} covered", sandbox.port()), || {
            let ports = self.list(&["ports"], "ports")?;
            let port = ports.iter().find(|port| port["interface"] == sandbox.port());
            Ok(port.filter(|port| port["covered"] == true).map(drop))
        })
    }

    fn await_ready(&self) -> Result<()> {
        self.journal.await_ready()?;
        if self.launch.degraded {
            return Ok(());
        }
        self.await_readyz(200).map(drop)
    }

    pub(crate) fn reaper(&self) -> &Reaper {
        &self.reaper
    }
}

fn start(launch: &Launch, host: &Netns, dir: &Path, reaper: &Reaper) -> Result<(Journal, Process)> {
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let config = dir.join("agent.toml");
    std::fs::write(&config, &launch.text).context("writing the configuration")?;
    let notify = dir.join(format!("notify-{run}"));
    let readiness = UnixDatagram::bind(&notify).context("binding the notify socket")?;
    let journal = Journal::default();
    watch_readiness(readiness, journal.clone());

    let agent = binary("guard-agent")?;
    let mut command = match launch.wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = host.command(program);
            command.args(arguments).arg(&agent);
            command
        }
        None => host.command(&agent),
    };
    command.arg("run").arg("--config").arg(&config);
    command.env("NOTIFY_SOCKET", &notify).env_remove("JOURNAL_STREAM").env_remove("RUST_LOG");
    let process = Process::start(&mut command, &journal, dir.join("agent.log"), reaper)?;
    Ok((journal, process))
}

/// Reads the messages of the service manager's protocol until the first that says READY=1. The
/// thread of an agent that never becomes ready ends with the test.
fn watch_readiness(socket: UnixDatagram, journal: Journal) {
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(read) = socket.recv(&mut message) {
            let text = String::from_utf8_lossy(message.get(..read).unwrap_or_default());
            if text.lines().any(|line| line == "READY=1") {
                return journal.set_ready();
            }
        }
    });
}

/// A child whose end its journal learns of.
#[derive(Debug)]
struct Process {
    pid: Pid,
    /// Held while the process is waited for and while it is signalled, so that a signal never
    /// goes to another one that got the same id.
    ended: Arc<Mutex<bool>>,
}

impl Process {
    fn start(
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

    fn signal(&self, signal: Signal) -> Result<()> {
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
