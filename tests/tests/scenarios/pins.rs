//! The pins are one agent's, closed to others, and what is in the maps is what the agent wrote.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guard_tests::{Agent, Lab, Launch, eventually};

use super::vlan::filter_vlans;

fn repaired(agent: &Agent, map: &str) -> Result<f64> {
    agent.metric("guard_map_repairs_total", &[("map", map)])?.context("no such series")
}

#[test]
fn two_agents_do_not_share_their_pins() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let path = |name: &str| lab.dir().join(name).display().to_string();
    let (state, socket) = (path("other-state"), path("other.sock"));
    let other = format!("state_dir = {state:?}\nsocket = {socket:?}\nhttp = \"127.0.0.1:9478\"\n");
    let other = Launch::config(&lab.config()?.with(&other)?)?;
    let exit = lab.agent_that_fails(other)?;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(exit.log.contains("another agent has this directory"), "{}", exit.log);
    agent.await_readyz(200)?;
    // Nobody has it any more once its agent is gone, in whatever way.
    agent.kill()?;
    fs::write(lab.dir().join("agent.toml"), lab.config()?.text()?)?;
    agent.start_again()
}

#[test]
fn the_pins_are_closed_to_others() -> Result<()> {
    let lab = Lab::new()?;
    let bpffs = lab.dir().join("bpf/guard");
    fs::create_dir(&bpffs)?;
    fs::set_permissions(&bpffs, Permissions::from_mode(0o777))?;
    let agent = lab.agent()?;
    for pins in fs::read_dir(&bpffs)?.chain(fs::read_dir(bpffs.parent().context("no parent")?)?) {
        let pins = pins?;
        let mode = pins.metadata()?.permissions().mode() & 0o7777;
        // What lies beside the directory is the kernel's own, which names itself.
        if pins.file_type()?.is_dir() {
            assert_eq!(mode, 0o700, "{}", pins.path().display());
        }
    }
    agent.stop()?;
    chown(&bpffs, Some(65534), None)?;
    let exit = lab.agent_that_fails(Launch::config(&lab.config()?)?)?;
    assert!(exit.log.contains("belongs to uid 65534"), "{}", exit.log);
    Ok(())
}

#[test]
fn an_owner_that_is_taken_out_of_the_kernel_is_put_back_and_the_thief_told() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    agent.check()?;
    let conflicts = agent.follow(&["conflicts"])?;
    let began = Instant::now();
    assert!(lab.clear_map("OWNED")? >= 1);
    // Once, and nobody is the owner now.
    thief.announce(lease.address)?;
    let address = lease.address.to_string();
    let (at, found) = conflicts.next(|found| {
        let claimants = found["claimants"].as_array().cloned().unwrap_or_default();
        let role = |port: &str| {
            let mut of_port = claimants.iter().filter(|one| one["interface"] == port);
            of_port.next().map(|one| one["role"].clone())
        };
        found["address"] == address.as_str()
            && role(owner.port()) == Some("owner".into())
            && role(thief.port()) == Some("impostor".into())
    })?;
    assert!(at - began < Duration::from_secs(5), "{:?}: {found}", at - began);
    agent.journal().await_line(&["WARN", "someone has changed what the agent wrote", "OWNED"])?;
    eventually("the repair counted", || Ok((repaired(&agent, "OWNED")? >= 1.0).then_some(())))?;
    agent.check()
}

#[test]
fn what_is_taken_out_of_the_maps_that_the_agent_writes_is_put_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    for map in ["PORTS", "PREFIXES", "MACS", "BOUND_MACS", "POLICIES"] {
        assert_eq!(repaired(&agent, map)?, 0.0, "{map}");
        let entries = u32::try_from(lab.clear_map(map)?)?;
        assert!(entries > 0, "{map}");
        eventually("the repair counted", || {
            Ok((repaired(&agent, map)? >= f64::from(entries)).then_some(()))
        })?;
    }
    thief.announce(lease.address)?;
    let address = lease.address.to_string();
    agent.follow(&["conflicts"])?.next(|found| found["address"] == address.as_str())?;
    Ok(())
}

#[test]
fn the_vlans_of_a_port_that_someone_changes_are_put_right() -> Result<()> {
    let lab = Lab::new()?;
    let filters = filter_vlans(&lab)?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let mut wrong = repaired(&agent, "VLANS")?;
    assert_eq!(wrong, 0.0);
    if filters {
        let entries = u32::try_from(lab.clear_map("VLANS")?)?;
        assert!(entries >= 2, "{entries}");
        wrong += f64::from(entries);
        eventually("the repair counted", || {
            Ok((repaired(&agent, "VLANS")? >= wrong).then_some(()))
        })?;
    }
    // In no VLAN, nothing that a port sends is read.
    let ports = agent.list(&["ports"], "ports")?;
    let port = ports.iter().find(|port| port["interface"] == thief.port()).context("no port")?;
    lab.set_no_vlans(u32::try_from(port["ifindex"].as_u64().context("no number")?)?)?;
    eventually("the repair counted", || {
        Ok((repaired(&agent, "VLANS")? >= wrong + 1.0).then_some(()))
    })?;
    agent.journal().await_line(&["WARN", "someone has changed what the agent wrote", "VLANS"])?;
    thief.announce(lease.address)?;
    let address = lease.address.to_string();
    agent.follow(&["conflicts"])?.next(|found| found["address"] == address.as_str())?;
    if filters {
        // Its twin: what the bridge itself changes is not put right.
        lab.host().ip("link set rt0 type bridge vlan_filtering 0")?;
        let before = repaired(&agent, "VLANS")?;
        std::thread::park_timeout(Duration::from_secs(5));
        assert_eq!(repaired(&agent, "VLANS")?, before, "{}", agent.journal().text());
    }
    Ok(())
}

#[test]
fn what_nobody_has_changed_is_not_repaired() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (a, b) = (lab.sandbox("a")?, lab.sandbox("b")?);
    let lease = agent.admit(&a)?;
    agent.admit(&b)?;
    agent.release(&lease)?;
    a.delete()?;
    lab.host().ip("address add 10.8.64.77/24 dev rt0")?;
    // Some comparisons later.
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        for map in ["OWNED", "PORTS", "VLANS", "PREFIXES", "MACS", "BOUND_MACS", "POLICIES"] {
            assert_eq!(repaired(&agent, map)?, 0.0, "{map}: {}", agent.journal().text());
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
    Ok(())
}
