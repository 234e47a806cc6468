//! What a frame says, from the wire to `guardctl`: some rows of each kind. The whole catalogue is
//! the observer's own.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use guard_tests::{Agent, Arp, BRIDGE, GATEWAY, Lab, Mac, Sandbox, TIMEOUT, ipv4_udp};
use serde_json::Value;

/// Has another sandbox take `marker`, which is leased, and waits for that incident: frames of a
/// port are seen in their order, so whatever the same port sent before has been seen too.
pub(crate) fn settle(agent: &Agent, sender: &Sandbox, marker: Ipv4Addr) -> Result<Vec<Value>> {
    let events = agent.follow(&["events", "--from", "0"])?;
    sender.announce(marker)?;
    let address = marker.to_string();
    events.next(|event| {
        event["type"] == "conflict.opened" && event["conflict"]["address"] == address.as_str()
    })?;
    let mut others = agent.list(&["conflicts", "--all"], "conflicts")?;
    others.retain(|conflict| conflict["address"] != address.as_str());
    Ok(others)
}

#[test]
fn a04_a_probe_for_an_owned_address_is_not_a_conflict() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, marker, prober) =
        (lab.sandbox("owner")?, lab.sandbox("marker")?, lab.sandbox("prober")?);
    let lease = agent.admit(&owner)?;
    let marked = agent.admit(&marker)?;
    agent.await_port(&prober)?;
    let socket = prober.raw_socket()?;
    for _ in 0..3 {
        socket.send(&Arp::probe(prober.mac(), lease.address).frame())?;
    }
    // The owner's kernel defends it, which is no conflict either.
    socket.receive(TIMEOUT, |frame| {
        Arp::parse(frame).filter(|arp| arp.spa == lease.address && arp.sha == owner.mac())
    })?;
    let others = settle(&agent, &prober, marked.address)?;
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}

#[test]
fn a04_a_probe_for_a_free_address_does_not_make_it_live() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (marker, prober) = (lab.sandbox("marker")?, lab.sandbox("prober")?);
    let marked = agent.admit(&marker)?;
    agent.await_port(&prober)?;
    let free = Ipv4Addr::new(10, 8, 64, 100);
    prober.raw_socket()?.send(&Arp::probe(prober.mac(), free).frame())?;
    settle(&agent, &prober, marked.address)?;
    assert_eq!(agent.entry(free)?, None);
    let live = agent.list(&["live"], "live")?;
    assert!(live.iter().all(|entry| entry["address"] != free.to_string().as_str()), "{live:?}");
    Ok(())
}

#[test]
fn every_way_to_take_an_owned_address_is_flagged_at_its_first_frame() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let thief = lab.sandbox("thief")?;
    agent.await_port(&thief)?;
    let (mac, bridge) = (thief.mac(), lab.bridge_mac(BRIDGE));
    type Taking = fn(Mac, Mac, Ipv4Addr) -> Result<Vec<u8>>;
    let takings: [(&str, Taking); 6] = [
        ("a01", |mac, _, address| Ok(Arp::request(mac, address, GATEWAY).frame())),
        ("a02", |mac, bridge, address| Ok(Arp::reply(mac, address, bridge, GATEWAY).frame())),
        ("a06", |mac, _, address| Ok(Arp::announcement(mac, address).frame())),
        ("a07", |mac, _, address| Ok(Arp::gratuitous_reply(mac, address).frame())),
        ("a10", |mac, _, address| {
            let forged = Mac::numbered(0xbad);
            Ok(Arp { sha: forged, ..Arp::announcement(mac, address) }.frame())
        }),
        ("d01", |mac, bridge, address| ipv4_udp((mac, bridge), address, GATEWAY)),
    ];
    let socket = thief.raw_socket()?;
    let events = agent.follow(&["events", "--from", "0"])?;
    for (row, taking) in takings {
        let lease = agent.admit(&lab.sandbox(row)?)?;
        socket.send(&taking(mac, bridge, lease.address)?)?;
        let address = lease.address.to_string();
        let (_, event) = events
            .next(|event| {
                event["type"] == "conflict.opened"
                    && event["conflict"]["address"] == address.as_str()
            })
            .context(row)?;
        assert_eq!(event["conflict"]["kind"], "duplicate", "{row}");
    }
    Ok(())
}

#[test]
fn a20_the_gateways_address_is_critical_from_the_first_frame() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let thief = lab.sandbox("thief")?;
    agent.await_port(&thief)?;
    let conflicts = agent.follow(&["conflicts"])?;
    thief.announce(GATEWAY)?;
    let (_, conflict) = conflicts.next(|conflict| conflict["address"] == "10.8.64.1")?;
    assert_eq!(conflict["kind"], "gateway", "{conflict}");
    assert_eq!(conflict["severity"], "critical", "{conflict}");
    let labels = [("bridge", BRIDGE), ("kind", "gateway")];
    assert_eq!(agent.metric("guard_conflicts_total", &labels)?, Some(1.0));
    Ok(())
}

#[test]
fn l01_a_neighbours_mac_is_a_clone() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    owner.announce(lease.address)?;
    agent.await_port(&thief)?;
    let conflicts = agent.follow(&["conflicts"])?;
    // An ethertype that nobody speaks: the bridge learns the MAC all the same.
    let mut frame = Arp::probe(owner.mac(), GATEWAY).frame();
    frame.splice(12..14, [0x88, 0xb5]);
    thief.raw_socket()?.send(&frame)?;
    let (_, conflict) = conflicts.next(|conflict| conflict["kind"] == "clone")?;
    assert!(conflict["address"].is_null(), "it claims none: {conflict}");
    for part in [thief.port(), owner.port(), &owner.mac().to_string()] {
        assert!(conflict.to_string().contains(part), "{part} is not in {conflict}");
    }
    Ok(())
}

#[test]
fn l02_the_bridges_own_mac_is_the_gateways() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let thief = lab.sandbox("thief")?;
    agent.await_port(&thief)?;
    let conflicts = agent.follow(&["conflicts"])?;
    let mut frame = Arp::probe(lab.bridge_mac(BRIDGE), GATEWAY).frame();
    frame.splice(12..14, [0x88, 0xb5]);
    thief.raw_socket()?.send(&frame)?;
    let (_, conflict) = conflicts.next(|conflict| conflict["kind"] == "gateway")?;
    assert_eq!(conflict["severity"], "critical");
    assert!(conflict.to_string().contains(thief.port()), "{conflict}");
    Ok(())
}

#[test]
fn a31_a_sandbox_that_starts_again_with_its_address_is_no_conflict() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (marker, other) = (lab.sandbox("marker")?, lab.sandbox("other")?);
    let marked = agent.admit(&marker)?;
    agent.await_port(&other)?;
    let mut sandbox = lab.sandbox("again")?;
    let lease = agent.admit(&sandbox)?;
    sandbox.announce(lease.address)?;
    for number in 0..3 {
        sandbox.delete()?;
        sandbox = lab.sandbox_with("again", BRIDGE, Mac::numbered(0x0100 + number))?;
        agent.bind(&lease, &sandbox)?;
        sandbox.add_address(lease.address)?;
        sandbox.announce(lease.address)?;
    }
    assert!(settle(&agent, &other, marked.address)?.is_empty());
    let entry = agent.entry(lease.address)?.context("not listed")?;
    assert_eq!(entry["state"], "active");
    assert_eq!(entry["generation"], lease.generation);
    assert_eq!(entry["mac"], sandbox.mac().to_string());
    Ok(())
}
