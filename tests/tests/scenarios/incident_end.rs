//! How incidents begin, join and end, with stations that answer for themselves (claims.md, "Conflict").

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_tests::{Agent, Arp, BRIDGE, Lab, Launch, Lease, Sandbox, eventually};
use serde_json::Value;

use crate::claims::settle;

/// An agent that asks after a second of silence.
fn agent(lab: &Lab) -> Result<Agent> {
    let config = lab.config()?.with("[conflict]\nquiet = \"1s\"")?;
    lab.agent_with(Launch::config(&config)?)
}

fn conflicts(agent: &Agent, address: Ipv4Addr) -> Result<Vec<Value>> {
    let address = address.to_string();
    let mut all = agent.list(&["conflicts", "--all"], "conflicts")?;
    all.retain(|conflict| conflict["address"] == address.as_str());
    Ok(all)
}

/// The one incident that there was about an address, once it is so.
fn only(agent: &Agent, address: Ipv4Addr, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = None;
    let found = eventually("the one incident", || {
        let all = conflicts(agent, address)?;
        anyhow::ensure!(all.len() <= 1, "several: {all:?}");
        last = all.into_iter().next();
        Ok(last.clone().filter(&so))
    });
    found.with_context(|| format!("last: {last:?}"))
}

fn is_open(conflict: &Value) -> bool {
    conflict["open"] == true
}

fn roles(conflict: &Value) -> Vec<(String, String)> {
    let sides = conflict["claimants"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    sides.map(|side| (text(&side["role"]), text(&side["interface"]))).collect()
}

/// Whoever has the address, as its kernel answers `arping`.
fn station(lab: &Lab, agent: &Agent, name: &str, address: Ipv4Addr) -> Result<Sandbox> {
    let sandbox = lab.sandbox(name)?;
    agent.await_port(&sandbox)?;
    sandbox.add_address(address)?;
    Ok(sandbox)
}

fn give_up(sandbox: &Sandbox) -> Result<()> {
    sandbox.netns().ip("address flush dev eth0")
}

fn opened(agent: &Agent) -> Result<Option<f64>> {
    agent.metric("guard_conflicts_total", &[("bridge", BRIDGE), ("kind", "duplicate")])
}

/// It lasts much longer than a second of silence, three questions, and the time for their answers.
fn stays_open(agent: &Agent, address: Ipv4Addr, id: &Value) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(8) {
        let all = conflicts(agent, address)?;
        let [one] = &all[..] else { anyhow::bail!("{all:?}") };
        anyhow::ensure!(one["open"] == true && one["id"] == *id, "{one}");
        std::thread::park_timeout(Duration::from_millis(500));
    }
    Ok(())
}

#[test]
fn two_that_answer_are_one_incident_until_one_is_gone_and_again_when_it_comes_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let lease = agent.allocate("both")?;
    let one = station(&lab, &agent, "one", lease.address)?;
    one.announce(lease.address)?;
    let two = station(&lab, &agent, "two", lease.address)?;
    two.announce(lease.address)?;
    let incident = only(&agent, lease.address, is_open)?;
    assert_eq!(
        (&incident["kind"], &incident["severity"]),
        (&"duplicate".into(), &"warning".into())
    );
    stays_open(&agent, lease.address, &incident["id"])?;
    assert_eq!(opened(&agent)?, Some(1.0));

    give_up(&two)?;
    only(&agent, lease.address, |conflict| !is_open(conflict))?;
    // The other one has it, and may say so.
    one.announce(lease.address)?;
    let marked = agent.admit(&lab.sandbox("marker")?)?;
    settle(&agent, &one, marked.address)?;
    only(&agent, lease.address, |conflict| !is_open(conflict))?;

    two.add_address(lease.address)?;
    two.announce(lease.address)?;
    let again = only(&agent, lease.address, is_open)?;
    assert_eq!(again["id"], incident["id"]);
    let alerts =
        agent.journal().count(&["two claimants of one address", &lease.address.to_string()]);
    assert_eq!(alerts, 1, "{}", agent.journal().text());
    Ok(())
}

#[test]
fn an_impostor_that_answers_keeps_the_incident_and_one_that_does_not_ends_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    // It does not answer, and need not.
    let lease = agent.admit(&lab.sandbox("owner")?)?;
    let thief = station(&lab, &agent, "thief", lease.address)?;
    thief.announce(lease.address)?;
    let incident = only(&agent, lease.address, is_open)?;
    stays_open(&agent, lease.address, &incident["id"])?;
    give_up(&thief)?;
    only(&agent, lease.address, |conflict| !is_open(conflict))?;
    Ok(())
}

#[test]
fn a34_a_former_holder_that_does_not_answer_is_told_at_info_until_it_speaks() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let lease = agent.allocate("moving")?;
    let (one, two) = (lab.sandbox("one")?, lab.sandbox("two")?);
    for sandbox in [&one, &two] {
        agent.await_port(sandbox)?;
        sandbox.announce(lease.address)?;
    }
    let told = only(&agent, lease.address, is_open)?;
    assert_eq!((&told["severity"], &told["kind"]), (&"info".into(), &"duplicate".into()), "{told}");
    assert!(told["detail"].to_string().contains("does not answer"), "{told}");
    agent.journal().await_line(&["INFO", "does not answer", &lease.address.to_string()])?;
    one.announce(lease.address)?;
    only(&agent, lease.address, |conflict| conflict["severity"] == "warning")?;
    Ok(())
}

