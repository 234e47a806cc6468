//! The tools that poison neighbour tables (enforce.md, scenarios 1 to 8).

use anyhow::Result;
use guard_tests::GATEWAY;

use crate::world::{World, tool};

#[test]
fn s01_arpspoof_one_way() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let victim = world.leases.victim.address.to_string();
        tool(&world.attacker, 3, "arpspoof", &["-i", "eth0", "-t", &victim, &GATEWAY.to_string()])
    })
}

#[test]
fn s01_arpspoof_both_ways() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let victim = world.leases.victim.address.to_string();
        let gateway = GATEWAY.to_string();
        tool(&world.attacker, 3, "arpspoof", &["-i", "eth0", "-t", &victim, "-r", &gateway])
    })
}

#[test]
fn s01_arpspoof_to_everybody_from_a_port_without_a_binding() -> Result<()> {
    let world = World::new()?;
    world.free.add_address([10, 8, 64, 200].into())?;
    world.attack("violation", |world| {
        tool(&world.free, 3, "arpspoof", &["-i", "eth0", &world.leases.victim.address.to_string()])
    })
}

#[test]
fn s02_ettercap_between_victim_and_gateway() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let victim = format!("/{}//", world.leases.victim.address);
        let gateway = format!("/{GATEWAY}//");
        tool(
            &world.attacker,
            8,
            "ettercap",
            &["-T", "-q", "-i", "eth0", "-M", "arp:remote", &victim, &gateway],
        )
    })
}

#[test]
fn s06_nping_sends_a_reply_to_one_neighbour() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let (victim, neighbour) = (&world.leases.victim.address, &world.leases.neighbour.address);
        let [mac, to] = [&world.attacker, &world.victim].map(|sandbox| sandbox.mac().to_string());
        let (from, target) = (neighbour.to_string(), victim.to_string());
        let args = [
            "--arp",
            "--arp-type",
            "ARP-reply",
            "--arp-sender-ip",
            &from,
            "--arp-sender-mac",
            &mac,
        ];
        let more =
            ["--arp-target-ip", &target, "--arp-target-mac", &to, "--dest-mac", &to, "-e", "eth0"];
        tool(
            &world.attacker,
            5,
            "nping",
            &[&args[..], &more, &["--rate", "10", "-c", "10", &target]].concat(),
        )
    })
}

#[test]
fn s07_arping_announces_the_victims_address() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let victim = world.leases.victim.address;
        // It wants an address of its own to send from.
        world.attacker.netns().ip(&format!("address replace {victim}/32 dev eth0"))?;
        let sent =
            tool(&world.attacker, 4, "arping", &["-U", "-c3", "-I", "eth0", &victim.to_string()]);
        world.attacker.netns().ip(&format!("address del {victim}/32 dev eth0"))?;
        sent
    })
}

#[test]
fn s08_the_victims_address_in_packets_and_never_in_arp() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let (victim, neighbour) = (world.leases.victim.address, world.leases.neighbour.address);
        let mac = world.neighbour.mac();
        world.attacker.netns().ip(&format!(
            "address replace {victim}/32 dev eth0\n\
             neigh replace {neighbour} lladdr {mac} dev eth0 nud permanent"
        ))?;
        let args = ["-q", "-c5", "-i0.2", "-W1", "-I", &victim.to_string(), &neighbour.to_string()];
        let sent = tool(&world.attacker, 4, "ping", &args);
        world.attacker.netns().ip(&format!("address del {victim}/32 dev eth0"))?;
        sent
    })
}
