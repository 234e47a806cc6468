//! A store of which more or less is gone: whatever is left of it, it is never taken for a first
//! start, and never for somebody else's file.

use anyhow::{Context, Result, ensure};
use guard_tests::{Lab, Launch, eventually};

use crate::store::Scene;

/// What the kernel has stands while the store is lost.
fn the_kernel_keeps_its_holders(scene: &Scene) -> Result<()> {
    ensure!(scene.lab.holders()? == 2, "{} holders", scene.lab.holders()?);
    Ok(())
}

#[test]
fn rule_11_a_state_directory_that_is_lost_whole_is_a_lost_store() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.kill()?;
    std::fs::remove_dir_all(scene.agent.store().with_file_name(""))?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    let why = scene.agent.json(&["status", "--live"])?["store"].to_string();
    let last = scene.held.generation.max(scene.running.generation).to_string();
    ensure!(why.contains("the kernel knows") && why.contains(&last), "{why}");
    the_kernel_keeps_its_holders(&scene)?;
    // Asked again, it says the same.
    scene.agent.kill()?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    the_kernel_keeps_its_holders(&scene)?;
    scene.recovers(&[], "quarantined")?;
    let held = scene.agent.entry(scene.held.address)?.context("counts as free")?;
    ensure!(held["reason"] == "recovered", "{held}");
    // What the kernel knew of the port is known.
    let bound = scene.agent.entry(scene.running.address)?.context("counts as free")?;
    ensure!(bound["interface"] == scene.sandbox.port(), "{bound}");
    ensure!(bound["mac"] == scene.sandbox.mac().to_string(), "{bound}");
    scene.agent.stop()?;
    scene.agent.start_again()?;
    scene.agent.check()
}

#[test]
fn rule_11_a_bound_port_that_exists_keeps_what_a_recovery_quarantined() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with_pool("probation", "\"1s\"")?;
    let mut agent = lab.agent_with(Launch::config(&config)?.degraded())?;
    // Neither says a word.
    let (runs, ends) = (lab.sandbox("runs")?, lab.sandbox("ends")?);
    let mut bound = Vec::new();
    for sandbox in [&runs, &ends] {
        let lease = agent.allocate(sandbox.name())?;
        let generation = lease.generation.to_string();
        agent.json(&["bind", "--generation", &generation, "--interface", sandbox.port()])?;
        bound.push(lease);
    }
    // Its port is known by what it has said once.
    let learned = lab.sandbox("learned")?;
    let spoken = agent.allocate(learned.name())?;
    learned.announce(spoken.address)?;
    eventually("the first claim", || Ok((agent.state(&spoken)? == "active").then_some(())))?;
    let unbound = agent.allocate("unbound")?;
    // What the first recovery quarantines is not forgotten by the second.
    for _ in 0..2 {
        agent.kill()?;
        std::fs::remove_dir_all(agent.store().with_file_name(""))?;
        agent.start_again()?;
        agent.json(&["recover", "--yes"])?;
        agent.await_readyz(200)?;
        for (sandbox, lease) in [(&runs, &bound[0]), (&ends, &bound[1]), (&learned, &spoken)] {
            let entry = agent.entry(lease.address)?.context("its port is there, and it is free")?;
            ensure!(entry["state"] == "quarantined" && entry["reason"] == "recovered", "{entry}");
            ensure!(entry["interface"] == sandbox.port(), "{entry}");
            ensure!(entry["generation"] == lease.generation, "{entry}");
        }
        agent.check()?;
    }
    let counts_as_free = |address| {
        move |agent: &guard_tests::Agent| Ok(agent.entry(address)?.is_none().then_some(()))
    };
    eventually("the end of the probation", || counts_as_free(unbound.address)(&agent))?;
    for lease in &bound {
        let entry = agent.entry(lease.address)?.context("its port is there, and it is free")?;
        ensure!(entry["state"] == "quarantined" && entry["reason"] == "recovered", "{entry}");
    }
    // Nobody is right about such an address, and nobody wrong.
    learned.announce(bound[0].address)?;
    let address = bound[0].address.to_string();
    eventually("the claim", || {
        let live = agent.list(&["live"], "live")?;
        Ok(live.iter().any(|live| live["address"] == address.as_str()).then_some(()))
    })?;
    let conflicts = agent.list(&["conflicts", "--all"], "conflicts")?;
    ensure!(conflicts.is_empty(), "{conflicts:?}");
    let entry = agent.entry(bound[0].address)?.context("it is in use, and free")?;
    ensure!(entry["interface"] == runs.port(), "{entry}");
    // A restart knows the port again, and its end is the end of it.
    agent.stop()?;
    agent.start_again()?;
    agent.await_readyz(200)?;
    ends.delete()?;
    eventually("the end of the port", || counts_as_free(bound[1].address)(&agent))?;
    ensure!(agent.entry(bound[0].address)?.is_some(), "its port is there, and it is free");
    agent.check()
}

