//! What ports may do besides their bindings (enforce.md, "Exceptions"; scenarios 37 to 39, 42 and 45). Each
//! first without its exception, and then what the exception never opens.

use anyhow::{Context, Result, ensure};
use guard_tests::{Arp, GATEWAY, Mac, Sandbox, eventually, router_advertisement};

use crate::{
    forged::tagged,
    world::{Mode, World, arp, of_ethertype, send, tool},
};

/// An address of the pool that nobody has.
const FURTHER: [u8; 4] = [10, 8, 64, 240];

/// Sends something, which is dropped for a reason.
fn drops(world: &World, reason: &str, act: impl Fn(&World) -> Result<()>) -> Result<()> {
    let before = world.dropped(reason)?;
    act(world)?;
    eventually(&format!("{reason} drops"), || Ok((world.dropped(reason)? > before).then_some(())))
}

/// Sends something, of which nothing is dropped. What is sent after it shows that it has been counted.
fn passes(world: &World, act: impl Fn(&World) -> Result<()>) -> Result<()> {
    let before = world.all("guard_frames_dropped_total")?;
    act(world)?;
    let clone = of_ethertype(world.victim.mac(), Mac::BROADCAST, 0x88b5);
    drops(world, "clone", |world| send(&world.free, &clone))?;
    let others = |all: Vec<(String, f64)>| -> Vec<_> {
        all.into_iter().filter(|(labels, _)| !labels.contains("clone")).collect()
    };
    let after = world.all("guard_frames_dropped_total")?;
    ensure!(others(after.clone()) == others(before.clone()), "{before:?} became {after:?}");
    Ok(())
}

/// A rule for the victim's port.
fn rule(world: &World, kind: &str, more: &str) -> String {
    let port = world.victim.port();
    format!("[[bridge.allow]]\nkind = \"{kind}\"\nports = [\"{port}\"]\n{more}\n")
}

/// A MACVLAN in the victim, as containers have it.
fn macvlan(sandbox: &Sandbox, mac: Mac) -> Result<()> {
    let netns = sandbox.netns();
    netns.ip(&format!("link add inner0 link eth0 address {mac} type macvlan mode bridge"))?;
    netns.ip("link set inner0 up")?;
    netns.ip("address add 10.8.64.240/24 dev inner0")?;
    Ok(())
}

#[test]
fn s42_a_macvlan_inside_a_sandbox() -> Result<()> {
    let mut world = World::new()?;
    world.switch(Mode::Enforce)?;
    let mac = Mac::numbered(0x0400);
    macvlan(&world.victim, mac)?;
    let asks = |world: &World| arp(&world.victim, &Arp::request(mac, FURTHER.into(), GATEWAY));
    drops(&world, "mac", asks)?;
    let rows = world.agent.list(&["drops", "--reason", "mac"], "drops")?;
    let line = rows.first().and_then(|row| row["allow"].as_str()).context("no line")?.to_owned();
    ensure!(line.contains("\"macs\"") && line.contains(&mac.to_string()), "{line}");

    // The MAC alone is not enough: its address is judged as any.
    let macs = rule(&world, "macs", &format!("macs = [\"{mac}\"]"));
    world.except(&macs)?;
    drops(&world, "unowned", asks)?;
    let address = rule(&world, "address", "addresses = [\"10.8.64.240/28\"]");
    world.except(&format!("{macs}{address}"))?;
    passes(&world, |world| {
        let gateway = GATEWAY.to_string();
        tool(&world.victim, 5, "ping", &["-c2", "-i0.2", "-I", "10.8.64.240", &gateway])
    })?;
    // Never what another has: his address, and his MAC.
    let (other, address) = (world.neighbour.mac(), world.leases.neighbour.address);
    drops(&world, "violation", |world| arp(&world.victim, &Arp::announcement(mac, address)))?;
    let wide = rule(&world, "address", "addresses = [\"10.8.0.0/16\"]");
    let taken = rule(&world, "macs", &format!("macs = [\"{other}\", \"02:00:00\"]\nany = 8"));
    world.except(&format!("{taken}{wide}"))?;
    drops(&world, "clone", |world| {
        send(&world.victim, &of_ethertype(other, Mac::BROADCAST, 0x88b5))
    })?;
    drops(&world, "violation", |world| {
        arp(&world.victim, &Arp::announcement(world.victim.mac(), address))
    })?;
    // And no longer than it is there.
    world.except("")?;
    drops(&world, "mac", asks)
}

/// Any MACs up to a number, and those of one vendor.
#[test]
fn s42_macs_by_number_and_by_vendor() -> Result<()> {
    let mut world = World::new()?;
    let from = |number: u32| {
        let mac = Mac::numbered(number);
        move |world: &World| send(&world.victim, &of_ethertype(mac, Mac::BROADCAST, 0x88b5))
    };
    let vendor = Mac::numbered(0).to_string()[..8].to_owned();
    world.except(&rule(&world, "macs", &format!("macs = [\"{vendor}\"]")))?;
    passes(&world, from(0x0500))?;
    world.except(&rule(&world, "macs", "any = 6"))?;
    for number in 0..4 {
        passes(&world, from(0x0510 + number))?;
    }
    drops(&world, "mac_quota", |world| (0..8).try_for_each(|number| from(0x0520 + number)(world)))
}

