//! One hostile port: what it may add, and that it is told once.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use guard_tests::{Agent, Arp, BRIDGE, Lab, Launch, Mac, eventually};

use crate::claims::settle;

const FLOOD: [(&str, &str); 2] = [("bridge", BRIDGE), ("kind", "flood")];

fn agent_with(lab: &Lab, quota: &str) -> Result<Agent> {
    let config = lab.config()?.with(&format!("[quota]\n{quota}"))?;
    lab.agent_with(Launch::config(&config)?)
}

fn live_on(agent: &Agent, port: &str) -> Result<usize> {
    let live = agent.list(&["live"], "live")?;
    Ok(live.iter().filter(|entry| entry["interface"] == port).count())
}

#[test]
fn rule_12_a_port_has_as_many_addresses_as_its_quota_and_one_incident() -> Result<()> {
    for (quota, wanted) in [(3, 3), (6, 6)] {
        let lab = Lab::new()?;
        let agent = agent_with(&lab, &format!("addresses_per_port = {quota}"))?;
        let (marker, greedy) = (lab.sandbox("marker")?, lab.sandbox("greedy")?);
        let marked = agent.admit(&marker)?;
        agent.await_port(&greedy)?;
        for host in 100..120 {
            greedy.announce(Ipv4Addr::new(10, 8, 64, host))?;
        }
        let others = settle(&agent, &greedy, marked.address)?;
        let floods: Vec<_> = others.iter().filter(|found| found["kind"] == "flood").collect();
        assert_eq!(floods.len(), 1, "{others:?}");
        let flood = floods.first().context("no flood")?;
        assert!(flood["address"].is_null(), "{flood}");
        assert_eq!(flood["claimants"][0]["interface"], greedy.port(), "{flood}");
        assert_eq!(agent.metric("guard_conflicts_total", &FLOOD)?, Some(1.0));
        let why = agent.json(&["why", &marked.address.to_string()])?;
        let uncounted = format!("uncounted: flood on port {}", greedy.port());
        assert!(why.to_string().contains(&uncounted), "{why}");
        let detail = flood["detail"].as_str().context("no detail")?;
        assert!(detail.contains(&format!("addresses_per_port ({quota} of {quota})")), "{detail}");
        // The marker is not one of them, since it is leased to another.
        assert_eq!(live_on(&agent, greedy.port())?, wanted + 1);
        let ignored = [("bridge", BRIDGE), ("reason", "over_quota")];
        let over = f64::from(20 - u8::try_from(wanted)?);
        assert_eq!(agent.metric("guard_claims_ignored_total", &ignored)?, Some(over));
    }
    Ok(())
}

#[test]
fn rule_12_a_port_keeps_few_addresses_of_others_releasing_and_confirms_one_owner() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent_with(&lab, "addresses_per_port = 3")?;
    let (marker, thief) = (lab.sandbox("marker")?, lab.sandbox("thief")?);
    let leases = (0..10).map(|number| agent.allocate(&format!("s{number}")));
    let leases: Vec<_> = leases.collect::<Result<_>>()?;
    let marked = agent.admit(&marker)?;
    agent.await_port(&thief)?;
    for _ in 0..2 {
        for lease in &leases {
            thief.announce(lease.address)?;
        }
    }
    settle(&agent, &thief, marked.address)?;
    let are = |wanted: &str| -> Result<usize> {
        let states = leases.iter().map(|lease| agent.state(lease));
        let states: Vec<_> = states.collect::<Result<_>>()?;
        Ok(states.iter().filter(|state| *state == wanted).count())
    };
    // It may have the first that it claims, and three more, of others.
    eventually("the first is confirmed", || Ok((are("active")? == 1).then_some(())))?;
    assert_eq!(are("held")?, 9);
    assert!((3..=4).contains(&live_on(&agent, thief.port())?));
    for lease in &leases {
        agent.release(lease)?;
    }
    let releasing = are("releasing")?;
    assert!((3..=4).contains(&releasing), "{releasing}");
    assert_eq!(are("cooling")?, leases.len() - releasing);
    Ok(())
}

#[test]
fn rule_12_a_port_has_as_many_frames_a_second_as_its_quota() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent_with(&lab, "nd_per_second = 5")?;
    let (marker, greedy) = (lab.sandbox("marker")?, lab.sandbox("greedy")?);
    let marked = agent.admit(&marker)?;
    agent.await_port(&greedy)?;
    for host in 100..112 {
        greedy.announce(Ipv4Addr::new(10, 8, 64, host))?;
    }
    settle(&agent, &greedy, marked.address)?;
    assert_eq!(agent.metric("guard_conflicts_total", &FLOOD)?, Some(1.0));
    let live = live_on(&agent, greedy.port())?;
    // A second may have passed between two of them.
    assert!((6..=11).contains(&live), "{live}");
    Ok(())
}

#[test]
fn rule_12_a_port_that_tries_mac_after_mac_fills_neither_events_nor_incident() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, marker, thief) =
        (lab.sandbox("owner")?, lab.sandbox("marker")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    let marked = agent.admit(&marker)?;
    agent.await_port(&thief)?;
    let socket = thief.raw_socket()?;
    for number in 0..50_000 {
        let mac = Mac::numbered(0x1_0000 + number);
        socket.send(&Arp::announcement(mac, lease.address).frame())?;
    }
    let mut others = settle(&agent, &thief, marked.address)?;
    others.retain(|conflict| conflict["kind"] != "flood");
    let [incident] = &others[..] else { anyhow::bail!("{others:?}") };
    let claimants = incident["claimants"].as_array().context("no claimants")?;
    assert_eq!(claimants.len(), 1 + 4, "{incident}");
    // So many MACs are one by themselves (claims.md L06).
    assert_eq!(agent.metric("guard_conflicts_total", &FLOOD)?, Some(1.0));
    assert_eq!(agent.metric("guard_events_lost_total", &[])?, Some(0.0));
    Ok(())
}

#[test]
fn l06_a_port_with_mac_after_mac_is_one_flood() -> Result<()> {
    for (macs, floods) in [(60, 0.0), (5_000, 1.0)] {
        let lab = Lab::new()?;
        let agent = lab.agent()?;
        let (owner, sender) = (lab.sandbox("owner")?, lab.sandbox("sender")?);
        let lease = agent.admit(&owner)?;
        agent.await_port(&sender)?;
        let socket = sender.raw_socket()?;
        for number in 0..macs {
            // An ethertype that nobody speaks.
            let mut frame = Arp::probe(Mac::numbered(0x1_0000 + number), lease.address).frame();
            frame.splice(12..14, [0x88, 0xb5]);
            socket.send(&frame)?;
        }
        let others = settle(&agent, &sender, lease.address)?;
        assert_eq!(agent.metric("guard_conflicts_total", &FLOOD)?, Some(floods), "{others:?}");
        if let Some(flood) = others.first() {
            assert_eq!(flood["claimants"][0]["interface"], sender.port(), "{flood}");
            let detail = flood["detail"].as_str().context("no detail")?;
            assert!(
                detail.contains("macs_per_port (") && detail.contains("source MACs"),
                "{detail}"
            );
        }
    }
    Ok(())
}
