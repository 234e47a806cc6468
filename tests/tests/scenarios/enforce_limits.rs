//! What keeps enforcement from doing harm: preflight, kinds of ports, the brake.

use anyhow::{Result, ensure};
use guard_tests::{Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Sandbox, eventually, ipv4_udp};

use crate::enforce::{Theft, drops, with_mode};

#[test]
fn a_forgotten_uplink_is_never_dropped_on_and_is_told_of() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    lab.host().ip(&format!(
        "link add forgotten type vxlan id 5 dstport 4789\nlink set forgotten master {BRIDGE} up"
    ))?;
    eventually("the port", || {
        let ports = agent.list(&["ports"], "ports")?;
        Ok(ports.iter().any(|port| port["kind"] == "unknown").then_some(()))
    })?;
    let refusal = agent.ctl(&["enforce", "on", "--bridge", BRIDGE])?.refusal()?;
    ensure!(refusal.reason == "PREFLIGHT", "{refusal:?}");
    ensure!(refusal.message.contains("uplinks = [\"forgotten\"]"), "{refusal:?}");
    let status = agent.list(&["enforce", "status", "--bridge", BRIDGE], "bridges")?;
    ensure!(status[0]["findings"][0]["error"] == false, "{status:?}");
    agent.json(&["enforce", "on", "--bridge", BRIDGE, "--yes"])?;
    ensure!(agent.metric("guard_ports_enforcing", &[("bridge", BRIDGE)])? == Some(0.0));
    eventually("the warning", || {
        let why = agent.list(&["status", "--live"], "degraded")?;
        Ok(why.iter().any(|one| one["why"].to_string().contains("forgotten")).then_some(()))
    })?;
    // Addresses are handed out all the same.
    agent.allocate("a")?;
    Ok(())
}

/// Has a sandbox send a packet with a source from elsewhere.
fn send_from_elsewhere(lab: &Lab, sandbox: &Sandbox) -> Result<()> {
    let eth = (sandbox.mac(), lab.bridge_mac(BRIDGE));
    sandbox.raw_socket()?.send(&ipv4_udp(eth, [192, 0, 2, 7].into(), GATEWAY)?)
}

fn braked(agent: &Agent) -> Result<bool> {
    Ok(agent.metric("guard_enforce_braked", &[("bridge", BRIDGE)])? == Some(1.0))
}

#[test]
fn a_change_that_has_many_ports_drop_is_braked_and_thefts_go_on_being_dropped() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let theft = Theft::new(&lab, &agent)?;
    let sandboxes = (0..4).map(|number| lab.sandbox(&format!("s{number}")));
    let sandboxes = sandboxes.collect::<Result<Vec<_>>>()?;
    for sandbox in &sandboxes {
        agent.admit(sandbox)?;
    }
    agent.json(&["enforce", "on", "--bridge", BRIDGE])?;
    send_from_elsewhere(&lab, &sandboxes[0])?;
    send_from_elsewhere(&lab, &sandboxes[1])?;
    // Whoever knows of the drops has looked at the brake.
    eventually("two ports that drop", || {
        let dropping = agent.metric("guard_ports_dropping", &[("bridge", BRIDGE)])?;
        Ok((dropping == Some(2.0)).then_some(()))
    })?;
    ensure!(!braked(&agent)?, "two ports are no sign of anything");
    send_from_elsewhere(&lab, &sandboxes[2])?;
    eventually("the brake", || Ok(braked(&agent)?.then_some(())))?;
    // Three sandboxes can do that: it is told of, and takes no readiness away.
    eventually("the brake listed", || {
        let why = agent.list(&["status"], "degraded")?;
        Ok(why.iter().any(|one| one["what"] == format!("brake {BRIDGE}")).then_some(()))
    })?;
    agent.await_readyz(200)?;
    let row = |of: &str| {
        drops(&agent, sandboxes[3].port(), "off_prefix")
            .map(|row| row.map_or(0, |row| row[of].as_u64().unwrap_or_default()))
    };
    send_from_elsewhere(&lab, &sandboxes[3])?;
    eventually("a frame that passes", || Ok((row("would_drop")? == 1).then_some(())))?;
    ensure!(row("dropped")? == 0 && !theft.arrives()?, "the wrong frames pass");
    let status = agent.list(&["enforce", "status"], "bridges")?;
    ensure!(status[0]["braked"].to_string().contains("off_prefix"), "{status:?}");
    ensure!(!status[0]["braked"].to_string().contains("violation"), "{status:?}");
    agent.json(&["enforce", "resume", "--bridge", BRIDGE])?;
    send_from_elsewhere(&lab, &sandboxes[3])?;
    eventually("a frame that is dropped", || Ok((row("dropped")? == 1).then_some(())))?;
    ensure!(!braked(&agent)?);
    Ok(())
}

#[test]
fn the_host_is_never_dropped_on_and_hears_its_guests() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::text(&with_mode(&lab, "enforce")?))?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    let mut ping = sandbox.netns().command("ping");
    let status = ping.args(["-c", "3", "-i", "0.2", "-W", "2", &GATEWAY.to_string()]).status()?;
    ensure!(status.success(), "the gateway does not answer");
    // A guest that asks for its neighbours and answers for itself.
    sandbox.raw_socket()?.send(&Arp::announcement(sandbox.mac(), lease.address).frame())?;
    let rows = agent.list(&["drops"], "drops")?;
    ensure!(rows.is_empty(), "{rows:?}");
    Ok(())
}
