//! The agent under test.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::{
    config::Config,
    journal::Journal,
    lab::Lab,
    launch::{Launch, PANIC, start},
    netns::Netns,
    process::Process,
    reaper::Reaper,
    sandbox::Sandbox,
    wait::eventually,
};

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
        self.launch(launch)?.await_end()
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

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id().as_raw().unsigned_abs()
    }

    /// How much memory it has resident, in KiB.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).with_context(|| format!("VmRSS in {path}"))
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

    /// Has it read another text of its configuration file, and waits until it has.
    ///
    /// # Errors
    /// It has ended.
    pub fn reload(&self, text: &str) -> Result<()> {
        let answers = || {
            let read = self.journal.count(&["configuration read anew"]);
            read + self.journal.count(&["nothing is changed"])
        };
        let before = answers();
        std::fs::write(self.dir.join("agent.toml"), text).context("writing the configuration")?;
        self.process.signal(Signal::SIGHUP)?;
        eventually("the configuration read anew", || Ok((answers() > before).then_some(())))
    }

    /// Ends it with SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.journal.await_exit().map(drop)
    }

    /// Has the part of [`Launch::panicking_in`] panic.
    ///
    /// # Errors
    /// The lab's directory is gone.
    pub fn panic(&self) -> Result<()> {
        std::fs::write(self.dir.join(PANIC), "").context("asking for a panic")
    }

    /// Waits for its end, which comes by itself, and returns its exit code and its log.
    ///
    /// # Errors
    /// It goes on.
    pub fn await_end(&self) -> Result<Exit> {
        let code = self.journal.await_exit()?;
        Ok(Exit { code, log: self.journal.text() })
    }

    /// Stops it where it is: it neither answers nor ends its connections.
    ///
    /// # Errors
    /// It is gone already.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is gone already.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
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

    /// As [`Agent::start_again`], where something is wrong: it serves, and is not ready.
    ///
    /// # Errors
    /// It does not serve.
    pub fn start_again_degraded(&mut self) -> Result<()> {
        self.journal.await_exit()?;
        (self.journal, self.process) = start(&self.launch, &self.host, &self.dir, &self.reaper)?;
        self.journal.await_ready()
    }

    /// Asks `guardctl check` whether store, index, kernel and wire agree.
    ///
    /// # Errors
    /// With what disagrees.
    pub fn check(&self) -> Result<()> {
        let found = self.ctl(&["check"])?;
        anyhow::ensure!(found.code == 0, "guardctl check: {}{}", found.stdout, found.stderr);
        Ok(())
    }

    /// Where its store is.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.join("state/leases.db")
    }

    /// As [`Agent::start_again`], in another way.
    ///
    /// # Errors
    /// It did not become ready.
    pub fn start_again_with(&mut self, launch: Launch) -> Result<()> {
        self.launch = launch;
        self.start_again()
    }

    /// Waits for its end, which comes by itself.
    ///
    /// # Errors
    /// It goes on, or a signal had no part in it.
    pub fn await_death(&self) -> Result<()> {
        match self.journal.await_exit()? {
            None => Ok(()),
            code => bail!("it ended with {code:?}:\n{}", self.journal.text()),
        }
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

    /// What disagrees, if the agent is there to be asked and has a store.
    fn disagreements(&self) -> Option<String> {
        let found = self.ctl(&["check", "-o", "json"]).ok()?;
        // A refusal prints nothing, and neither does an agent that has ended.
        (found.code == 1 && !found.stdout.is_empty()).then_some(found.stdout)
    }

    fn await_ready(&self) -> Result<()> {
        self.journal.await_ready()?;
        if self.launch.is_degraded() {
            return Ok(());
        }
        self.await_readyz(200).map(drop)
    }

    pub(crate) fn reaper(&self) -> &Reaper {
        &self.reaper
    }
}

/// Whatever a test has done to it, an agent that still serves agrees with itself.
impl Drop for Agent {
    #[expect(clippy::panic, reason = "a test must not pass over it")]
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Some(what) = self.disagreements()
        {
            panic!("guardctl check at the end: {what}\n{}", self.journal.text());
        }
    }
}
