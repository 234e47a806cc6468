//! Reasons to keep an address that have to be remembered (`leases.md`, "What is known", rules 4 and
//! 7): what a silent sandbox has given back, and what is leased where the pool was before.

use anyhow::{Context, Result};
use guard_api::proto::directory::State;
use guard_tests::{BRIDGE, Lab, Launch, POOL, eventually};

use crate::inventory::{QUICK, await_passes};

/// Its controller has given it back, and only the container's label speaks for it.
#[test]
fn rule_4_what_a_label_alone_keeps_is_not_adopted_again_by_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let config = lab.config()?.with_containerd(&containerd)?.with_pool("cooldown", "\"1ms\"")?;
    let mut agent = lab.agent_with(Launch::config(&config.with(QUICK)?)?)?;
    let lease = agent.confirmed("web")?;
    containerd.run("web", None, &lease.address.to_string())?;
    eventually("the label", || {
        let entry = agent.entry(lease.address)?.context("it is free")?;
        Ok(entry["evidence"].as_array().is_some_and(|all| !all.is_empty()).then_some(()))
    })?;
    assert_eq!(agent.release(&lease)?, "releasing");
    for _ in 0..2 {
        agent.kill()?;
        agent.start_again()?;
        await_passes(&agent, "done", 3.0)?;
        assert_eq!(agent.state(&lease)?, "releasing");
        assert_ne!(agent.allocate("other")?.address, lease.address);
    }
    containerd.remove("web")?;
    agent.await_state(&lease, "free")
}

/// As CNI's containers do, it names no address: it is known by its id.
#[test]
fn rule_4_a_container_that_names_no_address_keeps_what_it_gave_back() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let config = lab.config()?.with_containerd(&containerd)?.with_pool("cooldown", "\"1ms\"")?;
    let mut agent = lab.agent_with(Launch::config(&config.with(QUICK)?)?)?;
    let lease = agent.confirmed("by-its-id")?;
    containerd.run_in("by-its-id", None, &[])?;
    eventually("the container", || {
        let entry = agent.entry(lease.address)?.context("it is free")?;
        Ok(entry["evidence"].as_array().is_some_and(|all| !all.is_empty()).then_some(()))
    })?;
    assert_eq!(agent.release(&lease)?, "releasing");
    agent.kill()?;
    agent.start_again()?;
    await_passes(&agent, "done", 3.0)?;
    assert_eq!(agent.state(&lease)?, "releasing");
    containerd.remove("by-its-id")?;
    agent.await_state(&lease, "free")
}

#[test]
fn rule_4_a_sandbox_that_the_directory_lists_keeps_what_it_gave_back() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    directory.say(|said| {
        said.listed.insert("web/1".to_owned(), State::Alive);
        said.found.insert("web/1".to_owned(), State::Alive);
    });
    let config = lab.config()?.with(&directory.section())?.with_pool("cooldown", "\"1ms\"")?;
    let mut agent = lab.agent_with(Launch::config(&config.with(QUICK)?)?)?;
    let ask = |run: &str| {
        agent.lease(&["allocate", "--pool", POOL, "--sandbox", "web", "--lifecycle", run])
    };
    let (first, second) = (ask("1")?, ask("2")?);
    assert_eq!(agent.release(&first)?, "releasing", "this run is listed");
    assert_eq!(agent.release(&second)?, "releasing", "nobody has asked since");
    agent.await_state(&second, "free")?;
    agent.kill()?;
    agent.start_again()?;
    await_passes(&agent, "done", 3.0)?;
    assert_eq!(agent.state(&first)?, "releasing");
    directory.say(|said| {
        said.listed.clear();
        said.found.clear();
    });
    agent.await_state(&first, "free")
}

