//! What only routers, servers and bridges say (enforce.md, scenarios 19 to 22).

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use guard_tests::{BRIDGE, GATEWAY, Mac, Sandbox, eventually, run};

use crate::{
    life::{Dhcp, lease_file},
    world::{Mode, World, of_ethertype, send, tool},
};

/// An IGMP general query (RFC 3376 §4.1).
fn igmp_query(from: Mac, source: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0x01, 0x00, 0x5e, 0, 0, 1];
    frame.extend(from.octets());
    frame.extend([8, 0, 0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0]);
    frame.extend(source.octets());
    frame.extend([224, 0, 0, 1, 0x94, 4, 0, 0, 0x11, 100, 0xee, 0x9b, 0, 0, 0, 0]);
    let sum = checksum(&frame[14..38]);
    frame[24..26].copy_from_slice(&sum);
    frame
}

fn checksum(header: &[u8]) -> [u8; 2] {
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let low = u16::try_from(folded & 0xffff).unwrap_or(0);
    (!low).to_be_bytes()
}

#[test]
fn s19_a_querier_on_an_access_port() -> Result<()> {
    let world = World::new()?;
    world.lab.host().ip(&format!("link set {BRIDGE} type bridge mcast_snooping 1"))?;
    world.attack("control", |world| {
        let query = igmp_query(world.attacker.mac(), world.leases.attacker.address);
        send(&world.attacker, &query)
    })?;
    let shown = run("bridge", &["-n", world.lab.host().name(), "mdb", "show", "dev", BRIDGE])?;
    ensure!(!shown.contains(world.attacker.port()), "a router is thought behind it: {shown}");
    Ok(())
}

/// A bridge that snoops takes a PIM hello for a router's (RFC 7761 §4.9.2).
#[test]
fn s19_a_pim_router_on_an_access_port() -> Result<()> {
    let world = World::new()?;
    world.lab.host().ip(&format!("link set {BRIDGE} type bridge mcast_snooping 1"))?;
    world.attack("control", |world| {
        let hello = pim_hello(world.attacker.mac(), world.leases.attacker.address);
        send(&world.attacker, &hello)
    })
}

/// Version 2, type hello, without options, to all PIM routers.
fn pim_hello(from: Mac, source: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0x01, 0x00, 0x5e, 0, 0, 0x0d];
    frame.extend(from.octets());
    frame.extend([8, 0, 0x45, 0xc0, 0, 24, 0, 0, 0, 0, 1, 103, 0, 0]);
    frame.extend(source.octets());
    frame.extend([224, 0, 0, 13, 0x20, 0, 0xdf, 0xff]);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum);
    frame.resize(60, 0);
    frame
}

#[test]
fn s20_yersinia_exhausts_the_dhcp_servers_pool() -> Result<()> {
    World::new()?.attack("mac", |world| {
        tool(&world.attacker, 3, "yersinia", &["dhcp", "-attack", "1", "-interface", "eth0"])
    })
}

/// A server on an access port: its offers go nowhere, and the one on the host gives the address.
#[test]
fn s21_a_rogue_dhcp_server() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let address = world.leases.attacker.address;
    let rogue = Dhcp::start(&world.lab, world.attacker.netns(), "eth0", address, &[])?;
    let client = fresh(&world)?;
    // No other server is there: nobody answers.
    let file = lease_file(&world.lab, "rogue");
    tool(&client, 4, "udhcpc", &["-i", "eth0", "-n", "-q", "-f", "-t3", "-T1", "-s", &file])?;
    let shown = run("ip", &["-n", client.netns().name(), "address", "show", "dev", "eth0"])?;
    ensure!(!shown.contains("inet "), "it has an address from a rogue server: {shown}");
    drop(rogue);
    eventually("drops", || Ok((world.dropped("dhcp_server")? > 0).then_some(())))
}

fn fresh(world: &World) -> Result<Sandbox> {
    let client = world.lab.sandbox("client")?;
    let lease = world.agent.allocate("client")?;
    world.agent.bind(&lease, &client)?;
    world.agent.await_port(&client)?;
    Ok(client)
}

#[test]
fn s22_yersinia_speaks_spanning_tree() -> Result<()> {
    World::new()?.attack("mac", |world| {
        tool(&world.attacker, 3, "yersinia", &["stp", "-attack", "2", "-interface", "eth0"])
    })
}

/// One BPDU, LLDP, CDP: nothing of it leaves by another port, though the bridge's spanning tree is off.
#[test]
fn s22_bridges_protocols_reach_nobody() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let from = world.attacker.mac();
    let beyond = world.neighbour.raw_socket()?;
    let groups: [[u8; 6]; 4] = [
        [0x01, 0x80, 0xc2, 0, 0, 0],
        [0x01, 0x80, 0xc2, 0, 0, 2],
        [0x01, 0, 0x0c, 0xcc, 0xcc, 0xcd],
        [0x01, 0, 0x0c, 0xcc, 0xcc, 0xcc],
    ];
    for group in groups {
        send(&world.attacker, &of_ethertype(from, Mac::new(group), 0x88b6))?;
    }
    let marker = of_ethertype(from, Mac::BROADCAST, 0x88b5);
    send(&world.attacker, &marker)?;
    let first = beyond.receive(guard_tests::TIMEOUT, |frame| {
        (frame.get(6..12)? == from.octets()).then(|| frame[..14].to_vec())
    })?;
    ensure!(first == marker[..14], "{first:02x?} came through");
    eventually("drops", || Ok((world.dropped("control")? >= 4).then_some(())))
        .with_context(|| format!("{GATEWAY} is still there"))
}
