//! What the kernels of a world believe while something goes on.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{Mac, Netns};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A program that runs for as long as something is looked at, and what it writes.
struct Recorder {
    child: Child,
    output: PathBuf,
}

impl Recorder {
    fn start(mut command: Command, output: PathBuf) -> Result<Self> {
        let file = fs::File::create(&output).with_context(|| output.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, output })
    }

    /// Ends it as Ctrl-C does, and returns what it has written.
    fn finish(mut self) -> Result<String> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?);
        kill(pid, Signal::SIGINT).context("ending a recorder")?;
        self.child.wait().context("waiting for a recorder")?;
        fs::read_to_string(&self.output).with_context(|| self.output.display().to_string())
    }
}

impl Drop for Recorder {
    /// Nothing runs on after a test that has failed.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What must not move.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    /// Who has each address.
    pub addresses: Vec<(IpAddr, Mac)>,
    /// The port that each MAC is behind.
    pub ports: Vec<(Mac, String)>,
}

/// Kernels and a connection that are being watched.
pub(crate) struct Watched {
    belief: Belief,
    neighbours: Vec<(String, Recorder)>,
    fdb: Recorder,
    pings: Vec<(IpAddr, Recorder)>,
}

impl Watched {
    /// Watches the neighbour tables of `tables`, the FDB of the host, and pings from `from` to each of `to`,
    /// which have answered once when this returns.
    pub(crate) fn begin(
        dir: &std::path::Path,
        belief: Belief,
        host: &Netns,
        tables: &[&Netns],
        from: &Netns,
        to: &[IpAddr],
    ) -> Result<Self> {
        let file = |name: String| dir.join(name.replace([':', '.', '/'], "-"));
        let mut neighbours = Vec::new();
        for table in tables {
            let mut monitor = Command::new("ip");
            monitor.args(["-n", table.name(), "monitor", "neigh"]);
            let recorder = Recorder::start(monitor, file(format!("neigh-{}", table.name())))?;
            neighbours.push((table.name().to_owned(), recorder));
        }
        let mut monitor = Command::new("bridge");
        monitor.args(["-n", host.name(), "monitor", "fdb"]);
        let fdb = Recorder::start(monitor, file("fdb".to_owned()))?;
        let mut pings = Vec::new();
        for address in to {
            let once =
                from.command("ping").args(["-q", "-c1", "-w5", &address.to_string()]).output();
            let once = once.context("cannot start ping")?;
            ensure!(once.status.success(), "{address} does not answer: {once:?}");
            let mut ping = from.command("ping");
            ping.args(["-q", "-i0.02", "-W1", &address.to_string()]);
            pings.push((*address, Recorder::start(ping, file(format!("ping-{address}")))?));
        }
        Ok(Self { belief, neighbours, fdb, pings })
    }

    /// Ends it: nobody believed anything else, and the connection has lost nothing.
    pub(crate) fn held(self) -> Result<()> {
        let Self { belief, neighbours, fdb, pings } = self;
        for (address, ping) in pings {
            let said = ping.finish()?;
            let (sent, received) = counts(&said).with_context(|| format!("ping says {said:?}"))?;
            // The last one may be on its way.
            ensure!(
                sent > 0 && received + 1 >= sent,
                "{address} answered {received} of {sent} pings"
            );
        }
        for (table, recorder) in neighbours {
            let said = recorder.finish()?;
            for line in said.lines() {
                let moved =
                    belief.addresses.iter().find(|(address, mac)| is_other(line, address, *mac));
                ensure!(moved.is_none(), "in {table} a neighbour moved: {line} ({moved:?})");
            }
        }
        let said = fdb.finish()?;
        for line in said.lines().filter(|line| !line.starts_with("Deleted")) {
            let moved = belief.ports.iter().find(|(mac, port)| {
                line.starts_with(&mac.to_string()) && !line.contains(&format!("dev {port} "))
            });
            ensure!(moved.is_none(), "a MAC moved in the FDB: {line} ({moved:?})");
        }
        Ok(())
    }
}

/// Whether a line of `ip monitor neigh` gives an address to another MAC.
fn is_other(line: &str, address: &IpAddr, mac: Mac) -> bool {
    let mut words = line.split_whitespace();
    let named = words.next() == Some(&address.to_string());
    let lladdr = words.skip_while(|word| *word != "lladdr").nth(1);
    named && lladdr.is_some_and(|lladdr| lladdr != mac.to_string())
}

/// What `ping -q` has sent and received.
fn counts(said: &str) -> Option<(u64, u64)> {
    let line = said.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = line.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}
