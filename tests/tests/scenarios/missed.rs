//! Who takes an address while the agent is down.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::{Lab, Launch, eventually};

const QUICK: &str = "[conflict]\nquiet = \"1s\"\nflap_window = \"1ms\"";

#[test]
fn a01_who_takes_an_address_while_the_agent_is_down_is_told_when_it_is_back() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent_with(Launch::config(&lab.config()?.with(QUICK)?)?)?;
    let (owner, told) = (lab.sandbox("owner")?, lab.sandbox("told")?);
    let (thief, gone) = (lab.sandbox("thief")?, lab.sandbox("gone")?);
    let leases = [agent.admit(&owner)?, agent.allocate("b")?, agent.allocate("c")?];
    for lease in &leases[1..] {
        agent.bind(lease, &owner)?;
    }
    for sandbox in [&told, &thief, &gone] {
        agent.await_port(sandbox)?;
    }
    let incidents = |agent: &guard_tests::Agent| -> Result<Vec<serde_json::Value>> {
        agent.list(&["conflicts", "--all"], "conflicts")
    };
    told.announce(leases[0].address)?;
    eventually("its end", || {
        let all = incidents(&agent)?;
        Ok((all.len() == 1 && all[0]["open"] == false).then_some(()))
    })?;

    agent.kill()?;
    thief.announce(leases[1].address)?;
    gone.announce(leases[2].address)?;
    gone.delete()?;
    // Longer than an agent that runs remembers what it has told.
    let ended = Instant::now();
    eventually("that", || Ok((ended.elapsed() > Duration::from_secs(2)).then_some(())))?;
    agent.start_again()?;
    let all = eventually("both", || {
        let all = incidents(&agent)?;
        Ok((all.len() >= 3).then_some(all))
    })?;
    ensure!(all.len() == 3, "what was told is told once: {all:?}");
    for lease in &leases[1..] {
        let address = lease.address.to_string();
        let about = all.iter().find(|one| one["address"] == address.as_str());
        let about = about.with_context(|| format!("nothing about {address}: {all:?}"))?;
        ensure!(about["kind"] == "duplicate", "{about}");
        let alert = ["WARN", &address];
        eventually("the alert", || Ok((agent.journal().count(&alert) == 1).then_some(())))?;
    }
    // Nobody goes on: all of them end.
    eventually("their end", || {
        Ok(incidents(&agent)?.iter().all(|one| one["open"] == false).then_some(()))
    })
}