#[test]
fn a_host_that_takes_a_leased_address_is_the_claimant_until_it_gives_it_up() -> Result<()> {
    for device in [BRIDGE, "lo"] {
        takes_a_leased_address_on(device)?;
    }
    Ok(())
}

fn takes_a_leased_address_on(device: &str) -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let owner = lab.sandbox("owner")?;
    let lease = agent.admit(&owner)?;
    lab.host().ip(&format!("address add {}/32 dev {device}", lease.address))?;
    let incident = only(&agent, lease.address, is_open)?;
    let sides = [("owner", owner.port()), ("claimant", BRIDGE)];
    let sides = sides.map(|(role, port)| (role.to_owned(), port.to_owned())).to_vec();
    assert_eq!((&incident["kind"], roles(&incident)), (&"duplicate".into(), sides.clone()));
    // The owner is none the worse for what it says.
    owner.announce(lease.address)?;
    let marked = agent.admit(&lab.sandbox("marker")?)?;
    settle(&agent, &owner, marked.address)?;
    stays_open(&agent, lease.address, &incident["id"])?;
    assert_eq!(roles(&only(&agent, lease.address, is_open)?), sides);
    lab.host().ip(&format!("address delete {}/32 dev {device}", lease.address))?;
    only(&agent, lease.address, |conflict| !is_open(conflict))?;
    Ok(())
}

fn bind_to(agent: &Agent, lease: &Lease, sandbox: &Sandbox) -> Result<()> {
    agent.bind(lease, sandbox)
}

#[test]
fn a18_a_bind_closes_at_once_what_the_announcement_before_it_has_opened() -> Result<()> {
    let lab = Lab::new()?;
    // Nothing here ends by silence.
    let agent = lab.agent()?;
    let (from, to) = (lab.sandbox("from")?, lab.sandbox("to")?);
    agent.await_port(&to)?;
    let lease = agent.admit(&from)?;
    from.announce(lease.address)?;
    to.announce(lease.address)?;
    only(&agent, lease.address, is_open)?;
    bind_to(&agent, &lease, &to)?;
    only(&agent, lease.address, |conflict| !is_open(conflict))?;
    to.announce(lease.address)?;
    let marked = agent.admit(&lab.sandbox("marker")?)?;
    settle(&agent, &to, marked.address)?;
    only(&agent, lease.address, |conflict| !is_open(conflict))?;
    // Who was the owner is an impostor from here on.
    from.announce(lease.address)?;
    let again = only(&agent, lease.address, is_open)?;
    assert!(roles(&again).contains(&("impostor".to_owned(), from.port().to_owned())), "{again}");
    Ok(())
}

#[test]
fn whoever_else_is_live_when_a_binding_is_written_is_an_impostor_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, squatter) = (lab.sandbox("owner")?, lab.sandbox("squatter")?);
    agent.await_port(&squatter)?;
    let lease = agent.allocate("owner")?;
    squatter.announce(lease.address)?;
    eventually("the squatter's claim", || {
        let live = agent.list(&["live"], "live")?;
        let address = lease.address.to_string();
        Ok(live.iter().any(|entry| entry["address"] == address.as_str()).then_some(()))
    })?;
    bind_to(&agent, &lease, &owner)?;
    let incident = only(&agent, lease.address, is_open)?;
    let impostor = ("impostor".to_owned(), squatter.port().to_owned());
    assert!(roles(&incident).contains(&impostor), "{incident}");

    // And the owner is one, while its port is out of the bridge and back.
    lab.host().ip(&format!("link set {} nomaster", owner.port()))?;
    lab.host().ip(&format!("link set {} master {BRIDGE}", owner.port()))?;
    agent.await_port(&owner)?;
    let still = only(&agent, lease.address, is_open)?;
    assert_eq!(still["id"], incident["id"]);
    Ok(())
}

#[test]
fn one_sandbox_with_two_interfaces_is_no_conflict_and_two_sandboxes_are() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (first, second, other) =
        (lab.sandbox("first")?, lab.sandbox("second")?, lab.sandbox("other")?);
    let of_one = |key: &str| {
        agent.lease(&["allocate", "--pool", guard_tests::POOL, "--sandbox", "one", "--key", key])
    };
    let (a, b) = (of_one("eth0")?, of_one("eth1")?);
    agent.bind(&a, &first)?;
    agent.bind(&b, &second)?;
    let marked = agent.admit(&other)?;
    // As it answers out of the interface that was asked (arp_ignore = 0).
    for _ in 0..3 {
        second.announce(a.address)?;
        first.announce(b.address)?;
    }
    let others = settle(&agent, &second, marked.address)?;
    assert!(others.is_empty(), "{others:?}");
    agent.journal().await_line(&["INFO", "two places", &a.address.to_string()])?;
    other.announce(a.address)?;
    only(&agent, a.address, is_open)?;
    Ok(())
}

#[test]
fn an_incident_is_logged_as_loud_as_it_is_bad() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let lease = agent.admit(&lab.sandbox("owner")?)?;
    let stranger = lab.sandbox("stranger")?;
    agent.await_port(&stranger)?;
    let free = Ipv4Addr::new(10, 8, 64, 100);
    for (address, level, kind) in [
        (free, "INFO", "unowned"),
        (lease.address, "WARN", "duplicate"),
        (guard_tests::GATEWAY, "ERROR", "gateway"),
    ] {
        stranger.raw_socket()?.send(&Arp::announcement(stranger.mac(), address).frame())?;
        let line = [level, &address.to_string(), kind];
        agent.journal().await_line(&line)?;
    }
    Ok(())
}
