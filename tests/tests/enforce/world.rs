//! A bridge with a victim, an attacker, a port that nobody is bound to, and a neighbour.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    Agent, Arp, BRIDGE, Config, GATEWAY, Lab, Launch, Lease, Mac, Sandbox, eventually, run,
};

use crate::watch::{Belief, Watched};

/// A mode of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Observe,
    Enforce,
}

/// The bridge [`BRIDGE`] with its sandboxes. Victim, attacker and neighbour have a lease each, bound by MAC
/// and port.
pub(crate) struct World {
    pub lab: Lab,
    pub agent: Agent,
    pub victim: Sandbox,
    pub attacker: Sandbox,
    pub neighbour: Sandbox,
    /// Bound to nothing, and without an address.
    pub free: Sandbox,
    pub leases: Leases,
    config: Config,
    bridge: String,
}

/// Who has what.
pub(crate) struct Leases {
    pub victim: Lease,
    pub attacker: Lease,
    pub neighbour: Lease,
}

impl World {
    /// In observe.
    pub(crate) fn new() -> Result<Self> {
        Self::with("", Ok)
    }

    /// With further lines for the bridge's section, and a changed configuration.
    pub(crate) fn with(
        bridge: &str,
        change: impl FnOnce(Config) -> Result<Config>,
    ) -> Result<Self> {
        let lab = Lab::new()?;
        let config = change(lab.config()?)?;
        let text = section(bridge, Mode::Observe);
        let agent = lab.agent_with(Launch::config(&config.clone().with(&text)?)?)?;
        let [victim, attacker, neighbour, free] =
            ["victim", "attacker", "neighbour", "free"].map(|name| lab.sandbox(name));
        let (victim, attacker, neighbour, free) = (victim?, attacker?, neighbour?, free?);
        let admit = |sandbox: &Sandbox| -> Result<Lease> {
            let lease = agent.admit(sandbox)?;
            agent.await_port(sandbox)?;
            sandbox.announce(lease.address)?;
            Ok(lease)
        };
        let leases = Leases {
            victim: admit(&victim)?,
            attacker: admit(&attacker)?,
            neighbour: admit(&neighbour)?,
        };
        agent.await_port(&free)?;
        let bridge = bridge.to_owned();
        Ok(Self { lab, agent, victim, attacker, neighbour, free, leases, config, bridge })
    }

    /// Switches the bridge by the configuration file.
    pub(crate) fn switch(&self, mode: Mode) -> Result<()> {
        self.agent.reload(&self.config_of(mode)?.text()?)
    }

    /// In enforce, with these lines in the bridge's section in the place of those that it had.
    pub(crate) fn except(&mut self, lines: &str) -> Result<()> {
        lines.clone_into(&mut self.bridge);
        self.switch(Mode::Enforce)
    }

    fn config_of(&self, mode: Mode) -> Result<Config> {
        self.config.clone().with(&section(&self.bridge, mode))
    }

    /// Ends the agent with SIGKILL, lets something happen, and starts it again in enforce.
    pub(crate) fn die_and_start_again<T>(
        &mut self,
        meanwhile: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        self.agent.kill()?;
        let result = meanwhile(self)?;
        self.agent.start_again_with(Launch::config(&self.config_of(Mode::Enforce)?)?)?;
        Ok(result)
    }

    /// The same, and sections of other bridges come before this one's from then on.
    pub(crate) fn die_and_start_again_behind(&mut self, others: &str) -> Result<()> {
        self.agent.kill()?;
        let sections = format!("{others}\n{}", section(&self.bridge, Mode::Enforce));
        let config = self.config.clone().with(&sections)?;
        self.agent.start_again_with(Launch::config(&config)?)
    }

    /// Frames that the bridge has dropped for a reason.
    pub(crate) fn dropped(&self, reason: &str) -> Result<u64> {
        self.count("guard_frames_dropped_total", reason)
    }

    /// Frames that it would have.
    pub(crate) fn would_drop(&self, reason: &str) -> Result<u64> {
        self.count("guard_frames_would_drop_total", reason)
    }

    fn count(&self, metric: &str, reason: &str) -> Result<u64> {
        let labels = [("bridge", BRIDGE), ("reason", reason)];
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(self.agent.metric(metric, &labels)?.unwrap_or_default() as u64)
    }

    /// Everything that has been dropped, by reason; only what is not zero.
    pub(crate) fn all(&self, metric: &str) -> Result<Vec<(String, f64)>> {
        let samples = self.agent.metrics()?;
        let samples = samples.into_iter().filter(|s| s.name == metric && s.value != 0.0);
        Ok(samples.map(|sample| (sample.labels, sample.value)).collect())
    }

    /// The victim's, the neighbour's and the gateway's addresses and MACs, and the ports of the two.
    pub(crate) fn belief(&self) -> Belief {
        let gateway = self.lab.bridge_mac(BRIDGE);
        let stations =
            [(&self.victim, &self.leases.victim), (&self.neighbour, &self.leases.neighbour)];
        let mut addresses = vec![(IpAddr::from(GATEWAY), gateway)];
        addresses.extend(stations.map(|(sandbox, lease)| (lease.address.into(), sandbox.mac())));
        let ports = stations.map(|(sandbox, _)| (sandbox.mac(), sandbox.port().to_owned()));
        Belief { addresses, ports: ports.into() }
    }

