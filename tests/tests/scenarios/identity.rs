//! Which port is which (`leases.md`, "port identity"): interface numbers repeat within a boot, names
//! repeat by design, and ports are renamed.

use anyhow::{Context, Result};
use guard_tests::{Agent, BRIDGE, Lab, Launch, Lease, Mac, POOL, Port, Sandbox, eventually};
use serde_json::Value;

use crate::inventory::QUICK;

/// Far above what the kernel gives by itself in a new namespace.
const NUMBER: u32 = 7000;

fn start(lab: &Lab) -> Result<Agent> {
    lab.agent_with(Launch::config(&lab.config()?.with(QUICK)?)?)
}

/// A sandbox whose port has this name, and the number that all have here.
fn numbered(lab: &Lab, name: &str, port: &str, mac: u8) -> Result<Sandbox> {
    let port = Port { name: port.to_owned(), number: Some(NUMBER) };
    lab.sandbox_behind(name, BRIDGE, Mac::numbered(mac.into()), &port)
}

fn entry(agent: &Agent, lease: &Lease) -> Result<Value> {
    agent.entry(lease.address)?.context("it is free")
}

/// Waits until a lease is bound to no port any more; the declared MAC stays.
fn await_without_port(agent: &Agent, lease: &Lease, mac: Mac) -> Result<()> {
    eventually("a binding without its port", || {
        let entry = entry(agent, lease)?;
        assert_eq!(entry["mac"], mac.to_string().as_str(), "{entry}");
        assert_eq!(entry["binding"], "declared", "{entry}");
        Ok(entry["interface"].is_null().then_some(()))
    })
}

/// The incident about a lease's address.
fn await_incident(agent: &Agent, lease: &Lease) -> Result<Value> {
    let address = lease.address.to_string();
    eventually("an incident", || {
        let conflicts = agent.list(&["conflicts"], "conflicts")?;
        Ok(conflicts.into_iter().find(|it| it["address"] == address.as_str()))
    })
}

/// One sandbox goes without a word, and the next one's port has its number. Whatever the name of that
/// is, the lease is bound to no port, whoever is behind it may not use the address, and with nothing
/// left of its owner the lease ends.
fn another_port_with_the_same_number(port: &str, restart: bool) -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = start(&lab)?;
    let first = numbered(&lab, "first", "veth-first", 0x31)?;
    let lease = agent.admit(&first)?;
    if restart {
        agent.kill()?;
    }
    let mac = first.mac();
    first.delete()?;
    let next = numbered(&lab, "next", port, 0x32)?;
    if restart {
        agent.start_again()?;
    }
    await_without_port(&agent, &lease, mac)?;
    agent.await_port(&next)?;
    next.announce(lease.address)?;
    let incident = await_incident(&agent, &lease)?;
    let claims = incident["claimants"].to_string();
    assert!(claims.contains(&next.mac().to_string()) && claims.contains(port), "{incident}");
    next.delete()?;
    agent.await_state(&lease, "cooling")
}

#[test]
fn a_port_with_the_number_of_an_earlier_one_is_another_port() -> Result<()> {
    another_port_with_the_same_number("veth-next", false)
}

#[test]
fn a_port_with_the_number_and_the_name_of_an_earlier_one_is_another_port() -> Result<()> {
    another_port_with_the_same_number("veth-first", false)
}

#[test]
fn a_port_that_came_while_nobody_watched_is_another_port() -> Result<()> {
    another_port_with_the_same_number("veth-next", true)
}

#[test]
fn a_namesake_that_came_while_nobody_watched_is_another_port() -> Result<()> {
    another_port_with_the_same_number("veth-first", true)
}

