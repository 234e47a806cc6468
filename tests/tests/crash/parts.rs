//! Rule 13: a part of the agent that ends takes the agent down with it, with its name, and what it
//! leaves is whole.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Exit, Lab, Launch, Lease, Sandbox, eventually};

/// Those that run in every agent, one with a directory, a runtime and a watchdog. The boot pass is
/// over when the others can be asked to panic.
const PARTS: [&str; 14] = [
    "ledger",
    "incident log",
    "observer",
    "sweep of the maps",
    "look at the ports",
    "vitals",
    "directory",
    "containerd",
    "reconciler",
    "watchdog",
    "watch over the store",
    "reloader",
    "gRPC server",
    "HTTP server",
];

const SETTINGS: &str = "[watchdog]\nenabled = true\n[conflict]\nlive_window = \"2s\"";

/// Far longer than it takes, and far shorter than anyone waits for an agent that only seems to run.
const SOON: Duration = Duration::from_secs(8);

/// An agent with all parts, and what is to be the same after each end.
struct Scene {
    // Dropped before the lab is.
    agent: Agent,
    launch: Launch,
    active: Lease,
    held: Lease,
    sandbox: Sandbox,
    squatter: Sandbox,
    lab: Lab,
}

impl Scene {
    fn new(lab: Lab, launch: Launch) -> Result<Self> {
        let agent = lab.agent_with(launch.clone())?;
        let (sandbox, squatter) = (lab.sandbox("a")?, lab.sandbox("squatter")?);
        let (active, held) = (agent.admit(&sandbox)?, agent.allocate("held")?);
        agent.await_port(&squatter)?;
        Ok(Self { agent, launch, active, held, sandbox, squatter, lab })
    }

    /// Ends the agent by a panic in a part. The program in the kernel sees what happens meanwhile.
    fn panics_in(&mut self, part: &str, meanwhile: Ipv4Addr) -> Result<()> {
        let Self { agent, launch, squatter, lab, .. } = self;
        agent.stop()?;
        agent.start_again_with(launch.clone().panicking_in(part))?;
        agent.panic()?;
        let asked = Instant::now();
        if part == "incident log" {
            // It has nothing to do before.
            squatter.announce(lab.prefix().addr())?;
        }
        let Exit { code, log } = agent.await_end()?;
        ensure!(code == Some(1), "it ended with {code:?}: {log}");
        ensure!(asked.elapsed() < SOON, "it took {:?}: {log}", asked.elapsed());
        let why = "it panicked: as GUARD_FAILPOINT says";
        ensure!(log.contains(&format!("part=\"{part}\" why=\"{why}\"")), "{log}");
        let message = format!("guard-agent: a part of the agent has ended, the {part}: {why}");
        ensure!(log.lines().any(|line| line == message), "no {message:?}: {log}");
        lab.forget_panic()?;

        squatter.announce(meanwhile)?;
        agent.start_again_with(launch.clone())?;
        for (lease, state) in [(&self.active, "active"), (&self.held, "held")] {
            ensure!(agent.state(lease)? == state, "{lease:?} is not {state}");
        }
        eventually("what was claimed meanwhile", || {
            let entry = agent.entry(meanwhile)?;
            Ok(entry.filter(|entry| entry["state"] == "quarantined").map(drop))
        })?;
        agent.check()
    }
}

#[test]
fn rule_13_a_part_that_panics_ends_the_agent_with_its_name() -> Result<()> {
    let lab = Lab::new()?;
    let (containerd, directory) = (lab.containerd()?, lab.directory()?);
    let config = lab.config()?.with_containerd(&containerd)?.with(&directory.section())?;
    let launch = Launch::config(&config.with(SETTINGS)?)?;
    let mut scene = Scene::new(lab, launch)?;
    for (number, part) in (100..).zip(PARTS) {
        let meanwhile = Ipv4Addr::new(10, 8, 64, number);
        scene.panics_in(part, meanwhile).with_context(|| format!("a panic in the {part}"))?;
    }
    // Nobody has lost anything: who is bound still is.
    scene.sandbox.announce(scene.active.address)?;
    scene.agent.stop()
}

/// A boot pass that panics leaves an agent that hands nothing out, for ever.
#[test]
fn rule_13_a_boot_pass_that_panics_ends_the_agent() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    directory.say(|said| said.list_fails = true);
    let config = lab.config()?.with(&directory.section())?;
    let agent = lab.agent_with(Launch::config(&config)?.degraded().panicking_in("boot pass"))?;
    agent.panic()?;
    let Exit { code, log } = agent.await_end()?;
    ensure!(code == Some(1) && log.contains("part=\"boot pass\""), "{code:?}: {log}");
    Ok(())
}
