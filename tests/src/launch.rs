//! How the agent is started, and how it is known to serve.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::{
    command::binary, config::Config, journal::Journal, netns::Netns, process::Process,
    reaper::Reaper,
};

static RUNS: AtomicU32 = AtomicU32::new(0);

/// What to start: a configuration, and what runs between `nsenter` and the agent.
#[derive(Clone, Debug)]
pub struct Launch {
    text: String,
    wrapper: Vec<String>,
    failpoint: Option<Failpoint>,
    degraded: bool,
}

/// Where it comes to harm.
#[derive(Clone, Debug)]
enum Failpoint {
    Moment(String),
    Part(String),
}

/// What a part that is to panic waits for, in the lab's directory.
pub(crate) const PANIC: &str = "panic";

impl Launch {
    /// With the text of a configuration file, whatever it says.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { text: text.to_owned(), wrapper: Vec::new(), failpoint: None, degraded: false }
    }

    /// With a configuration.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn config(config: &Config) -> Result<Self> {
        Ok(Self::text(&config.text()?))
    }

    /// So that it is gone, as by SIGKILL, when it gets to a moment for the `count`th time:
    /// `before_commit`, `after_commit` or `before_reply`. At `observer_round` its observer stands
    /// still for a while instead.
    #[must_use]
    pub fn dying_at(mut self, moment: &str, count: u32) -> Self {
        self.failpoint = Some(Failpoint::Moment(format!("{moment}={count}")));
        self
    }

    /// So that a part of it panics (or its thread does), once [`Agent::panic`] asks for it. The name
    /// is that which its log gives to the part.
    ///
    /// [`Agent::panic`]: crate::Agent::panic
    #[must_use]
    pub fn panicking_in(mut self, part: &str) -> Self {
        self.failpoint = Some(Failpoint::Part(part.to_owned()));
        self
    }

    /// As [`Launch::dying_at`], with a panic in place of SIGKILL.
    #[must_use]
    pub fn panicking_at(mut self, moment: &str, count: u32) -> Self {
        self.failpoint = Some(Failpoint::Moment(format!("panic:{moment}={count}")));
        self
    }

    /// Where something is missing, so that it serves without being ready.
    #[must_use]
    pub fn degraded(mut self) -> Self {
        self.degraded = true;
        self
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Under a program that executes what follows its own arguments.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }
}

pub(crate) fn start(
    launch: &Launch,
    host: &Netns,
    dir: &Path,
    reaper: &Reaper,
) -> Result<(Journal, Process)> {
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let config = dir.join("agent.toml");
    fs::write(&config, &launch.text).context("writing the configuration")?;
    let notify = dir.join(format!("notify-{run}"));
    let readiness = UnixDatagram::bind(&notify).context("binding the notify socket")?;
    // The agent may run as anyone.
    fs::set_permissions(&notify, Permissions::from_mode(0o666)).context("opening it to all")?;
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
    let failpoint = launch.failpoint.as_ref().map(|failpoint| match failpoint {
        Failpoint::Moment(moment) => moment.clone(),
        Failpoint::Part(name) => format!("{name}@{}", dir.join(PANIC).display()),
    });
    command.envs(failpoint.map(|failpoint| ("GUARD_FAILPOINT", failpoint)));
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
