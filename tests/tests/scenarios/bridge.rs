//! Bridges that are not there yet, or not any more.

use anyhow::{Context, Result};
use guard_tests::{Agent, BRIDGE, Lab, Launch, POOL};

fn is_refused_for_want_of_the_bridge(agent: &Agent) -> Result<()> {
    let body = agent.await_readyz(503)?;
    assert!(body.contains(BRIDGE), "{body}");
    let status = agent.json(&["status"])?;
    assert_eq!(status["ready"], false, "{status}");
    let degraded = status["degraded"].as_array().context("no list")?;
    let reason = degraded.iter().find(|reason| reason["what"] == format!("bridge {BRIDGE}"));
    assert!(reason.is_some_and(|reason| reason["why"].is_string()), "{status}");
    assert_eq!(status["bridges"][0]["present"], false, "{status}");
    let asked = ["allocate", "--pool", POOL, "--sandbox", "asker"];
    let refusal = agent.ctl(&asked)?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("UNAVAILABLE", "BRIDGE_ABSENT"));
    assert_eq!(agent.http("/healthz")?.status, 200);
    Ok(())
}

fn is_served(agent: &Agent) -> Result<()> {
    agent.await_readyz(200)?;
    agent.allocate("asker")?;
    assert_eq!(agent.json(&["status"])?["ready"], true);
    Ok(())
}

#[test]
fn one_that_does_not_exist_yet_is_picked_up_when_it_appears() -> Result<()> {
    let lab = Lab::without_bridge(24)?;
    let agent = lab.agent_with(Launch::config(&lab.config()?)?.degraded())?;
    is_refused_for_want_of_the_bridge(&agent)?;
    lab.add_bridge(BRIDGE)?;
    is_served(&agent)?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    assert_eq!(lab.programs_on(sandbox.port())?.len(), 1);
    sandbox.announce(lease.address)?;
    Ok(())
}

#[test]
fn one_that_vanishes_is_reported_and_picked_up_again() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    lab.remove_bridge(BRIDGE)?;
    is_refused_for_want_of_the_bridge(&agent)?;
    let entry = agent.entry(lease.address)?.context("the lease is lost")?;
    assert_eq!(entry["generation"], lease.generation);
    lab.add_bridge(BRIDGE)?;
    is_served(&agent)
}
