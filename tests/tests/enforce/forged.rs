//! Forged frames (enforce.md, scenarios 7, 23 to 29).

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use guard_tests::{Arp, BRIDGE, GATEWAY, Mac, TIMEOUT, eventually, ipv4_udp};
use serde_json::{Value, json};

use crate::world::{Mode, World, arp, send};

/// A request alone makes its sender believed (claims.md A01).
#[test]
fn s07_a_mere_request_with_the_victim_as_its_sender() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let request = Arp::request(world.attacker.mac(), world.leases.victim.address, GATEWAY);
        arp(&world.attacker, &request)
    })
}

/// Asked about the address, its MAC or the thief's, `why` tells of the theft; asked about a port on which
/// nothing happens, it tells of the lease alone.
#[test]
fn s53_why_tells_of_a_theft_whichever_way_it_is_asked() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let (victim, attacker) = (&world.leases.victim, &world.attacker);
    let events = world.agent.follow(&["events", "--from", "0"])?;
    arp(attacker, &Arp::announcement(attacker.mac(), victim.address))?;
    arp(attacker, &Arp::announcement(world.victim.mac(), world.leases.attacker.address))?;
    eventually("both dropped", || Ok((total(&world)? >= 2).then_some(())))?;
    let (_, told) = events.next(|event| event["type"] == "frames.dropped")?;
    ensure!(told["dropped"]["interface"] == attacker.port(), "{told}");
    let why = |about: &[&str]| world.agent.json(&[&["why"], about].concat());
    let reasons = |why: &Value| -> Vec<String> {
        let rows = why["drops"].as_array().into_iter().flatten();
        rows.filter_map(|row| row["reason"].as_str().map(str::to_owned)).collect()
    };
    let address = victim.address.to_string();
    let (mac, bad) = (world.victim.mac().to_string(), attacker.mac().to_string());
    let of_address = eventually("the incident", || {
        let why = why(&[&address])?;
        let open = why["conflicts"][0]["action"] == "dropped";
        Ok(open.then_some(why))
    })?;
    ensure!(reasons(&of_address) == ["violation"], "{of_address}");
    let owner = of_address["drops"][0]["owner"].as_str().context("no owner")?;
    ensure!(owner.starts_with("victim") && owner.contains(&mac), "{owner}");
    let of_mac = why(&["--mac", &mac])?;
    ensure!(reasons(&of_mac) == ["clone"], "{of_mac}");
    ensure!(of_mac["explanations"][0]["address"] == *address, "{of_mac}");
    ensure!(reasons(&why(&["--mac", &bad])?).contains(&"violation".to_owned()), "the thief's");
    let of_neighbour = why(&["--port", world.neighbour.port()])?;
    ensure!(
        of_neighbour["drops"] == json!([]) && of_neighbour["conflicts"] == json!([]),
        "{of_neighbour}"
    );
    let own = world.leases.neighbour.address.to_string();
    ensure!(of_neighbour["explanations"][0]["address"] == *own, "{of_neighbour}");
    let unknown = world.agent.ctl(&["why", "--port", "nowhere"])?.refusal()?;
    ensure!(unknown.reason == "PORT_UNKNOWN", "{unknown:?}");
    Ok(())
}

#[test]
fn s23_the_victims_address_in_tags() -> Result<()> {
    World::new()?.attack("violation", |world| {
        let claim = Arp::announcement(world.attacker.mac(), world.leases.victim.address).frame();
        // Priority alone is untagged (claims.md A28).
        send(&world.attacker, &tagged(&claim, &[0x8100], 0x6000))
    })?;
    World::new()?.attack("tagged", |world| {
        let claim = Arp::announcement(world.attacker.mac(), world.leases.victim.address).frame();
        send(&world.attacker, &tagged(&claim, &[0x8100], 7))?;
        send(&world.attacker, &tagged(&claim, &[0x88a8, 0x8100], 7))
    })
}

pub(crate) fn tagged(frame: &[u8], protocols: &[u16], tci: u16) -> Vec<u8> {
    let tags = protocols.iter().flat_map(|protocol| [protocol.to_be_bytes(), tci.to_be_bytes()]);
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, tags.flatten());
    tagged
}

#[test]
fn s23_arp_behind_llc_and_snap() -> Result<()> {
    World::new()?.attack("snap", |world| {
        let claim = Arp::announcement(world.attacker.mac(), world.leases.victim.address).frame();
        let mut frame = claim[..12].to_vec();
        frame.extend(u16::try_from(claim.len() - 14 + 8)?.to_be_bytes());
        frame.extend([0xaa, 0xaa, 3, 0, 0, 0, 8, 6]);
        frame.extend(&claim[14..]);
        frame.resize(60, 0);
        send(&world.attacker, &frame)
    })
}

