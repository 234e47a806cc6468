//! Rule 2 at its end: when too much of the pool is live without a lease.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Lab, Launch, POOL, eventually};
use serde_json::Value;

const ARGS: [&str; 5] = ["allocate", "--pool", POOL, "--sandbox", "asker"];

/// Has squatters take the first `count` addresses of the pool, each fewer than its quota, and
/// waits until all are in quarantine.
fn squat(lab: &Lab, agent: &Agent, count: usize) -> Result<()> {
    let hosts: Vec<Ipv4Addr> = lab.prefix().hosts().skip(1).take(count).collect();
    for (number, addresses) in hosts.chunks(12).enumerate() {
        let squatter = lab.sandbox(&format!("squat{number}"))?;
        agent.await_port(&squatter)?;
        addresses.iter().try_for_each(|&address| squatter.announce(address))?;
    }
    let listed = eventually(&format!("{count} addresses in quarantine"), || {
        let listed = agent.list(&["leases", "--state", "quarantined"], "leases")?;
        Ok((listed.len() == count).then_some(listed))
    })?;
    let named = |entry: &Value| {
        let port = entry["interface"].as_str().is_some_and(|port| port.starts_with("veth-squat"));
        port && entry["mac"].is_string()
    };
    let unnamed = listed.iter().find(|entry| !named(entry));
    ensure!(unnamed.is_none(), "neither MAC nor port: {unnamed:?}");
    Ok(())
}

#[test]
fn rule_2_after_32_live_candidates_there_is_no_conflict_free_address() -> Result<()> {
    let lab = Lab::with_prefix(24)?;
    // Forty addresses, .2 to .41, all of them taken: in whatever order they are tried.
    let exclude =
        r#"["10.8.64.42/31", "10.8.64.44/30", "10.8.64.48/28", "10.8.64.64/26", "10.8.64.128/25"]"#;
    let config = lab.config()?.with_pool("exclude", exclude)?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    squat(&lab, &agent, 40)?;
    let refusal = agent.ctl(&ARGS)?.refusal()?;
    assert_eq!(refusal.status, "RESOURCE_EXHAUSTED");
    assert_eq!(refusal.reason, "NO_CONFLICT_FREE_ADDRESS");
    assert!(refusal.message.contains(POOL), "{}", refusal.message);
    Ok(())
}

/// Whatever the order in which they are tried, and however many of them count.
#[test]
fn rule_2_the_one_free_address_among_forty_squatted_is_found() -> Result<()> {
    let lab = Lab::with_prefix(24)?;
    let exclude =
        r#"["10.8.64.43/32", "10.8.64.44/30", "10.8.64.48/28", "10.8.64.64/26", "10.8.64.128/25"]"#;
    let config = lab.config()?.with_pool("exclude", exclude)?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    squat(&lab, &agent, 40)?;
    let first = agent.ctl(&ARGS)?;
    if first.code != 0 {
        ensure!(first.refusal()?.reason == "NO_CONFLICT_FREE_ADDRESS", "{first:?}");
    }
    // The same asker: whichever of the two calls was served, it is the one lease.
    ensure!(agent.lease(&ARGS)?.address == Ipv4Addr::new(10, 8, 64, 42));
    let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "another"])?.refusal()?;
    ensure!(refusal.reason == "NO_CONFLICT_FREE_ADDRESS", "{refusal:?}");
    Ok(())
}

#[test]
fn rule_2_the_next_call_goes_on_from_there() -> Result<()> {
    let lab = Lab::with_prefix(28)?;
    let config = lab.config()?.with_pool("max_attempts", "4")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    squat(&lab, &agent, 7)?;
    // Seven of thirteen are taken, so that two calls of four tries each must find one of the six.
    let free = lab.prefix().hosts().nth(8).context("no ninth host")?;
    for _ in 0..2 {
        let output = agent.ctl(&[ARGS.as_slice(), &["-o", "json"]].concat())?;
        if output.code == 0 {
            let address: Ipv4Addr =
                output.json()?["address"].as_str().context("no address")?.parse()?;
            assert!(address >= free, "{address} is a squatter's");
            return Ok(());
        }
        assert_eq!(output.refusal()?.reason, "NO_CONFLICT_FREE_ADDRESS");
    }
    anyhow::bail!("two calls looked at the same four addresses")
}
