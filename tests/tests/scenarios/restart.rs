//! An agent that ends, and starts again.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use guard_tests::{Agent, Lab, Lease, eventually, names};
use serde_json::Value;

/// The leases, less what may differ between two looks at the same.
fn leases(agent: &Agent) -> Result<Vec<Value>> {
    let mut leases = agent.list(&["leases"], "leases")?;
    for lease in leases.iter_mut().filter_map(Value::as_object_mut) {
        lease.remove("evidence");
        lease.remove("misses");
    }
    Ok(leases)
}

/// A lab with everything in it that a restart could lose.
fn survives(end: fn(&Agent) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (silent, talker) = (lab.sandbox("silent")?, lab.sandbox("talker")?);
    let (stranger, thief) = (lab.sandbox("stranger")?, lab.sandbox("thief")?);
    let silent_lease = agent.admit(&silent)?;
    let talker_lease = agent.admit(&talker)?;
    talker.announce(talker_lease.address)?;
    let held = agent.allocate("held")?;
    let cooling = agent.allocate("cooling")?;
    agent.release(&cooling)?;
    agent.await_port(&stranger)?;
    agent.await_port(&thief)?;
    let before = leases(&agent)?;
    let squatted = [10, 8, 64, 99].into();

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let attached = scope.spawn(|| -> Result<u64> {
            let mut looks = 0;
            while !over.load(Ordering::Relaxed) {
                for sandbox in [&silent, &talker] {
                    let programs = lab.programs_on(sandbox.port())?;
                    ensure!(programs.len() == 1, "{programs:?} on {}", sandbox.port());
                }
                looks += 1;
            }
            Ok(looks)
        });
        let restarted = (|| {
            end(&agent)?;
            assert!(!lab.pinned()?.is_empty(), "nothing is pinned while the agent is down");
            // What happens while nobody is looking.
            stranger.announce(squatted)?;
            thief.announce(talker_lease.address)?;
            agent.start_again()
        })();
        over.store(true, Ordering::Relaxed);
        let looks = attached.join().map_err(|_| anyhow!("the look-out panicked"))??;
        assert!(looks > 1, "{looks} looks are too few to say anything");
        restarted
    })?;

    let entry = eventually("the stranger in quarantine", || agent.entry(squatted))?;
    assert_eq!(entry["state"], "quarantined");
    assert!(names(&entry, stranger.mac(), stranger.port()), "{entry}");
    let conflict = eventually("the thief's incident", || {
        Ok(agent
            .list(&["conflicts"], "conflicts")?
            .into_iter()
            .find(|it| it["kind"] == "duplicate"))
    })?;
    assert_eq!(conflict["address"], talker_lease.address.to_string());
    assert!(conflict.to_string().contains(thief.port()), "{conflict}");

    let mut after = leases(&agent)?;
    after.retain(|lease| lease["address"] != "10.8.64.99");
    assert_eq!(after, before);
    assert_eq!(agent.allocate("held")?, held);
    let next = agent.allocate("next")?;
    assert!(next.generation > cooling.generation);
    assert_ne!(next.address, cooling.address);

    is_still_evidence(&agent, &silent_lease, silent.port())?;
    agent.stop()
}

/// A sandbox that never sent a frame is live for as long as its port is there.
fn is_still_evidence(agent: &Agent, lease: &Lease, port: &str) -> Result<()> {
    let live = agent.list(&["live"], "live")?;
    let address = lease.address.to_string();
    let entry = live.iter().find(|entry| entry["address"] == address.as_str());
    let entry = entry.with_context(|| format!("{address} is not in {live:?}"))?;
    assert_eq!(entry["lease"], lease.generation, "{entry}");
    assert_eq!(entry["interface"], port, "{entry}");
    assert_eq!(agent.release(lease)?, "releasing");
    Ok(())
}

#[test]
fn leases_and_evidence_survive_a_stop() -> Result<()> {
    survives(Agent::stop)
}

#[test]
fn leases_and_evidence_survive_a_kill() -> Result<()> {
    survives(Agent::kill)
}

#[test]
fn a_sandbox_that_goes_while_the_agent_is_down_is_gone_afterwards() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    sandbox.announce(lease.address)?;
    assert_eq!(agent.release(&lease)?, "releasing");
    agent.kill()?;
    sandbox.delete()?;
    agent.start_again()?;
    eventually("the address cooling", || {
        let entry = agent.entry(lease.address)?.context("the lease is lost")?;
        Ok((entry["state"] == "cooling").then_some(()))
    })
}

#[test]
fn event_numbers_go_on_over_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    agent.allocate("first")?;
    let (_, before) = agent
        .follow(&["events", "--from", "0"])?
        .next(|event| event["lease"]["sandbox"] == "first")?;
    agent.kill()?;
    agent.start_again()?;
    agent.allocate("second")?;
    let from = before["seq"].to_string();
    let (_, after) = agent
        .follow(&["events", "--from", &from])?
        .next(|event| event["lease"]["sandbox"] == "second")?;
    assert!(after["seq"].as_u64() > before["seq"].as_u64(), "{before} and then {after}");
    Ok(())
}
