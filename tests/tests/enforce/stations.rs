//! Ethernet sources that are another's, and floods of them (enforce.md, scenarios 4, 9 to 12).

use anyhow::{Context, Result, ensure};
use guard_tests::{Arp, BRIDGE, GATEWAY, Mac, eventually};

use crate::world::{Mode, World, arp, learned_on, of_ethertype, send, tool};

/// As `[quota] macs_per_port` is by default.
const MACS_PER_PORT: usize = 64;

#[test]
fn s04_ettercap_steals_ports() -> Result<()> {
    World::new()?.attack("clone", |world| {
        let victim = format!("/{}//", world.leases.victim.address);
        let neighbour = format!("/{}//", world.leases.neighbour.address);
        tool(
            &world.attacker,
            12,
            "ettercap",
            &["-T", "-q", "-i", "eth0", "-M", "port:remote", &victim, &neighbour],
        )
    })
}

/// Whatever the frame carries, also what the bridge keeps for itself.
#[test]
fn s09_the_victims_mac_in_any_frame() -> Result<()> {
    World::new()?.attack("clone", |world| {
        let (victim, broadcast) = (world.victim.mac(), Mac::BROADCAST);
        let lldp = Mac::new([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
        send(&world.attacker, &of_ethertype(victim, broadcast, 0x88b5))?;
        send(&world.attacker, &of_ethertype(victim, lldp, 0x88cc))?;
        send(&world.free, &of_ethertype(victim, broadcast, 0x88b5))
    })
}

#[test]
fn s09_the_bridges_own_mac() -> Result<()> {
    World::new()?.attack("bridge_mac", |world| {
        let bridge = world.lab.bridge_mac(BRIDGE);
        send(&world.attacker, &of_ethertype(bridge, Mac::BROADCAST, 0x88b5))
    })
}

/// Live with an address of its own and the MAC that is the victim's from now on (F2).
#[test]
fn s10_a_station_that_was_live_before_the_victim_was_bound() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let mac = Mac::numbered(0x0200);
    let own = [10, 8, 64, 201].into();
    let squats = Arp::request(mac, own, GATEWAY);
    arp(&world.free, &squats)?;
    eventually("the squatter live", || {
        let live = world.agent.list(&["live"], "live")?;
        Ok(live.iter().any(|entry| entry["address"] == "10.8.64.201").then_some(()))
    })?;
    let late = world.lab.sandbox_with("late", BRIDGE, mac)?;
    let lease = world.agent.admit(&late)?;
    world.agent.await_port(&late)?;
    late.announce(lease.address)?;
    let dropped = world.dropped("clone")?;
    let socket = world.free.raw_socket()?;
    for _ in 0..100 {
        socket.send(&squats.frame())?;
    }
    eventually("each of its frames dropped", || {
        Ok((world.dropped("clone")? >= dropped + 100).then_some(()))
    })?;
    ensure!(learned_on(&world.lab, &late)? == 1, "the FDB has the MAC where it is bound");
    Ok(())
}

/// Who spoke first with a MAC does not silence the one it is bound to (F3).
#[test]
fn s11_a_port_that_spoke_first_with_the_victims_mac() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let mac = Mac::numbered(0x0201);
    let early = Arp::request(mac, [10, 8, 64, 202].into(), GATEWAY);
    arp(&world.free, &early)?;
    let late = world.lab.sandbox_with("late", BRIDGE, mac)?;
    let lease = world.agent.admit(&late)?;
    world.agent.await_port(&late)?;
    let lost = world.all("guard_frames_dropped_total")?;
    tool(&late, 5, "ping", &["-q", "-c3", "-i0.2", &GATEWAY.to_string()])?;
    ensure!(world.all("guard_frames_dropped_total")? == lost, "{} is dropped", lease.address);
    let before = world.dropped("clone")?;
    arp(&world.free, &early)?;
    eventually("the early one dropped", || Ok((world.dropped("clone")? > before).then_some(())))
}

/// A frame that was dropped is no evidence: what it claimed is not its port's when the victim's ends
/// (enforce.md, sentence 6).
#[test]
fn s11_what_was_dropped_takes_nothing_over() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let (mac, address) = (world.victim.mac(), world.leases.victim.address);
    arp(&world.free, &Arp::announcement(mac, address))?;
    eventually("it dropped", || Ok((world.dropped("clone")? > 0).then_some(())))?;
    world.victim.clone().delete()?;
    let gone = world.victim.port();
    eventually("the end of the victim's port", || {
        let ports = world.agent.list(&["ports"], "ports")?;
        Ok((!ports.iter().any(|port| port["interface"] == gone)).then_some(()))
    })?;
    let again = world.comes_anew(mac, address)?;
    eventually("the lease on the victim's new port", || {
        let entry = world.agent.entry(address)?.context("no lease")?;
        ensure!(entry["interface"] != world.free.port(), "the thief's port has it: {entry}");
        Ok((entry["interface"] == again.port()).then_some(()))
    })
}

#[test]
fn s12_macof_from_a_bound_port_leaves_nothing_in_the_fdb() -> Result<()> {
    let world = World::new()?;
    let flood = |world: &World| tool(&world.attacker, 10, "macof", &["-i", "eth0", "-n", "20000"]);
    world.switch(Mode::Enforce)?;
    let (before, watched) = (learned_on(&world.lab, &world.attacker)?, world.watch()?);
    flood(&world)?;
    eventually("the flood dropped", || Ok((world.dropped("mac")? > 5_000).then_some(())))?;
    let after = learned_on(&world.lab, &world.attacker)?;
    ensure!(after <= before.max(1), "{before} entries became {after}");
    watched.held()
}

#[test]
fn s12_a_port_without_a_binding_has_its_quota_of_macs() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let socket = world.free.raw_socket()?;
    for number in 0..20_000_u32 {
        let ethertype = 0x8800 | u16::try_from(number & 0xff)?;
        socket.send(&of_ethertype(Mac::numbered(0x10_0000 + number), Mac::BROADCAST, ethertype))?;
    }
    eventually("the flood dropped", || Ok((world.dropped("mac_quota")? > 10_000).then_some(())))?;
    let after = learned_on(&world.lab, &world.free)?;
    ensure!(after <= MACS_PER_PORT + 1, "the FDB has {after} of its MACs");
    Ok(())
}
