//! Switches, crashes and other programs while frames of both kinds are on their way (enforce.md, scenarios
//! 30, 31, 48).

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Result, ensure};
use guard_tests::{Arp, BRIDGE, RawSocket, eventually};

use crate::world::{Mode, World, arp};

/// Sends the frame over and over while `work` runs, and returns how many that were.
pub(crate) fn while_sending<T>(
    socket: &RawSocket,
    frame: &[u8],
    work: impl FnOnce() -> Result<T>,
) -> Result<(u64, T)> {
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                socket.send(frame)?;
                sent.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
            }
            Ok(())
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        Ok((sent.load(Ordering::Relaxed), result?))
    })
}

#[test]
fn s30_what_was_enforced_goes_on_while_the_agent_is_dead() -> Result<()> {
    let mut world = World::new()?;
    world.switch(Mode::Enforce)?;
    let steal = |world: &World| {
        let theft = Arp::announcement(world.attacker.mac(), world.leases.victim.address);
        arp(&world.attacker, &theft)
    };
    let first = world.die_and_start_again(|world| {
        let watched = world.watch()?;
        let host = RawSocket::open(world.lab.host(), BRIDGE)?;
        (0..100).try_for_each(|_| steal(world))?;
        // Its own, which comes after them.
        let own = world.leases.attacker.address;
        arp(&world.attacker, &Arp::announcement(world.attacker.mac(), own))?;
        let first = host.receive(guard_tests::TIMEOUT, |frame| {
            Arp::parse(frame).filter(|arp| arp.eth_src == world.attacker.mac()).map(|arp| arp.spa)
        })?;
        watched.held()?;
        Ok(first)
    })?;
    ensure!(first == world.leases.attacker.address, "{first} came through");
    let dropped = world.dropped("violation")?;
    ensure!(dropped >= 100, "of 100 frames it counts {dropped}");
    let watched = world.watch()?;
    steal(&world)?;
    watched.held()
}

/// Not one good frame is lost, and while the mode is enforce not one forged frame passes.
#[test]
fn s48_switches_and_restarts_under_traffic() -> Result<()> {
    const TIMES: usize = 10;
    let mut world = World::new()?;
    let good = Arp::announcement(world.victim.mac(), world.leases.victim.address).frame();
    let forged = Arp::announcement(world.attacker.mac(), world.leases.victim.address).frame();
    let received = |port: &str| -> Result<u64> {
        let shown = guard_tests::run(
            "ip",
            &["-n", world.lab.host().name(), "-s", "-j", "link", "show", port],
        )?;
        let links: serde_json::Value = serde_json::from_str(&shown)?;
        links
            .pointer("/0/stats64/rx/packets")
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| anyhow::anyhow!("{shown}"))
    };
    let host = RawSocket::open(world.lab.host(), BRIDGE)?;
    let socket = world.victim.raw_socket()?;
    let before = received(world.victim.port())?;
    let (sent, ()) = while_sending(&socket, &good, || {
        (0..TIMES).try_for_each(|_| {
            world.switch(Mode::Enforce)?;
            world.switch(Mode::Observe)
        })
    })?;
    ensure!(received(world.victim.port())? >= before + sent, "each came to the port");
    for reason in ["violation", "clone", "unowned", "mac", "off_prefix"] {
        ensure!(world.dropped(reason)? == 0, "a good frame was dropped: {reason}");
    }
    drop(host);
    world.switch(Mode::Enforce)?;
    let watched = world.watch()?;
    let socket = world.attacker.raw_socket()?;
    let before = world.dropped("violation")?;
    for _ in 0..3 {
        let (sent, ()) = while_sending(&socket, &forged, || world.die_and_start_again(|_| Ok(())))?;
        ensure!(sent > 0, "nothing was sent");
    }
    watched.held()?;
    eventually("each of them counted", || Ok((world.dropped("violation")? > before).then_some(())))
}

/// A bridge that is observed gets the first section, which was the enforced one's.
#[test]
fn s48_sections_in_another_order_open_nothing() -> Result<()> {
    let mut world = World::new()?;
    world.lab.add_bridge("rt1")?;
    world.switch(Mode::Enforce)?;
    let forged = Arp::announcement(world.attacker.mac(), world.leases.victim.address).frame();
    let socket = world.attacker.raw_socket()?;
    let watched = world.watch()?;
    let (sent, ()) = while_sending(&socket, &forged, || {
        world.die_and_start_again_behind("[[bridge]]\nname = \"rt1\"")
    })?;
    ensure!(sent > 0, "nothing was sent");
    watched.held()?;
    let passed = world.would_drop("violation")?;
    ensure!(passed == 0, "{passed} frames passed");
    Ok(())
}

/// Somebody takes the program off a port: it is put back, and the gap is told of.
#[test]
fn s31_the_program_is_taken_off_a_port() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let events = world.agent.follow(&["events", "--from", "0"])?;
    world.lab.take_program_off(world.attacker.port())?;
    events.next(|event| event["conflict"]["kind"] == "coverage")?;
    world.agent.await_port(&world.attacker)?;
    let watched = world.watch()?;
    arp(&world.attacker, &Arp::announcement(world.attacker.mac(), world.leases.victim.address))?;
    watched.held()
}