/// What an event was lost of, a pass finds: nothing that is in use counts as free, and no quarantine
/// is for ever.
#[test]
fn rule_7_a_pass_is_the_net_beneath_the_events() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with(QUICK)?.with_pool("probation", "\"300ms\"")?;
    let config = config.with("[conflict]\nlive_window = \"1s\"")?;
    let mut agent = lab.agent_with(Launch::config(&config)?)?;
    let squatter = lab.sandbox("squatter")?;
    agent.await_port(&squatter)?;
    agent.stop()?;
    let address = [10, 8, 64, 77].into();
    squatter.announce(address)?;
    assert!(lab.lose_events()? > 0, "the frame was told of");
    agent.start_again()?;
    eventually("its quarantine", || {
        let entry = agent.entry(address)?;
        Ok(entry.is_some_and(|entry| entry["state"] == "quarantined").then_some(()))
    })?;
    // It has no address of its own, so that it answers no question.
    eventually("the end of it", || Ok(agent.entry(address)?.is_none().then_some(())))?;
    agent.check()
}

#[test]
fn what_is_leased_on_the_pools_former_segment_is_held_back_on_the_new_one() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with(QUICK)?.with_pool("cooldown", "\"1ms\"")?;
    let mut agent = lab.agent_with(Launch::config(&config)?)?;
    let sandbox = lab.sandbox("silent")?;
    let lease = agent.admit(&sandbox)?;
    agent.stop()?;
    // The VLAN is corrected in the file.
    agent.start_again_with(Launch::config(&config.clone().with_pool("vlan", "7")?)?)?;
    agent.journal().await_line(&["WARN", &lease.address.to_string(), "on its segment"])?;
    let other = agent.allocate("other")?;
    assert_ne!(other.address, lease.address);
    let asked = lease.address.to_string();
    let ask = ["allocate", "--pool", POOL, "--sandbox", "third", "--address", &asked];
    assert_eq!(agent.ctl(&ask)?.refusal()?.reason, "ADDRESS_HELD");
    let held_back = || -> Result<u64> {
        let pools = agent.list(&["pools"], "pools")?;
        let pool = pools.iter().find(|pool| pool["vlan"] == 7).context("no pool")?;
        pool["held_back"].as_u64().context("no count")
    };
    assert_eq!(held_back()?, 1);
    let shown = agent.ctl(&["pools", "-o", "table"])?.stdout;
    assert!(shown.contains("1 are leased on the segment that it was on before"), "{shown}");
    let why = agent.ctl(&["why", &asked])?.stdout;
    assert!(why.contains("leased on the segment that the pool was on before"), "{why}");
    // Its owner has it still, under the same key.
    let again = agent.allocate("silent")?;
    assert_eq!(again.generation, lease.generation);
    // Once it has ended, the address is the pool's again.
    sandbox.delete()?;
    agent.release(&lease)?;
    eventually("its end", || Ok((held_back()? == 0).then_some(())))?;
    assert_eq!(agent.lease(&ask)?.address, lease.address);
    Ok(())
}

/// A port that leaves its bridge takes no evidence along: whoever is behind it has the address still.
#[test]
fn a_station_whose_port_is_out_of_the_bridge_for_a_while_keeps_its_address() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with(QUICK)?.with_pool("probation", "\"1ms\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let squatter = lab.sandbox("squatter")?;
    agent.await_port(&squatter)?;
    let address = [10, 8, 64, 2].into();
    squatter.announce(address)?;
    eventually("its quarantine", || Ok(agent.entry(address)?.map(drop)))?;
    lab.host().ip(&format!("link set {} nomaster", squatter.port()))?;
    await_passes(&agent, "done", 4.0)?;
    assert_ne!(agent.allocate("other")?.address, address);
    lab.host().ip(&format!("link set {} master {BRIDGE}", squatter.port()))?;
    await_passes(&agent, "done", 2.0)?;
    assert_ne!(agent.allocate("another")?.address, address);
    squatter.delete()?;
    eventually("the end of it", || Ok(agent.entry(address)?.is_none().then_some(())))
}
