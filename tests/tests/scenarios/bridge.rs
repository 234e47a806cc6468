//! Bridges that are not there yet, or not any more.

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use guard_ebpf::abi::{AddressKey, Owned};
use guard_tests::{Agent, BRIDGE, Lab, Launch, POOL, eventually};

fn is_refused_for_want_of_the_bridge(agent: &Agent) -> Result<()> {
    let body = agent.await_readyz(503)?;
    assert!(body.contains(BRIDGE), "{body}");
    let status = agent.json(&["status", "--live"])?;
    assert_eq!(status["ready"], false, "{status}");
    let degraded = status["degraded"].as_array().context("no list")?;
    let reason = degraded.iter().find(|reason| reason["what"] == format!("bridge {BRIDGE}"));
    assert!(reason.is_some_and(|reason| reason["why"].is_string()), "{status}");
    assert_eq!(status["bridges"][0]["present"], false, "{status}");
    let asked = ["allocate", "--pool", POOL, "--sandbox", "asker"];
    let refusal = agent.ctl(&asked)?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("UNAVAILABLE", "BRIDGE_ABSENT"));
    assert_eq!(agent.http("/healthz")?.status, 200);
    Ok(())
}

fn is_served(agent: &Agent) -> Result<()> {
    agent.await_readyz(200)?;
    agent.allocate("asker")?;
    assert_eq!(agent.json(&["status", "--live"])?["ready"], true);
    Ok(())
}

#[test]
fn one_that_does_not_exist_yet_is_picked_up_when_it_appears() -> Result<()> {
    let lab = Lab::without_bridge(24)?;
    let agent = lab.agent_with(Launch::config(&lab.config()?)?.degraded())?;
    is_refused_for_want_of_the_bridge(&agent)?;
    lab.add_bridge(BRIDGE)?;
    is_served(&agent)?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    assert_eq!(lab.programs_on(sandbox.port())?.len(), 1);
    sandbox.announce(lease.address)?;
    Ok(())
}

#[test]
fn one_that_vanishes_is_reported_and_picked_up_again() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    lab.remove_bridge(BRIDGE)?;
    is_refused_for_want_of_the_bridge(&agent)?;
    let entry = agent.entry(lease.address)?.context("the lease is lost")?;
    assert_eq!(entry["generation"], lease.generation);
    lab.add_bridge(BRIDGE)?;
    is_served(&agent)
}

#[test]
fn a20_an_address_of_the_host_on_another_link_is_never_handed_out() -> Result<()> {
    let lab = Lab::new()?;
    lab.host().ip("address add 10.8.64.2/32 dev lo")?;
    let agent = lab.agent()?;
    assert_eq!(agent.allocate("next")?.address.to_string(), "10.8.64.3");
    let ask = ["allocate", "--pool", POOL, "--sandbox", "asker", "--address", "10.8.64.2"];
    assert_eq!(agent.ctl(&ask)?.refusal()?.reason, "ADDRESS_RESERVED");
    // The host gives it up.
    lab.host().ip("address delete 10.8.64.2/32 dev lo")?;
    eventually("the address is free", || Ok(agent.ctl(&ask)?.refusal().is_err().then_some(())))?;
    Ok(())
}

#[test]
fn nothing_is_left_in_the_kernel_of_a_bridge_that_is_not_watched_any_more() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge("rt1")?;
    let one = lab.config()?;
    let two = format!(
        "{}\n[[bridge]]\nname = \"rt1\"\n\
         [[pool]]\nname = \"more\"\nbridge = \"rt1\"\nprefix = \"10.8.65.0/24\"\n",
        one.text()?
    );
    let mut agent = lab.agent_with(Launch::text(&two))?;
    agent.allocate("a")?;
    agent.lease(&["allocate", "--pool", "more", "--sandbox", "b"])?;
    let ifindex = |name: &'static str| lab.host().run(|| nix::net::if_::if_nametoindex(name));
    let (kept, gone) = (ifindex(BRIDGE)??, ifindex("rt1")??);
    ensure!(owned(&lab, kept)? > 0 && owned(&lab, gone)? == 2, "a lease and the gateway");
    agent.stop()?;
    agent.start_again_with(Launch::config(&one)?)?;
    ensure!(owned(&lab, kept)? > 0 && owned(&lab, gone)? == 0, "entries of rt1 are left");
    agent.check()
}

/// How many addresses of a bridge have an owner in the kernel.
fn owned(lab: &Lab, bridge: u32) -> Result<usize> {
    let pins = lab.pinned()?;
    let pin = pins.iter().find(|pin| pin.ends_with("OWNED")).context("the map of owners")?;
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let map = HashMap::<_, AddressKey, Owned>::try_from(map)?;
    Ok(map.keys().filter_map(Result::ok).filter(|key| key.bridge == bridge).count())
}
