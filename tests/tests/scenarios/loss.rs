//! What someone takes away from the observer comes back without a restart.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::maps::{Array, MapInfo, loaded_maps};
use aya::programs::loaded_programs;
use guard_tests::{Arp, BRIDGE, GATEWAY, Lab, Launch, eventually};

#[test]
fn a_program_that_someone_takes_off_a_port_is_put_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let before = lab.programs_on(thief.port())?;
    assert_eq!(before.len(), 1);
    for round in 1..=2 {
        lab.take_program_off(thief.port())?;
        eventually("the port found without the program, and with it again", || {
            let lost = agent.journal().count(&["degraded", thief.port(), "taken off"]) == round;
            let back = agent.journal().count(&["recovered", thief.port()]) == round;
            Ok((lost && back).then_some(()))
        })?;
        assert_eq!(lab.programs_on(thief.port())?, before);
    }
    agent.await_readyz(200)?;
    // The other port was left alone, and this one is watched.
    assert_eq!(agent.journal().count(&["degraded", owner.port()]), 0);
    let events = agent.follow(&["events", "--from", "0"])?;
    thief.announce(lease.address)?;
    events.next(|event| event["type"] == "conflict.opened").map(drop)
}

#[test]
fn events_that_nobody_has_read_are_told_from_the_maps() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    owner.announce(lease.address)?;
    agent.await_port(&thief)?;
    agent.kill()?;
    thief.announce(lease.address)?;
    let socket = thief.raw_socket()?;
    for mac in [owner.mac(), lab.bridge_mac(BRIDGE)] {
        // An ethertype that nobody speaks: it is about no address.
        let mut frame = Arp::probe(mac, GATEWAY).frame();
        frame.splice(12..14, [0x88, 0xb5]);
        socket.send(&frame)?;
    }
    let mut lost = 0;
    eventually("an event for each", || {
        lost += lab.lose_events()?;
        Ok((lost >= 3).then_some(()))
    })?;
    agent.start_again()?;
    let conflicts = agent.list(&["conflicts"], "conflicts")?;
    for kind in ["duplicate", "clone", "gateway"] {
        let conflict = conflicts.iter().find(|conflict| conflict["kind"] == kind);
        let conflict = conflict.with_context(|| format!("no {kind} in {conflicts:?}"))?;
        assert!(conflict.to_string().contains(thief.port()), "{conflict}");
    }
    Ok(())
}

#[test]
fn detach_leaves_nothing_in_the_kernel() -> Result<()> {
    // A directory of its own, and the root of a bpffs that others use too.
    for bpffs in ["bpf/guard", "bpf"] {
        let lab = Lab::new()?;
        let bpffs = lab.dir().join(bpffs);
        let config = lab.config()?.with(&format!("bpffs = {bpffs:?}"))?;
        let agent = lab.agent_with(Launch::config(&config)?)?;
        let sandbox = lab.sandbox("a")?;
        agent.await_port(&sandbox)?;
        agent.stop()?;
        let programs = lab.programs_on(sandbox.port())?;
        assert_eq!(programs.len(), 1, "it goes on without the agent");
        let ours = pins(&bpffs)?;
        let maps = ours.iter().filter_map(|pin| Some(MapInfo::from_pin(pin).ok()?.id()));
        let maps: Vec<u32> = maps.collect();
        assert!(maps.len() > 8, "{maps:?} of {ours:?}");
        let others = lab.dir().join("bpf/others");
        std::fs::create_dir(&others)?;
        Array::<_, u32>::create(1, 0)?.pin(others.join("map"))?;

        lab.detach()?;
        // The kernel takes a link off some time after its last pin is gone.
        eventually("no program", || Ok(lab.programs_on(sandbox.port())?.is_empty().then_some(())))?;
        eventually("no program and no map of ours in the kernel", || {
            let mut left = loaded_programs().flatten().map(|it| it.id());
            let program = left.any(|id| programs.contains(&id));
            let map = loaded_maps().flatten().any(|it| maps.contains(&it.id()));
            Ok((!program && !map).then_some(()))
        })?;
        assert!(ours.iter().all(|pin| !pin.exists()), "{:?}", pins(&bpffs)?);
        assert!(others.join("map").exists(), "what others have pinned is gone");
        let qdiscs = lab.host().command("tc").args(["qdisc", "show"]).output()?;
        let qdiscs = String::from_utf8(qdiscs.stdout)?;
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    }
    Ok(())
}

/// All that is pinned, but what the kernel itself has at the root of a bpffs.
fn pins(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pins(&path)?);
        } else if path.extension().is_none_or(|extension| extension != "debug") {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn a_link_that_someone_detaches_is_put_back() -> Result<()> {
    let lab = Lab::new()?;
    if lab.attach()? == "clsact" {
        eprintln!("passed over: before Linux 6.6 there are no links on ports");
        return Ok(());
    }
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let before = lab.programs_on(thief.port())?;
    lab.detach_link(thief.port())?;
    agent.journal().await_line(&["degraded", thief.port(), "taken off"])?;
    agent.journal().await_line(&["recovered", thief.port()])?;
    assert_eq!(lab.programs_on(thief.port())?, before);
    let events = agent.follow(&["events", "--from", "0"])?;
    thief.announce(lease.address)?;
    events.next(|event| event["type"] == "conflict.opened").map(drop)
}

#[test]
fn maps_whose_pins_someone_removes_are_pinned_again_and_outlive_the_agent() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let mut before = lab.pinned()?;
    for pin in before.iter().filter(|pin| !pin.to_string_lossy().contains("link-")) {
        std::fs::remove_file(pin)?;
    }
    agent.journal().await_line(&["degraded", "pins", "OWNED", "LIVE"])?;
    agent.journal().await_line(&["recovered", "pins"])?;
    let mut after = lab.pinned()?;
    before.sort();
    after.sort();
    assert_eq!(before, after);
    // They are the same maps: the next agent finds what the program notes meanwhile.
    agent.kill()?;
    thief.announce(lease.address)?;
    agent.start_again()?;
    let found = agent.list(&["conflicts"], "conflicts")?;
    let address = lease.address.to_string();
    assert!(found.iter().any(|conflict| conflict["address"] == address.as_str()), "{found:?}");
    agent.check()
}