/// Each class on one port, by the names of its sandbox and of its port.
#[test]
fn s45_classes_of_frames_on_one_port() -> Result<()> {
    let mut world = World::new()?;
    let (mac, bpdu) = (world.victim.mac(), Mac::new([0x01, 0x80, 0xc2, 0, 0, 0]));
    let mut tree = of_ethertype(mac, bpdu, 0x0026);
    tree[14..17].copy_from_slice(&[0x42, 0x42, 3]);
    let inner = of_ethertype(mac, Mac::BROADCAST, 0x88b5);
    let router = router_advertisement(mac)?;
    let frames = [
        ("bpdu", "control", tree),
        ("tagged", "tagged", tagged(&inner, &[0x8100], 7)),
        ("router", "router", router),
    ];
    for (kind, reason, frame) in &frames {
        world.except("")?;
        drops(&world, reason, |world| send(&world.victim, frame))?;
        let name = world.victim.name();
        let rule = format!("[[bridge.allow]]\nkind = \"{kind}\"\nsandboxes = [\"{name}\"]\n");
        world.except(&rule)?;
        passes(&world, |world| send(&world.victim, frame))?;
        world.except(&self::rule(&world, kind, ""))?;
        passes(&world, |world| send(&world.victim, frame))?;
        // It is one port's, and opens nothing else.
        let mut others = frame.clone();
        others[6..12].copy_from_slice(&world.neighbour.mac().octets());
        drops(&world, "clone", |world| send(&world.victim, &others))?;
    }
    Ok(())
}

/// An address that goes from port to port, with each one's own MAC.
#[test]
fn s37_a_shared_address_of_two_ports() -> Result<()> {
    let rule =
        "kind = \"shared\"\naddresses = [\"10.8.64.240\"]\nsandboxes = [\"vic*\", \"neighbour\"]";
    let world = World::with(&format!("[[bridge.allow]]\n{rule}\n"), Ok)?;
    world.switch(Mode::Enforce)?;
    let announce = |from: &Sandbox| arp(from, &Arp::announcement(from.mac(), FURTHER.into()));
    for _ in 0..3 {
        passes(&world, |world| announce(&world.victim))?;
        passes(&world, |world| announce(&world.neighbour))?;
    }
    drops(&world, "violation", |world| announce(&world.attacker))?;
    drops(&world, "violation", |world| announce(&world.free))?;
    Ok(())
}

/// A virtual router's MAC, and no other one's.
#[test]
fn s38_a_virtual_router_of_two_ports() -> Result<()> {
    let rule = "kind = \"vrrp\"\nvrids = [7]\naddresses = [\"10.8.64.240\"]\n\
        sandboxes = [\"victim\", \"neighbour\"]";
    let world = World::with(&format!("[[bridge.allow]]\n{rule}\n"), Ok)?;
    world.switch(Mode::Enforce)?;
    let virtual_mac = |vrid| Mac::new([0, 0, 0x5e, 0, 1, vrid]);
    let announce =
        |from: &Sandbox, vrid| arp(from, &Arp::announcement(virtual_mac(vrid), FURTHER.into()));
    for _ in 0..3 {
        passes(&world, |world| announce(&world.victim, 7))?;
        passes(&world, |world| announce(&world.neighbour, 7))?;
    }
    // Its own address from the virtual MAC too.
    let own = world.leases.victim.address;
    passes(&world, |world| arp(&world.victim, &Arp::request(virtual_mac(7), own, GATEWAY)))?;
    drops(&world, "mac", |world| announce(&world.victim, 8))?;
    drops(&world, "mac", |world| announce(&world.attacker, 7))?;
    drops(&world, "violation", |world| announce(&world.free, 7))?;
    // With its own MAC it is not the virtual router.
    drops(&world, "violation", |world| {
        arp(&world.victim, &Arp::announcement(world.victim.mac(), FURTHER.into()))
    })
}

/// One MAC on two ports, with its address, as a bond that fails over has it.
#[test]
fn s39_a_mac_of_two_ports() -> Result<()> {
    let mut world = World::new()?;
    world.switch(Mode::Enforce)?;
    let (mac, address) = (world.victim.mac(), world.leases.victim.address);
    let other = |world: &World| arp(&world.free, &Arp::announcement(mac, address));
    drops(&world, "clone", other)?;
    let ports = [world.victim.port(), world.free.port()];
    let group = |ports: [&str; 2]| {
        format!("[[bridge.allow]]\nkind = \"group\"\nmacs = [\"{mac}\"]\nports = {ports:?}\n")
    };
    let ours = group(ports);
    world.except(&ours)?;
    for _ in 0..3 {
        let before = world.all("guard_frames_dropped_total")?;
        other(&world)?;
        arp(&world.victim, &Arp::announcement(mac, address))?;
        drops(&world, "violation", |world| {
            arp(&world.attacker, &Arp::announcement(world.attacker.mac(), address))
        })?;
        let of_group = |all: Vec<(String, f64)>| -> Vec<_> {
            all.into_iter().filter(|(labels, _)| !labels.contains("violation")).collect()
        };
        let after = world.all("guard_frames_dropped_total")?;
        ensure!(of_group(after) == of_group(before), "a frame of the group was dropped");
    }
    drops(&world, "clone", |world| arp(&world.attacker, &Arp::announcement(mac, address)))?;
    // A MAC that is bound to a port outside of the group stays there.
    let strangers = group([world.attacker.port(), world.free.port()]);
    world.except(&strangers)?;
    drops(&world, "clone", other)
}

/// A proxy answers for whom nobody has declared, and never in the place of an owner.
#[test]
fn s45_a_proxy_of_free_addresses() -> Result<()> {
    let mut world = World::new()?;
    world.except(&rule(&world, "proxy", "addresses = [\"10.8.64.0/24\"]"))?;
    let (mac, owned) = (world.victim.mac(), world.leases.neighbour.address);
    passes(&world, |world| arp(&world.victim, &Arp::announcement(mac, FURTHER.into())))?;
    drops(&world, "violation", |world| arp(&world.victim, &Arp::announcement(mac, owned)))
}
