//! Probes for an address that nobody has: who means to use it, and that it is not handed out meanwhile.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use guard_tests::{Agent, Arp, CtlOutput, Lab, Mac, POOL, Sandbox, eventually};

const WANTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 100);

fn probe(sandbox: &Sandbox, mac: Mac) -> Result<()> {
    sandbox.raw_socket()?.send(&Arp::probe(mac, WANTED).frame())
}

fn ask(agent: &Agent, sandbox: &str) -> Result<CtlOutput> {
    let address = WANTED.to_string();
    agent.ctl(&["allocate", "--pool", POOL, "--sandbox", sandbox, "--address", &address])
}

#[test]
fn a05_two_that_probe_are_told_and_the_address_is_held_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (one, other) = (lab.sandbox("one")?, lab.sandbox("other")?);
    agent.await_port(&one)?;
    agent.await_port(&other)?;
    let events = agent.follow(&["events", "--from", "0"])?;
    probe(&one, one.mac())?;
    // An own probe that comes back is no race (claims.md N02).
    probe(&other, one.mac())?;
    probe(&other, other.mac())?;
    let (_, event) = events.next(|event| event["type"] == "probe_race")?;
    let race = &event["probe_race"];
    assert_eq!(race["address"], WANTED.to_string().as_str(), "{event}");
    let macs: Vec<_> = (0..2).map(|at| race["probers"][at]["mac"].clone()).collect();
    assert_eq!(macs, [one.mac().to_string().as_str(), other.mac().to_string().as_str()]);
    assert_eq!(race["probers"][1]["interface"], other.port(), "{event}");

    let refusal = ask(&agent, "asker")?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("FAILED_PRECONDITION", "ADDRESS_LIVE"));
    assert_eq!(agent.entry(WANTED)?, None, "it is not quarantined");
    assert!(agent.list(&["conflicts", "--all"], "conflicts")?.is_empty());
    // Nobody has used it: it is free again.
    eventually("the address", || Ok(ask(&agent, "asker")?.refusal().is_err().then_some(())))?;
    ensure!(agent.entry(WANTED)?.is_some());
    Ok(())
}

#[test]
fn a05_a_port_with_a_declared_binding_holds_nothing_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let bound = lab.sandbox("bound")?;
    agent.admit(&bound)?;
    probe(&bound, bound.mac())?;
    // What the same port sent before has been seen once this has.
    bound.announce(Ipv4Addr::new(10, 8, 64, 200))?;
    eventually("its claim", || agent.entry(Ipv4Addr::new(10, 8, 64, 200)))?;
    ensure!(ask(&agent, "asker")?.refusal().is_err(), "held back by a port that has a binding");
    Ok(())
}