#[test]
fn rule_11_the_kernels_holders_alone_are_a_trace_of_a_store() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.kill()?;
    std::fs::remove_dir_all(scene.agent.store().with_file_name(""))?;
    let pin = scene.lab.pinned()?.into_iter().find(|pin| pin.ends_with("GENERATION"));
    std::fs::remove_file(pin.context("no generation is pinned")?)?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    the_kernel_keeps_its_holders(&scene)?;
    scene.recovers(&[], "quarantined")
}

#[test]
fn a_fresh_start_after_detach_is_one() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let before = agent.allocate("a")?;
    agent.stop()?;
    std::fs::remove_dir_all(agent.store().with_file_name(""))?;
    lab.detach()?;
    agent.start_again()?;
    let after = agent.allocate("b")?;
    ensure!(after.generation > before.generation, "{before:?}, then {after:?}");
    agent.check()
}

#[test]
fn rule_11_a_store_with_a_flipped_header_is_ours_and_loses_nothing() -> Result<()> {
    let mut scene = Scene::new()?;
    // The magic, the version of the file format, our own number.
    for at in [3, 18, 70] {
        scene.agent.stop()?;
        let mut bytes = std::fs::read(scene.agent.store())?;
        bytes[at] ^= 4;
        std::fs::write(scene.agent.store(), &bytes)?;
        scene.agent.start_again_degraded()?;
        scene.is_lost()?;
        let done = scene.agent.json(&["recover", "--yes"])?;
        ensure!(done["quarantined"].as_array().is_some_and(Vec::is_empty), "{done}");
        scene.agent.await_readyz(200)?;
        for lease in [&scene.running, &scene.held] {
            let entry = scene.agent.entry(lease.address)?.context("counts as free")?;
            ensure!(entry["generation"] == lease.generation, "{entry}");
        }
    }
    scene.agent.check()
}

#[test]
fn rule_11_a_damaged_marker_stops_allocation_and_costs_no_lease() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.stop()?;
    let mut marker = scene.agent.store().into_os_string();
    marker.push(".marker");
    std::fs::write(&marker, "guard-lease-store-1 closed")?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    scene.recovers(&[], "active")
}

#[test]
fn rule_11_a_pinned_generation_that_cannot_be_right_is_written_anew() -> Result<()> {
    let mut scene = Scene::new()?;
    let last = scene.held.generation;
    scene.agent.stop()?;
    scene.lab.set_generation(u64::MAX)?;
    scene.agent.start_again()?;
    scene.agent.journal().await_line(&["ERROR", "critical", &last.to_string(), "written anew"])?;
    let next = scene.agent.allocate("next")?;
    ensure!(next.generation == last + 1, "{next:?} after {last}");
    scene.agent.check()?;
    scene.agent.stop()?;
    scene.agent.start_again()?;
    ensure!(scene.agent.journal().count(&["critical"]) == 0, "it is well now");

    // Beside a lost store nothing says what was handed out.
    scene.agent.stop()?;
    scene.lab.set_generation(u64::MAX)?;
    std::fs::remove_dir_all(scene.agent.store().with_file_name(""))?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    scene.recovers(&[], "quarantined")
}

/// A recovery touches a file some twenty times; it is ended before each of these.
const STEPS: [u32; 8] = [1, 6, 8, 10, 12, 14, 16, 18];

#[test]
fn rule_11_a_death_in_a_recovery_costs_nothing() -> Result<()> {
    let mut scene = Scene::new()?;
    let launch = Launch::config(&scene.lab.config()?)?.degraded();
    let mut finished = 0;
    for step in STEPS {
        scene.agent.stop()?;
        let mut marker = scene.agent.store().into_os_string();
        marker.push(".marker");
        std::fs::write(&marker, "no marker")?;
        scene.agent.start_again_with(launch.clone().dying_at("recovery_step", step))?;
        let recovery = scene.agent.ctl(&["recover", "--yes"])?;
        ensure!(recovery.code != 0, "it did not die at step {step}: {}", recovery.stdout);
        scene.agent.await_death()?;
        scene.agent.start_again_with(launch.clone())?;
        let again = eventually("recovered, or lost still", || {
            let status = scene.agent.json(&["status", "--live"])?;
            Ok((status["boot_pass"] != "running" || status["store"] != "ok").then_some(status))
        })?;
        if again["store"] == "ok" {
            finished += 1;
        } else {
            scene.agent.json(&["recover", "--yes"])?;
        }
        scene.agent.await_readyz(200)?;
        for lease in [&scene.running, &scene.held] {
            let entry = scene.agent.entry(lease.address)?.context("counts as free")?;
            ensure!(entry["generation"] == lease.generation, "step {step}: {entry}");
        }
    }
    ensure!(finished > 1, "each had to be repeated");
    scene.agent.check()
}
