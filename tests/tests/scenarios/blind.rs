//! What is known: evidence that has not been read is not evidence that there is none. What falls due
//! while the agent is down, or before it has read all that there is, waits until it has.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use guard_tests::{Agent, Lab, Launch, Lease, POOL, Sandbox, eventually};

const SUBSCRIBER: &str = "[[subscriber]]\nname = \"proxy\"\nhold_deadline = \"1s\"";

/// Longer than any of the deadlines here.
const DUE: Duration = Duration::from_millis(1500);

/// Passes in quick succession, each of which would do harm.
const QUICK: &str = "[reconcile]\ninterval = \"200ms\"";

/// Ends the agent, and starts it again when all its deadlines have passed.
fn is_down_meanwhile(agent: &mut Agent) -> Result<()> {
    agent.kill()?;
    let ended = Instant::now();
    eventually("the deadlines", || Ok((ended.elapsed() > DUE).then_some(())))?;
    agent.start_again()
}

/// The only address goes to nobody else.
fn is_kept(agent: &Agent, lease: &Lease, states: &[&str]) -> Result<()> {
    for _ in 0..3 {
        agent.json(&["reconcile"])?;
        let state = agent.state(lease)?;
        ensure!(states.contains(&&*state), "{lease:?} is {state}");
    }
    let refused = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "next"])?.refusal()?;
    ensure!(refused.status == "RESOURCE_EXHAUSTED", "{refused:?}");
    agent.check()
}

/// A lab with one address, and an agent with these settings.
fn scene(settings: &str, unconfirmed: &str) -> Result<(Lab, Agent)> {
    let lab = Lab::with_prefix(30)?;
    let agent = start(&lab, settings, unconfirmed)?;
    Ok((lab, agent))
}

fn start(lab: &Lab, settings: &str, unconfirmed: &str) -> Result<Agent> {
    let config = lab.config()?.with(settings)?.with(QUICK)?;
    let config = config.with_pool("unconfirmed_ttl", &format!("{unconfirmed:?}"))?;
    lab.agent_with(Launch::config(&config)?)
}

/// Asks for an address and says which port and MAC will use it.
fn declared(agent: &Agent, sandbox: &Sandbox) -> Result<Lease> {
    let mac = sandbox.mac().to_string();
    let asker = ["--sandbox", sandbox.name(), "--mac", &mac, "--interface", sandbox.port()];
    agent.lease(&[&["allocate", "--pool", POOL], asker.as_slice()].concat())
}

#[test]
fn rule_9_a_hold_that_expires_while_the_agent_is_down_frees_no_address_of_a_silent_sandbox()
-> Result<()> {
    let (lab, mut agent) = scene(SUBSCRIBER, "10m")?;
    let sandbox = lab.sandbox("silent")?;
    let lease = agent.admit(&sandbox)?;
    ensure!(agent.release(&lease)? == "releasing");
    is_down_meanwhile(&mut agent)?;
    is_kept(&agent, &lease, &["releasing"])?;
    // The deadline has not been forgotten either.
    agent.journal().await_line(&["did not acknowledge", "proxy", &lease.address.to_string()])?;
    sandbox.delete()?;
    agent.await_state(&lease, "cooling")
}

#[test]
fn rule_9_a_hold_that_expires_while_the_agent_is_down_ends_once_all_is_known() -> Result<()> {
    let (_lab, mut agent) = scene(SUBSCRIBER, "10m")?;
    let lease = agent.allocate("gone")?;
    ensure!(agent.release(&lease)? == "releasing");
    is_down_meanwhile(&mut agent)?;
    agent.journal().await_line(&["did not acknowledge", "proxy", &lease.address.to_string()])?;
    agent.await_state(&lease, "cooling")
}

#[test]
fn rule_10_a_held_lease_whose_time_runs_out_while_the_agent_is_down_is_its_owners_to_confirm()
-> Result<()> {
    let (lab, mut agent) = scene("", "1s")?;
    let sandbox = lab.sandbox("starting")?;
    let lease = declared(&agent, &sandbox)?;
    ensure!(agent.state(&lease)? == "held");
    is_down_meanwhile(&mut agent)?;
    is_kept(&agent, &lease, &["held"])?;
    let confirmed = agent.json(&["confirm", "--generation", &lease.generation.to_string()])?;
    ensure!(confirmed["outcome"] == "done", "{confirmed}");
    is_kept(&agent, &lease, &["active"])
}

/// The sandbox took its port with it.
#[test]
fn rule_10_a_held_lease_whose_time_runs_out_while_the_agent_is_down_cools_once_all_is_known()
-> Result<()> {
    let (lab, mut agent) = scene("", "1s")?;
    let sandbox = lab.sandbox("starting")?;
    let lease = declared(&agent, &sandbox)?;
    agent.kill()?;
    sandbox.delete()?;
    let ended = Instant::now();
    eventually("the deadline", || Ok((ended.elapsed() > DUE).then_some(())))?;
    agent.start_again()?;
    agent.await_state(&lease, "cooling")?;
    let confirmed = agent.json(&["confirm", "--generation", &lease.generation.to_string()])?;
    ensure!(confirmed["outcome"] == "stale", "{confirmed}");
    Ok(())
}

/// A source that answers no more holds back what it could keep, without a limit in time.
#[test]
fn rule_9_a_hold_that_expires_ends_only_where_every_source_has_answered_since() -> Result<()> {
    let lab = Lab::with_prefix(30)?;
    let directory = lab.directory()?;
    let agent = start(&lab, &format!("{SUBSCRIBER}\n{}", directory.section()), "10m")?;
    let (lease, released) = (agent.allocate("gone")?, Instant::now());
    directory.say(|said| said.list_fails = true);
    agent.journal().await_line(&["degraded", "directory"])?;
    ensure!(agent.release(&lease)? == "releasing");
    eventually("the deadline", || Ok((released.elapsed() > 2 * DUE).then_some(())))?;
    ensure!(agent.state(&lease)? == "releasing", "the directory may know of it");
    directory.say(|said| said.list_fails = false);
    agent.await_state(&lease, "cooling")
}
