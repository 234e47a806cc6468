//! Stations that have been silent since before the first start: what the kernel knows of them.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, BRIDGE, CtlOutput, GATEWAY, Lab, POOL, Sandbox, eventually};

const OLD: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 50);

/// The kernel asks three times, a second apart.
const ASKED_FOR: Duration = Duration::from_secs(4);

fn ask(agent: &Agent) -> Result<CtlOutput> {
    let address = OLD.to_string();
    agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "next", "--address", &address])
}

/// The host has spoken with it, and the bridge has learned where it is.
fn known_to_the_host(lab: &Lab) -> Result<Sandbox> {
    let sandbox = lab.sandbox("old")?;
    sandbox.add_address(OLD)?;
    sandbox.ask(OLD, GATEWAY)?;
    let mac = sandbox.mac();
    lab.host().ip(&format!("neigh replace {OLD} lladdr {mac} dev {BRIDGE} nud stale"))?;
    Ok(sandbox)
}

fn sources(agent: &Agent) -> Result<Vec<String>> {
    let live = agent.list(&["live"], "live")?;
    let old = live.iter().find(|entry| entry["address"] == OLD.to_string().as_str());
    let evidence = old.and_then(|old| old["evidence"].as_array()).cloned().unwrap_or_default();
    Ok(evidence.iter().filter_map(|one| one["source"].as_str()).map(str::to_owned).collect())
}

#[test]
fn rule_2_a_station_that_was_silent_since_before_the_first_start_keeps_its_address() -> Result<()> {
    let lab = Lab::new()?;
    let old = known_to_the_host(&lab)?;
    let agent = lab.agent()?;
    let refusal = ask(&agent)?.refusal()?;
    // The evidence has quarantined it already.
    assert_eq!(
        (&*refusal.status, &*refusal.reason),
        ("FAILED_PRECONDITION", "ADDRESS_QUARANTINED")
    );
    assert_eq!(sources(&agent)?, ["kernel"]);
    // Its first frame makes it one like any other, and no conflict.
    old.ask(OLD, GATEWAY)?;
    eventually("its frame", || Ok((sources(&agent)? == ["wire"]).then_some(())))?;
    let open = agent.list(&["conflicts", "--all"], "conflicts")?;
    ensure!(open.iter().all(|one| one["kind"] == "unowned"), "{open:?}");
    Ok(())
}

#[test]
fn rule_2_a_neighbour_that_the_bridge_has_forgotten_is_asked_for_and_answers() -> Result<()> {
    let lab = Lab::new()?;
    let old = known_to_the_host(&lab)?;
    lab.host()
        .command("bridge")
        .args(["fdb", "del", &old.mac().to_string()])
        .args(["dev", old.port(), "master"])
        .status()?;
    let agent = lab.agent()?;
    // Held back first, and then for its answer.
    ask(&agent)?.refusal()?;
    eventually("its answer", || Ok((sources(&agent)? == ["wire"]).then_some(())))?;
    Ok(())
}

#[test]
fn rule_2_a_neighbour_that_is_gone_keeps_its_address_from_nobody() -> Result<()> {
    let lab = Lab::new()?;
    // Without a port the bridge would have no carrier, and the host no neighbours.
    lab.sandbox("other")?;
    known_to_the_host(&lab)?.delete()?;
    let agent = lab.agent()?;
    let refusal = ask(&agent)?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("FAILED_PRECONDITION", "ADDRESS_LIVE"));
    assert_eq!(agent.entry(OLD)?, None, "that is no evidence");
    let begun = std::time::Instant::now();
    eventually("the address", || Ok(ask(&agent)?.refusal().is_err().then_some(())))?;
    ensure!(begun.elapsed() < 2 * ASKED_FOR, "it took {:?}", begun.elapsed());
    agent.entry(OLD)?.context("it is leased")?;
    Ok(())
}
