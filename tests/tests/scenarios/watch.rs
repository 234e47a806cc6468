//! A bridge, a VLAN or a family without a pool is watched as any other (claims.md A14, D05): two who say
//! of one address that they have it are told, with both ports; a packet from anywhere is not.

use std::net::Ipv4Addr;

use anyhow::Result;
use guard_tests::{
    Agent, Arp, BRIDGE, GATEWAY, Lab, Launch, Mac, Sandbox, eventually, ipv4_udp,
    neighbour_advertisement,
};
use serde_json::Value;

use crate::claims::settle;

/// A bridge on which the host has no address.
const BARE: &str = "rt1";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 7);
/// What docker gives its own bridge in every guest.
const DOCKER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

/// An agent whose configuration is two lines.
fn watch(lab: &Lab, bridge: &str) -> Result<Agent> {
    let bridge = format!("pool = []\n[[bridge]]\nname = {bridge:?}");
    lab.agent_with(Launch::config(&lab.config()?.with(&bridge)?)?)
}

fn two(lab: &Lab, agent: &Agent, bridge: &str) -> Result<[Sandbox; 2]> {
    let one = lab.sandbox_with("one", bridge, Mac::numbered(0x71))?;
    let other = lab.sandbox_with("other", bridge, Mac::numbered(0x72))?;
    for sandbox in [&one, &other] {
        agent.await_port(sandbox)?;
    }
    Ok([one, other])
}

/// The incident about an address; it names both ports, and neither as the impostor.
fn told(agent: &Agent, address: &str, two: &[Sandbox; 2], severity: &str) -> Result<Value> {
    let (_, found) = agent.follow(&["conflicts"])?.next(|found| found["address"] == address)?;
    assert_eq!((&found["kind"], &found["severity"]), (&"duplicate".into(), &severity.into()));
    let claimants = found["claimants"].as_array().cloned().unwrap_or_default();
    assert_eq!(claimants.len(), 2, "{found}");
    for sandbox in two {
        let is = |one: &&Value| one["interface"] == sandbox.port() && one["role"] == "claimant";
        assert!(claimants.iter().any(|one| is(&one)), "{found}");
    }
    Ok(found)
}

#[test]
fn a14_two_lines_of_configuration_flag_the_first_duplicate() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge(BARE)?;
    let agent = watch(&lab, BARE)?;
    assert_eq!(agent.json(&["status", "--live"])?["ready"], true);
    let two = two(&lab, &agent, BARE)?;
    // Each of them answers for it, as a running sandbox does.
    for sandbox in &two {
        sandbox.add_address(ADDRESS)?;
        sandbox.announce(ADDRESS)?;
    }
    let text = ADDRESS.to_string();
    told(&agent, &text, &two, "warning")?;
    agent.journal().await_line(&["WARN", "two claimants", &text, two[0].port(), two[1].port()])?;
    let labels = [("bridge", BARE), ("kind", "duplicate"), ("severity", "warning")];
    assert_eq!(agent.metric("guard_conflicts_open", &labels)?, Some(1.0));
    let live = agent.list(&["live"], "live")?;
    assert!(live.iter().any(|one| one["address"] == text.as_str()), "{live:?}");
    assert_eq!(agent.list(&["ports"], "ports")?.len(), 2);
    let why = agent.json(&["why", &text])?;
    assert_eq!(why["explanations"][0]["bridge"], BARE, "{why}");
    assert_eq!(why["explanations"][0]["evidence"].as_array().map(Vec::len), Some(2), "{why}");
    // Nobody can be given what there is no pool for.
    let refusal = agent.ctl(&["allocate", "--pool", "p", "--sandbox", "s"])?.refusal()?;
    assert_eq!(refusal.reason, "POOL_UNKNOWN");
    agent.stop()
}

#[test]
fn a14_d05_packets_on_a_bridge_without_a_pool_claim_nothing() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge(BARE)?;
    let agent = watch(&lab, BARE)?;
    let two = two(&lab, &agent, BARE)?;
    two[0].announce(ADDRESS)?;
    // As a router among the guests forwards them.
    let forwarded = ipv4_udp((two[1].mac(), two[0].mac()), ADDRESS, GATEWAY)?;
    two[1].raw_socket()?.send(&forwarded)?;
    // Its twin, from the same port: what came before it has been seen then.
    let marker = Ipv4Addr::new(10, 8, 64, 9);
    for sandbox in &two {
        sandbox.add_address(marker)?;
        sandbox.announce(marker)?;
    }
    told(&agent, &marker.to_string(), &two, "warning")?;
    let all = agent.list(&["conflicts", "--all"], "conflicts")?;
    assert_eq!(all.len(), 1, "{all:?}");
    let ignored = [("bridge", BARE), ("reason", "off_prefix")];
    assert_eq!(agent.metric("guard_claims_ignored_total", &ignored)?, Some(0.0));
    two[1].announce(ADDRESS)?;
    // The first does not answer for it (claims.md A34); as for those below, of whom nobody does.
    told(&agent, &ADDRESS.to_string(), &two, "info").map(drop)
}