    /// Watches everybody's kernel, and two connections of the victim.
    pub(crate) fn watch(&self) -> Result<Watched> {
        let tables = [self.victim.netns(), self.neighbour.netns(), self.lab.host()];
        let to = [GATEWAY.into(), self.leases.neighbour.address.into()];
        let (dir, host) = (self.lab.dir(), self.lab.host());
        Watched::begin(dir, self.belief(), host, &tables, self.victim.netns(), &to)
    }

    /// A sandbox on a new port that speaks with this MAC and this address.
    pub(crate) fn comes_anew(&self, mac: Mac, address: Ipv4Addr) -> Result<Sandbox> {
        let again = self.lab.sandbox_with("again", BRIDGE, mac)?;
        self.agent.await_port(&again)?;
        again.add_address(address)?;
        again.announce(address)?;
        tool(&again, 5, "ping", &["-q", "-c3", "-i0.2", &GATEWAY.to_string()])?;
        Ok(again)
    }

    /// Everybody is asked anew, as after an attack that came through.
    pub(crate) fn heal(&self) -> Result<()> {
        let lab =
            [self.victim.netns(), self.neighbour.netns(), self.attacker.netns(), self.lab.host()];
        for netns in lab {
            netns.ip("neigh flush all")?;
        }
        self.victim.announce(self.leases.victim.address)?;
        self.neighbour.announce(self.leases.neighbour.address)
    }

    /// An attack: in observe it is counted under `reason` as what would have been dropped, and in enforce it
    /// is dropped, nobody believes it, and the victim's connections lose nothing.
    pub(crate) fn attack(&self, reason: &str, act: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let before = self.would_drop(reason)?;
        act(self).context("in observe")?;
        eventually(&format!("{reason} in observe"), || {
            Ok((self.would_drop(reason)? > before).then_some(()))
        })?;
        ensure!(self.dropped(reason)? == 0, "observe drops nothing");
        self.heal()?;
        self.switch(Mode::Enforce)?;
        let (before, watched) = (self.dropped(reason)?, self.watch()?);
        act(self).context("in enforce")?;
        eventually(&format!("{reason} in enforce"), || {
            Ok((self.dropped(reason)? > before).then_some(()))
        })?;
        self.is_explained(reason)?;
        watched.held()
    }

    /// `guardctl why` of the port names the reason, its rule, the first frame, and whose it is what that
    /// claims; and `drops` adds up to the metric (scenario 53).
    fn is_explained(&self, reason: &str) -> Result<()> {
        let rows = self.agent.list(&["drops", "--bridge", BRIDGE, "--reason", reason], "drops")?;
        let port = rows.first().and_then(|row| row["interface"].as_str()).context("no row")?;
        let why = self.agent.json(&["why", "--port", port])?;
        let rows = why["drops"].as_array().context("no rows")?;
        let row = rows.iter().find(|row| row["reason"] == reason);
        let row = row.with_context(|| format!("{reason} is not in {why}"))?;
        ensure!(row["rule"].is_string() && row["says"].is_string(), "{row}");
        if ["violation", "clone", "bridge_mac", "probe"].contains(&reason) {
            ensure!(row["owner"].is_string(), "whose is it? {row}");
        }
        eventually("drops that add up to the metric", || {
            let metric = self.dropped(reason)?;
            let args = ["drops", "--bridge", BRIDGE, "--reason", reason];
            let rows = self.agent.list(&args, "drops")?;
            let sum: u64 = rows.iter().filter_map(|row| row["dropped"].as_u64()).sum();
            Ok((sum == metric).then_some(()))
        })
    }
}

/// The bridge's section of the configuration.
fn section(more: &str, mode: Mode) -> String {
    let mode = if mode == Mode::Observe { "observe" } else { "enforce" };
    format!("[[bridge]]\nname = {BRIDGE:?}\nmode = {mode:?}\n{more}\n")
}

/// Runs a program of the sandbox's for so many seconds at most, as an attacker at its keyboard does.
pub(crate) fn tool(from: &Sandbox, seconds: u32, program: &str, args: &[&str]) -> Result<()> {
    let mut command = from.netns().command("timeout");
    command.args(["--signal=INT", "--kill-after=2", &seconds.to_string(), program]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    // Some end with the first key, and at the end of their input.
    let keyboard = child.stdin.take();
    let status = child.wait().with_context(|| format!("waiting for {program}"))?;
    drop(keyboard);
    // What `timeout` says of a program that is not there.
    ensure!(
        ![125, 126, 127].contains(&status.code().unwrap_or(0)),
        "{program} does not run: {status}"
    );
    Ok(())
}

/// Sends a frame from a sandbox.
pub(crate) fn send(from: &Sandbox, frame: &[u8]) -> Result<()> {
    from.raw_socket()?.send(frame)
}

/// Sends an ARP packet from a sandbox.
pub(crate) fn arp(from: &Sandbox, arp: &Arp) -> Result<()> {
    send(from, &arp.frame())
}

/// A frame of an ethertype that nobody speaks, which the bridge learns from all the same.
pub(crate) fn of_ethertype(from: Mac, to: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = [to.octets(), from.octets()].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// How many entries the FDB has that were learned on a port.
pub(crate) fn learned_on(lab: &Lab, sandbox: &Sandbox) -> Result<usize> {
    let shown = run(
        "bridge",
        &["-n", lab.host().name(), "fdb", "show", "brport", sandbox.port(), "dynamic"],
    )?;
    Ok(shown.lines().count())
}