/// Sender and Ethernet source differ, either way round (claims.md A10, A11), or the MAC is no host's.
#[test]
fn s25_arp_whose_macs_differ() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let watched = world.watch()?;
    let (victim, attacker) = (world.victim.mac(), world.attacker.mac());
    let address = world.leases.victim.address;
    let before: u64 = total(&world)?;
    let macs = [
        (attacker, victim),
        (attacker, Mac::numbered(0xbad)),
        (attacker, Mac::BROADCAST),
        (attacker, Mac::ZERO),
        (victim, attacker),
        (Mac::numbered(0xbad), attacker),
    ];
    for (eth_src, sha) in macs {
        for claim in [Arp::announcement(sha, address), Arp::gratuitous_reply(sha, address)] {
            arp(&world.attacker, &Arp { eth_src, ..claim })?;
        }
    }
    // IEEE 802 as hardware type, and what follows the packet (claims.md A22, A25).
    let mut other = Arp::announcement(attacker, address).frame();
    other[15] = 6;
    other.extend([0x55; 40]);
    send(&world.attacker, &other)?;
    eventually("each dropped", || Ok((total(&world)? >= before + 13).then_some(())))?;
    watched.held()
}

fn total(world: &World) -> Result<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    Ok(world.all("guard_frames_dropped_total")?.iter().map(|(_, count)| *count as u64).sum())
}

#[test]
fn s26_sources_that_are_not_the_ports() -> Result<()> {
    let world = World::new()?;
    world
        .lab
        .host()
        .ip("link add other type bridge\naddress add 192.0.2.1/24 dev other\nlink set other up")?;
    world.switch(Mode::Enforce)?;
    let (from, to) = (world.attacker.mac(), world.neighbour.mac());
    let arrived = world.neighbour.raw_socket()?;
    let target = world.leases.neighbour.address;
    let sources: [Ipv4Addr; 6] = [
        [127, 0, 0, 1].into(),
        [224, 0, 0, 5].into(),
        [240, 0, 0, 1].into(),
        [192, 0, 2, 1].into(),
        [198, 51, 100, 77].into(),
        world.leases.victim.address,
    ];
    for source in sources {
        let before = total(&world)?;
        send(&world.attacker, &ipv4_udp((from, to), source, target)?)?;
        eventually(&format!("{source} dropped"), || Ok((total(&world)? > before).then_some(())))?;
    }
    // The frames of a port come in their order.
    send(&world.attacker, &ipv4_udp((from, to), world.leases.attacker.address, target)?)?;
    let first = arrived.receive(TIMEOUT, |frame| {
        let is_ours = frame.get(6..12)? == from.octets() && frame.get(12..14)? == [8, 0];
        is_ours.then(|| frame.get(26..30).map(<[u8]>::to_vec))?
    })?;
    ensure!(first == world.leases.attacker.address.octets(), "{first:?} arrived");
    Ok(())
}

#[test]
fn s27_the_gateways_address_while_nobody_speaks() -> Result<()> {
    let world = World::new()?;
    let events = world.agent.follow(&["events", "--from", "0"])?;
    world.attack("violation", |world| {
        arp(&world.attacker, &Arp::announcement(world.attacker.mac(), GATEWAY))
    })?;
    let (_, event) = events.next(|event| event["conflict"]["kind"] == "gateway")?;
    ensure!(event["conflict"]["severity"] == "critical", "{event}");
    Ok(())
}

/// What was dropped is no evidence: the address can be handed out (enforce.md, sentence 6).
#[test]
fn s28_a_squatter_on_an_address_that_is_free() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let squatted = Ipv4Addr::new(10, 8, 64, 77);
    arp(&world.attacker, &Arp::announcement(world.attacker.mac(), squatted))?;
    eventually("it dropped", || Ok((world.dropped("unowned")? > 0).then_some(())))?;
    let ask =
        ["allocate", "--pool", guard_tests::POOL, "--sandbox", "next", "--address", "10.8.64.77"];
    let lease = world.agent.lease(&ask)?;
    ensure!(lease.address == squatted, "{lease:?}");
    Ok(())
}

/// The last holder's frames, each time an address changes hands.
#[test]
fn s29_the_last_holder_after_a_hand_over() -> Result<()> {
    const TIMES: u32 = 50;
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let lease = world.agent.allocate("moves")?;
    let ends = [world.lab.sandbox("one")?, world.lab.sandbox("two")?];
    for end in &ends {
        world.agent.await_port(end)?;
    }
    let sockets = [ends[0].raw_socket()?, ends[1].raw_socket()?];
    let host = guard_tests::RawSocket::open(world.lab.host(), BRIDGE)?;
    for turn in 0..TIMES {
        let (new, old) = if turn % 2 == 0 { (0, 1) } else { (1, 0) };
        world.agent.bind(&lease, &ends[new])?;
        // A tick is 10 ms at the most, and a call of guardctl's takes longer than that.
        sockets[old].send(&Arp::announcement(ends[old].mac(), lease.address).frame())?;
        sockets[new].send(&Arp::announcement(ends[new].mac(), lease.address).frame())?;
        let heard = host.receive(TIMEOUT, |frame| {
            let arp = Arp::parse(frame).filter(|arp| arp.spa == lease.address)?;
            ends.iter().position(|end| end.mac() == arp.eth_src)
        })?;
        ensure!(heard == new, "turn {turn}: the last holder was heard");
    }
    world.dropped("violation").map(drop).context("counted")
}