#[test]
fn a14_ipv6_is_watched_beside_a_pool_of_ipv4() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let two = two(&lab, &agent, BRIDGE)?;
    let (address, own) = ("2001:db8::7".parse()?, "fe80::1".parse()?);
    for sandbox in &two {
        let mac = sandbox.mac();
        let frame = neighbour_advertisement(mac, own, address, &[mac])?;
        sandbox.raw_socket()?.send(&frame)?;
    }
    told(&agent, "2001:db8::7", &two, "info").map(drop)
}

#[test]
fn a14_a_vlan_without_a_pool_is_watched_beside_one_with() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let two = two(&lab, &agent, BRIDGE)?;
    for sandbox in &two {
        // Two customers' VLANs within one: another segment each.
        for tags in [&[5, 0][..], &[6, 1], &[6, 2]] {
            if tags[1] != 0 && (tags[1] == 1) != (sandbox.name() == "one") {
                continue;
            }
            let mut frame = Arp::announcement(sandbox.mac(), ADDRESS).frame();
            for tag in tags.iter().rev().filter(|tag| **tag != 0) {
                frame.splice(12..12, [0x81, 0, 0, *tag]);
            }
            sandbox.raw_socket()?.send(&frame)?;
        }
    }
    let found = told(&agent, &ADDRESS.to_string(), &two, "info")?;
    assert_eq!((&found["vlan"], &found["inner_vlan"]), (&5.into(), &0.into()), "{found}");
    eventually("both customers", || {
        let live = agent.list(&["live"], "live")?;
        let inner = live.iter().filter(|one| one["vlan"] == 6 && one["inner_vlan"] != 0).count();
        Ok((inner == 2).then_some(()))
    })?;
    // The pool is on neither of these segments: nothing was held back in it, and nothing else is told.
    assert_eq!(agent.entry(ADDRESS)?, None);
    let all = agent.list(&["conflicts", "--all"], "conflicts")?;
    assert_eq!(all.len(), 1, "{all:?}");
    Ok(())
}

#[test]
fn a14_what_two_guests_have_beside_the_prefixes_is_told_once_an_hour_as_info() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let two = two(&lab, &agent, BRIDGE)?;
    for sandbox in &two {
        sandbox.add_address(DOCKER)?;
        sandbox.announce(DOCKER)?;
    }
    let text = DOCKER.to_string();
    told(&agent, &text, &two, "info")?;
    agent.journal().await_line(&["severity=\"info\"", &text])?;
    // It is over with the one, and begins anew with the next.
    let [one, other] = two;
    other.delete()?;
    eventually("the end of it", || {
        Ok(agent.list(&["conflicts"], "conflicts")?.is_empty().then_some(()))
    })?;
    let next = lab.sandbox("next")?;
    agent.await_port(&next)?;
    next.add_address(DOCKER)?;
    next.announce(DOCKER)?;
    eventually("the next", || {
        Ok((agent.list(&["conflicts"], "conflicts")?.len() == 1).then_some(()))
    })?;
    assert_eq!(agent.journal().count(&["two claimants", &text]), 1);
    let labels = [("bridge", BRIDGE), ("kind", "duplicate"), ("severity", "info")];
    assert_eq!(agent.metric("guard_conflicts_open", &labels)?, Some(1.0));
    // Nor is it a lease's, and nobody is kept from one.
    let marker = agent.admit(&lab.sandbox("marker")?)?;
    let others = settle(&agent, &one, marker.address)?;
    assert!(others.iter().all(|it| it["address"] == text.as_str()), "{others:?}");
    Ok(())
}

#[test]
fn d01_a_packet_claims_what_a_prefix_of_the_bridge_or_of_the_host_has() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge(BARE)?;
    let config = lab
        .config()?
        .with(&format!("pool = []\n[[bridge]]\nname = {BARE:?}\nprefixes = [\"10.8.64.0/24\"]"))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let two = two(&lab, &agent, BARE)?;
    let say = |address: Ipv4Addr| -> Result<()> {
        for sandbox in &two {
            sandbox.add_address(address)?;
            let frame = ipv4_udp((sandbox.mac(), lab.bridge_mac(BARE)), address, GATEWAY)?;
            sandbox.raw_socket()?.send(&frame)?;
        }
        Ok(())
    };
    say(ADDRESS)?;
    told(&agent, &ADDRESS.to_string(), &two, "warning")?;
    // And from the moment that the host has an address there.
    lab.host().ip(&format!("address add 192.0.2.1/24 dev {BARE}"))?;
    let host = Ipv4Addr::new(192, 0, 2, 1);
    eventually("the host's address known", || {
        let why = agent.ctl(&["why", &host.to_string()])?;
        Ok(why.stdout.contains("address of the host").then_some(()))
    })?;
    let there = Ipv4Addr::new(192, 0, 2, 7);
    say(there)?;
    told(&agent, &there.to_string(), &two, "warning").map(drop)
}
