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
fn while_sending<T>(
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
                thread::sleep(std::time::Duration::from_micros(200));
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
    world.agent.kill()?;
    let watched = world.watch()?;
    let theft = Arp::announcement(world.attacker.mac(), world.leases.victim.address);
    let host = RawSocket::open(world.lab.host(), BRIDGE)?;
    for _ in 0..100 {
        arp(&world.attacker, &theft)?;
    }
    // Its own, which comes after them.
    arp(&world.attacker, &Arp::announcement(world.attacker.mac(), world.leases.attacker.address))?;
    let first = host.receive(guard_tests::TIMEOUT, |frame| {
        Arp::parse(frame).filter(|arp| arp.eth_src == world.attacker.mac()).map(|arp| arp.spa)
    })?;
    ensure!(first == world.leases.attacker.address, "{first} came through");
    watched.held()?;
    world.agent.start_again()?;
    ensure!(
        world.dropped("violation")? >= 100,
        "they are counted: {:?}",
        world.all("guard_frames_dropped_total")?
    );
    let watched = world.watch()?;
    arp(&world.attacker, &theft)?;
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
        let agent = &mut world.agent;
        let (sent, ()) = while_sending(&socket, &forged, || {
            agent.kill()?;
            agent.start_again()
        })?;
        ensure!(sent > 0, "nothing was sent");
    }
    watched.held()?;
    eventually("each of them counted", || Ok((world.dropped("violation")? > before).then_some(())))
}

/// Another program of the same hook, in front of ours, that lets everything pass.
#[test]
fn s31_a_program_is_put_in_front() -> Result<()> {
    let world = World::new()?;
    if world.lab.attach()? == "clsact" {
        return Ok(());
    }
    world.switch(Mode::Enforce)?;
    let first = world.lab.programs_on(world.attacker.port())?;
    world.lab.take_program_off(world.attacker.port())?;
    eventually("the program put back", || {
        Ok((!world.lab.programs_on(world.attacker.port())?.is_empty()).then_some(()))
    })?;
    ensure!(!first.is_empty(), "it was there");
    let watched = world.watch()?;
    arp(&world.attacker, &Arp::announcement(world.attacker.mac(), world.leases.victim.address))?;
    watched.held()
}
