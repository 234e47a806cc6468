//! Who has an address when the first that had it has left, and who comes then (claims.md, "Conflict").

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::Result;
use guard_tests::{Agent, Arp, BRIDGE, Lab, Launch, Mac, Sandbox, eventually};
use serde_json::Value;

use crate::claims::settle;

/// Nobody has leased it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 100);

fn agent(lab: &Lab) -> Result<Agent> {
    let config = lab.config()?.with("[conflict]\nquiet = \"1s\"")?;
    lab.agent_with(Launch::config(&config)?)
}

/// A station whose kernel answers for the address, and that has said so.
fn station(lab: &Lab, agent: &Agent, name: &str) -> Result<Sandbox> {
    let sandbox = lab.sandbox(name)?;
    agent.await_port(&sandbox)?;
    sandbox.add_address(ADDRESS)?;
    sandbox.announce(ADDRESS)?;
    Ok(sandbox)
}

fn conflicts(agent: &Agent) -> Result<Vec<Value>> {
    let mut all = agent.list(&["conflicts", "--all"], "conflicts")?;
    all.retain(|one| one["address"] == "10.8.64.100" && one["kind"] == "duplicate");
    Ok(all)
}

/// Waits until an incident is open that has all of these.
fn disputed(agent: &Agent, sides: &[&Sandbox]) -> Result<Value> {
    let has = |one: &Value, port: &str| {
        let mut sides = one["claimants"].as_array().into_iter().flatten();
        sides.any(|side| side["interface"] == port)
    };
    eventually("an incident of all sides", || {
        let mut open = conflicts(agent)?.into_iter().filter(|one| one["open"] == true);
        Ok(open.find(|one| sides.iter().all(|side| has(one, side.port()))))
    })
}

fn leave_bridge(lab: &Lab, agent: &Agent, sandbox: &Sandbox) -> Result<()> {
    lab.host().ip(&format!("link set {} nomaster", sandbox.port()))?;
    eventually("the end of the port", || {
        let ports = agent.list(&["ports"], "ports")?;
        Ok(ports.iter().all(|port| port["interface"] != sandbox.port()).then_some(()))
    })
}

fn nothing_open(agent: &Agent) -> Result<()> {
    eventually("the end of the incident", || {
        Ok(conflicts(agent)?.iter().all(|one| one["open"] != true).then_some(()))
    })
}

/// What was sent before has been seen, and nothing came of it.
fn stays_closed(lab: &Lab, agent: &Agent, sender: &Sandbox, marker: &str) -> Result<()> {
    let marked = agent.admit(&lab.sandbox(marker)?)?;
    settle(agent, sender, marked.address)?;
    nothing_open(agent)
}

#[test]
fn a01_who_is_left_when_the_first_holders_port_ends_has_the_address_against_the_next() -> Result<()>
{
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let first = station(&lab, &agent, "first")?;
    let second = station(&lab, &agent, "second")?;
    disputed(&agent, &[&first, &second])?;
    first.delete()?;
    nothing_open(&agent)?;
    // It goes on with what is its own now.
    second.announce(ADDRESS)?;
    stays_closed(&lab, &agent, &second, "marker")?;
    // The first one's next container, and another.
    let third = station(&lab, &agent, "third")?;
    disputed(&agent, &[&second, &third])?;
    let fourth = station(&lab, &agent, "fourth")?;
    second.delete()?;
    disputed(&agent, &[&third, &fourth])?;
    let fifth = station(&lab, &agent, "fifth")?;
    disputed(&agent, &[&third, &fourth, &fifth])?;
    Ok(())
}

#[test]
fn a31_a_port_that_comes_back_to_the_bridge_has_its_address_still() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let away_and_back = |sandbox: &Sandbox| {
        leave_bridge(&lab, &agent, sandbox)?;
        lab.host().ip(&format!("link set {} master {BRIDGE}", sandbox.port()))?;
        agent.await_port(sandbox)
    };
    let first = station(&lab, &agent, "first")?;
    away_and_back(&first)?;
    let second = station(&lab, &agent, "second")?;
    disputed(&agent, &[&first, &second])?;
    away_and_back(&first)?;
    nothing_open(&agent)?;
    first.announce(ADDRESS)?;
    disputed(&agent, &[&first, &second])?;
    Ok(())
}

#[test]
fn a31_a_port_that_stays_away_from_the_bridge_has_it_no_more() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let first = station(&lab, &agent, "first")?;
    leave_bridge(&lab, &agent, &first)?;
    let second = station(&lab, &agent, "second")?;
    stays_closed(&lab, &agent, &second, "marker")?;
    assert!(conflicts(&agent)?.is_empty());
    Ok(())
}

#[test]
fn a33_a_first_holder_that_changes_its_mac_is_a_side_still() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let first = station(&lab, &agent, "first")?;
    let second = station(&lab, &agent, "second")?;
    let incident = disputed(&agent, &[&first, &second])?;
    first.netns().ip("link set eth0 address 02:00:00:00:99:01")?;
    let mac = Mac::new([2, 0, 0, 0, 0x99, 1]);
    first.raw_socket()?.send(&Arp::announcement(mac, ADDRESS).frame())?;
    eventually("the new MAC", || {
        let all = conflicts(&agent)?;
        Ok(all.iter().any(|one| one.to_string().contains("02:00:00:00:99:01")).then_some(()))
    })?;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(8) {
        let still = disputed(&agent, &[&first, &second])?;
        assert_eq!(still["id"], incident["id"]);
        std::thread::park_timeout(Duration::from_millis(500));
    }
    second.netns().ip("address flush dev eth0")?;
    nothing_open(&agent)
}

#[test]
fn a01_another_that_takes_the_address_within_the_flap_window_is_another_incident() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let first = station(&lab, &agent, "first")?;
    let second = station(&lab, &agent, "second")?;
    let before = disputed(&agent, &[&first, &second])?;
    second.netns().ip("address flush dev eth0")?;
    nothing_open(&agent)?;
    let third = station(&lab, &agent, "third")?;
    let after = disputed(&agent, &[&first, &third])?;
    assert_ne!(before["id"], after["id"]);
    agent.journal().await_line(&["two claimants of one address", third.port()])?;
    Ok(())
}