#[test]
fn a_port_is_the_same_under_another_name_and_outside_the_bridge() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = start(&lab)?;
    let (sandbox, thief) = (lab.sandbox("silent")?, lab.sandbox("thief")?);
    let lease = agent.admit(&sandbox)?;
    agent.await_port(&thief)?;
    let port = sandbox.port();
    lab.host().ip(&format!(
        "link set {port} nomaster\nlink set {port} down\nlink set {port} name renamed"
    ))?;
    agent.kill()?;
    agent.start_again()?;
    crate::inventory::await_passes(&agent, "done", 4.0)?;
    assert_eq!(agent.state(&lease)?, "active", "its port exists");
    lab.host().ip(&format!("link set renamed master {BRIDGE} up"))?;
    sandbox.announce(lease.address)?;
    thief.announce(lease.address)?;
    let incident = await_incident(&agent, &lease)?;
    let impostor = incident["claimants"].as_array().context("nobody")?.iter();
    let impostors: Vec<_> = impostor.filter(|it| it["role"] == "impostor").collect();
    assert_eq!(impostors.len(), 1, "the owner is none: {incident}");
    assert_eq!(impostors[0]["mac"], thief.mac().to_string().as_str());
    Ok(())
}

#[test]
fn a_name_that_a_port_had_once_binds_nobody_to_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    let sandbox = lab.sandbox("old")?;
    agent.await_port(&sandbox)?;
    let port = sandbox.port();
    lab.host().ip(&format!("link set {port} down\nlink set {port} name renamed up"))?;
    eventually("the new name", || {
        let ports = agent.list(&["ports"], "ports")?;
        Ok(ports.iter().any(|port| port["interface"] == "renamed").then_some(()))
    })?;
    let ask = ["allocate", "--pool", POOL, "--sandbox", "other", "--interface", port];
    let lease = agent.lease(&ask)?;
    // Whoever is behind the renamed port is not the one who was meant.
    sandbox.announce(lease.address)?;
    await_incident(&agent, &lease)?;
    Ok(())
}

#[test]
fn rule_1_the_same_request_after_its_port_came_anew_has_the_same_lease() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab)?;
    let first = numbered(&lab, "web", "tap0", 0x41)?;
    let mac = first.mac().to_string();
    let ask =
        ["allocate", "--pool", POOL, "--sandbox", "web", "--mac", &mac, "--interface", "tap0"];
    let lease = agent.lease(&ask)?;
    agent.json(&["confirm", "--generation", &lease.generation.to_string()])?;
    first.delete()?;
    await_without_port(&agent, &lease, Mac::numbered(0x41))?;
    let again = numbered(&lab, "again", "tap0", 0x41)?;
    let same = agent.lease(&ask)?;
    assert_eq!((same.generation, same.address), (lease.generation, lease.address));
    assert_eq!(entry(&agent, &lease)?["interface"], "tap0");
    again.announce(lease.address)?;
    let other = ["allocate", "--pool", POOL, "--sandbox", "web", "--mac", "02:00:00:00:99:99"];
    assert_eq!(agent.ctl(&other)?.refusal()?.reason, "OWNER_HAS_LEASE");
    assert!(agent.list(&["conflicts"], "conflicts")?.is_empty());
    Ok(())
}

/// After `detach`, or where the bpffs was lost, the program is on no port: that alone proves nothing.
#[test]
fn a_port_without_the_program_is_the_same_as_long_as_nothing_else_tells() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = start(&lab)?;
    let (silent, gone) = (lab.sandbox("silent")?, numbered(&lab, "gone", "veth-gone", 0x51)?);
    let (kept, lost) = (agent.admit(&silent)?, agent.admit(&gone)?);
    agent.stop()?;
    lab.detach()?;
    // Of this one nothing tells but what is stored of it.
    let mac = gone.mac();
    gone.delete()?;
    let _next = numbered(&lab, "next", "veth-gone", 0x52)?;
    agent.start_again()?;
    await_without_port(&agent, &lost, mac)?;
    assert_eq!(entry(&agent, &kept)?["interface"], silent.port());
    agent.journal().await_line(&["bound anew"])?;
    agent.await_state(&lost, "cooling")?;
    assert_eq!(agent.state(&kept)?, "active");
    Ok(())
}
