//! Rules 6 to 8 with a real containerd: what it lists is evidence, and only what it lists
//! completely is none.

use anyhow::{Context, Result};
use guard_api::proto::directory::State;
use guard_tests::{Agent, Arp, BRIDGE, Containerd, Lab, Launch, Lease, Mac, POOL, eventually};
use serde_json::Value;

/// Passes in quick succession, and addresses that are free soon.
pub(crate) const QUICK: &str = "[reconcile]\ninterval = \"200ms\"";
/// Only what is asked for by hand, and what events say.
const BY_HAND: &str = "[reconcile]\ninterval = \"1h\"";

fn start(lab: &Lab, containerd: &Containerd, reconcile: &str) -> Result<Agent> {
    let config = lab.config()?.with_containerd(containerd)?.with(reconcile)?;
    lab.agent_with(Launch::config(&config)?)
}

pub(crate) fn misses(agent: &Agent, lease: &Lease) -> Result<u64> {
    agent.entry(lease.address)?.context("free")?["misses"].as_u64().context("no misses")
}

fn runs(agent: &Agent, result: &str) -> Result<f64> {
    Ok(agent.metric("guard_reconcile_runs_total", &[("result", result)])?.unwrap_or_default())
}

/// Waits until so many more passes have come to this.
pub(crate) fn await_passes(agent: &Agent, result: &str, more: f64) -> Result<()> {
    let before = runs(agent, result)?;
    eventually(&format!("{more} passes that are {result}"), || {
        Ok((runs(agent, result)? >= before + more).then_some(()))
    })
}

pub(crate) fn inventory(agent: &Agent) -> Result<Value> {
    let sources = agent.list(&["status", "--live"], "sources")?;
    sources.into_iter().find(|source| source["name"] == "inventory").context("no inventory")
}

#[test]
fn the_incident_sandboxes_that_are_removed_without_a_word_give_their_addresses_back() -> Result<()>
{
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = start(&lab, &containerd, QUICK)?;
    let (gone, left) = (lab.sandbox("gone")?, lab.sandbox("left")?);
    let (gone_lease, left_lease) = (agent.admit(&gone)?, agent.admit(&left)?);
    containerd.run("gone", Some(&gone), &gone_lease.address.to_string())?;
    containerd.run("left", Some(&left), &left_lease.address.to_string())?;
    await_passes(&agent, "done", 4.0)?;
    assert_eq!(agent.state(&gone_lease)?, "active");

    // The port goes first: the container still speaks for it.
    let port = gone.port().to_owned();
    lab.host().ip(&format!("link delete {port}"))?;
    await_passes(&agent, "done", 4.0)?;
    assert_eq!((agent.state(&gone_lease)?.as_str(), misses(&agent, &gone_lease)?), ("active", 0));

    // The container goes, and the port is left.
    containerd.remove("left")?;
    await_passes(&agent, "done", 4.0)?;
    assert_eq!((agent.state(&left_lease)?.as_str(), misses(&agent, &left_lease)?), ("active", 0));

    // Nothing is left of either.
    containerd.remove("gone")?;
    left.delete()?;
    agent.await_state(&gone_lease, "cooling")?;
    agent.await_state(&left_lease, "cooling")?;
    assert_eq!(agent.metric("guard_reaped_total", &[("pool", POOL)])?, Some(2.0));
    assert_eq!(agent.journal().count(&["reaped", &gone_lease.address.to_string()]), 1);
    agent.check()
}

#[test]
fn rule_6_paused_and_stopped_containers_keep_their_addresses() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = start(&lab, &containerd, QUICK)?;
    let (labelled, named) = (agent.confirmed("labelled")?, agent.confirmed("named")?);
    containerd.run("labelled", None, &labelled.address.to_string())?;
    // As CNI knows a container: by its id.
    containerd.run_labelled("named", None, &[])?;
    for step in [Containerd::pause, Containerd::resume, Containerd::stop] {
        step(&containerd, "labelled")?;
        step(&containerd, "named")?;
        await_passes(&agent, "done", 4.0)?;
        for lease in [&labelled, &named] {
            assert_eq!((agent.state(lease)?.as_str(), misses(&agent, lease)?), ("active", 0));
        }
    }
    let entry = agent.entry(labelled.address)?.context("free")?;
    let said = entry["evidence"][0]["detail"].as_str().context("no evidence")?;
    assert!(said.contains("container labelled") && said.contains("of sandbox labelled"), "{said}");
    Ok(())
}

#[test]
fn rule_6_while_containerd_is_away_nothing_is_reaped_and_afterwards_all_is_right() -> Result<()> {
    let lab = Lab::new()?;
    let mut containerd = lab.containerd()?;
    let agent = start(&lab, &containerd, &format!("{QUICK}\n[allocate]\nsource_stale = \"0s\""))?;
    let (runs_on, gone) = (agent.confirmed("runs")?, agent.confirmed("gone")?);
    containerd.run("runs", None, &runs_on.address.to_string())?;
    containerd.run("gone", None, &gone.address.to_string())?;
    await_passes(&agent, "done", 2.0)?;
    containerd.kill()?;
    await_passes(&agent, "ended", 5.0)?;
    for lease in [&runs_on, &gone] {
        assert_eq!((agent.state(lease)?.as_str(), misses(&agent, lease)?), ("active", 0));
    }
    let source = inventory(&agent)?;
    assert_eq!(source["healthy"], false);
    assert!(source["why"].as_str().is_some_and(|why| !why.is_empty()), "{source}");
    assert_eq!(agent.metric("guard_source_healthy", &[("source", "inventory")])?, Some(0.0));
    assert!(agent.await_readyz(503)?.contains("source containerd"));
    let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "new"])?.refusal()?;
    assert_eq!(
        (refusal.status.as_str(), refusal.reason.as_str()),
        ("UNAVAILABLE", "INVENTORY_DEGRADED")
    );

    containerd.start()?;
    agent.await_readyz(200)?;
    containerd.remove("gone")?;
    agent.await_state(&gone, "cooling")?;
    assert_eq!((agent.state(&runs_on)?.as_str(), misses(&agent, &runs_on)?), ("active", 0));
    agent.allocate("new").map(drop)
}

#[test]
fn rule_6_while_containerd_is_replaced_by_later_versions_nothing_is_reaped() -> Result<()> {
    let lab = Lab::new()?;
    let mut containerd = lab.containerd()?;
    let agent = start(&lab, &containerd, QUICK)?;
    let mut runs_on = Vec::new();
    for (number, programs) in Containerd::others()?.into_iter().enumerate() {
        let gone = format!("gone{number}");
        runs_on.push(agent.confirmed(&format!("runs{number}"))?);
        let gone_lease = agent.confirmed(&gone)?;
        let newest = runs_on.last().context("it was just put there")?;
        containerd.run(&format!("runs{number}"), None, &newest.address.to_string())?;
        containerd.run(&gone, None, &gone_lease.address.to_string())?;
        await_passes(&agent, "done", 2.0)?;
        containerd.kill_for(programs)?;
        await_passes(&agent, "ended", 4.0)?;
        for lease in runs_on.iter().chain([&gone_lease]) {
            assert_eq!((agent.state(lease)?.as_str(), misses(&agent, lease)?), ("active", 0));
        }
        containerd.start()?;
        agent.await_readyz(200)?;
        // What an earlier version has started ends under a later one.
        containerd.remove(&gone)?;
        agent.await_state(&gone_lease, "cooling")?;
        await_passes(&agent, "done", 4.0)?;
        for lease in &runs_on {
            assert_eq!((agent.state(lease)?.as_str(), misses(&agent, lease)?), ("active", 0));
        }
    }
    // By the last one's events.
    containerd.run("found", None, "10.8.64.77")?;
    let found = || agent.entry([10, 8, 64, 77].into());
    let lease = eventually("an adopted lease", found)?;
    assert_eq!((&lease["state"], &lease["sandbox"]), (&"active".into(), &"found".into()));
    Ok(())
}

#[test]
fn rule_6_an_allocation_between_the_two_reads_has_no_miss() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = start(&lab, &containerd, BY_HAND)?;
    let silent = agent.confirmed("silent")?;
    // The leases are read, and containerd is asked and does not answer yet.
    containerd.freeze()?;
    let events = agent.follow(&["events"])?;
    let pass = std::thread::scope(|scope| -> Result<Value> {
        let pass = scope.spawn(|| agent.json(&["reconcile"]));
        let new = agent.confirmed("new")?;
        events.next(|event| event["lease"]["generation"] == new.generation)?;
        containerd.thaw()?;
        let pass = pass.join().map_err(|_| anyhow::anyhow!("the pass panicked"))??;
        assert_eq!(misses(&agent, &new)?, 0);
        Ok(pass)
    })?;
    assert_eq!(pass["result"], "done", "{pass}");
    assert!(pass["silent"].to_string().contains(&silent.address.to_string()), "{pass}");
    Ok(())
}

#[test]
fn rule_6_an_interval_has_one_miss_and_a_restart_forgets_none() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let mut agent = start(&lab, &containerd, BY_HAND)?;
    let lease = agent.confirmed("silent")?;
    let dry = agent.json(&["reconcile", "--dry-run"])?;
    assert_eq!((&dry["dry_run"], &dry["silent"][0]["misses"]), (&true.into(), &1.into()), "{dry}");
    assert_eq!(misses(&agent, &lease)?, 0, "a dry run counts nothing");
    for _ in 0..3 {
        let pass = agent.json(&["reconcile"])?;
        assert_eq!((&pass["result"], &pass["silent"][0]["misses"]), (&"done".into(), &1.into()));
    }
    for end in [Agent::stop, Agent::kill] {
        end(&agent)?;
        agent.start_again()?;
        assert_eq!(misses(&agent, &lease)?, 1);
    }
    let why = agent.json(&["why", &lease.address.to_string()])?;
    let next = why["explanations"][0]["next"].as_str().context("nothing next")?;
    assert!(next.contains("1 of 3 misses"), "{next}");
    Ok(())
}

#[test]
fn rule_7_a_container_without_a_lease_is_adopted_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = start(&lab, &containerd, BY_HAND)?;
    let events = agent.follow(&["events"])?;
    containerd.run("found", None, "10.8.64.7")?;
    let (_, event) = events.next(|event| event["lease"]["address"] == "10.8.64.7")?;
    let lease = &event["lease"];
    assert_eq!(
        (&lease["state"], &lease["sandbox"]),
        (&"active".into(), &"found".into()),
        "{event}"
    );
    assert_eq!(lease["reason"], "adopted");
    assert_eq!(agent.metric("guard_readopted_total", &[("pool", POOL)])?, Some(1.0));
    Ok(())
}

#[test]
fn two_containers_with_one_address_are_told_of_and_it_is_nobodys() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    containerd.run("one", None, "10.8.64.7")?;
    containerd.run("two", None, "10.8.64.7")?;
    let agent = start(&lab, &containerd, BY_HAND)?;
    let entry = eventually("10.8.64.7", || agent.entry([10, 8, 64, 7].into()))?;
    assert_eq!((&entry["state"], &entry["reason"]), (&"quarantined".into(), &"disputed".into()));
    let said = entry["evidence"].to_string();
    assert!(said.contains("sandbox one") && said.contains("sandbox two"), "{said}");
    let conflicts = agent.list(&["conflicts"], "conflicts")?;
    let incident = conflicts.iter().find(|it| it["address"] == "10.8.64.7").context("untold")?;
    let sides: Vec<_> =
        incident["claimants"].as_array().into_iter().flatten().map(|it| &it["sandbox"]).collect();
    assert_eq!(
        (incident["kind"].as_str(), sides),
        (Some("duplicate"), vec![&Value::from("one"), &Value::from("two")])
    );
    // One of them goes: it is the other's.
    containerd.remove("one")?;
    let lease = eventually("the other's lease", || {
        Ok(agent.entry([10, 8, 64, 7].into())?.filter(|entry| entry["state"] == "active"))
    })?;
    assert_eq!(lease["sandbox"], "two");
    Ok(())
}

#[test]
fn rule_8_nothing_is_handed_out_before_every_source_has_answered_once() -> Result<()> {
    let lab = Lab::new()?;
    let mut containerd = lab.containerd()?;
    containerd.run("found", None, "10.8.64.2")?;
    containerd.kill()?;
    let config = lab.config()?.with_containerd(&containerd)?.with(BY_HAND)?;
    let agent = lab.agent_with(Launch::config(&config)?.degraded())?;
    let allocate = ["allocate", "--pool", POOL, "--sandbox", "a"];
    assert_eq!(agent.ctl(&allocate)?.refusal()?.reason, "STARTING");
    assert!(agent.await_readyz(503)?.contains("boot pass"));
    containerd.start()?;
    agent.await_readyz(200)?;
    // What runs has its address before anyone else is given one.
    assert_ne!(agent.allocate("a")?.address, std::net::Ipv4Addr::from([10, 8, 64, 2]));
    let entry = agent.entry([10, 8, 64, 2].into())?.context("free")?;
    assert_eq!((&entry["state"], &entry["sandbox"]), (&"active".into(), &"found".into()));
    Ok(())
}

#[test]
fn rule_8_after_the_boot_timeout_the_configuration_decides() -> Result<()> {
    for (decides, works) in [("refuse", false), ("allow", true)] {
        let lab = Lab::new()?;
        let mut containerd = lab.containerd()?;
        containerd.kill()?;
        let allocate = format!("[allocate]\nboot_timeout = \"300ms\"\nwhen_degraded = {decides:?}");
        let config = lab.config()?.with_containerd(&containerd)?.with(&allocate)?.with(QUICK)?;
        let agent = lab.agent_with(Launch::config(&config)?.degraded())?;
        agent.journal().await_line(&["boot pass", "degraded"])?;
        if works {
            let lease = agent.confirmed("a")?;
            assert_eq!(misses(&agent, &lease)?, 0);
        } else {
            let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "a"])?.refusal()?;
            assert_eq!(refusal.reason, "INVENTORY_DEGRADED");
        }
        containerd.start()?;
        agent.await_readyz(200)?;
        agent.allocate("b")?;
    }
    Ok(())
}

#[test]
fn rule_6_without_anybody_to_ask_a_lease_is_unverifiable_until_its_port_goes() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?.with(QUICK)?)?)?;
    let sandbox = lab.sandbox("bound")?;
    let (bound, silent) = (agent.admit(&sandbox)?, agent.confirmed("silent")?);
    sandbox.delete()?;
    agent.await_state(&bound, "cooling")?;
    await_passes(&agent, "done", 4.0)?;
    assert_eq!(agent.state(&silent)?, "active");
    let pass = agent.json(&["reconcile"])?;
    assert_eq!(pass["unverifiable"][0]["generation"], silent.generation, "{pass}");
    Ok(())
}

#[test]
fn rule_6_an_inventory_that_lists_nothing_is_not_believed_beside_a_bound_port() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = start(&lab, &containerd, QUICK)?;
    let sandbox = lab.sandbox("bound")?;
    let (bound, silent) = (agent.admit(&sandbox)?, agent.confirmed("silent")?);
    await_passes(&agent, "ended", 5.0)?;
    assert_eq!((agent.state(&silent)?.as_str(), misses(&agent, &silent)?), ("active", 0));
    let pass = agent.json(&["reconcile", "--dry-run"])?;
    let why = pass["why"].as_str().context("no reason")?;
    assert!(why.contains(sandbox.port()) && why.contains("labels"), "{why}");
    // Now it is rightly empty.
    sandbox.delete()?;
    agent.await_state(&bound, "cooling")?;
    agent.await_state(&silent, "cooling")
}

#[test]
fn rule_6_leaked_veths_and_strangers_on_an_uplink_hold_nothing_up() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let (leaked, uplink) = (lab.sandbox("leaked")?, lab.sandbox("uplink")?);
    let bridge = format!("[[bridge]]\nname = {BRIDGE:?}\nuplinks = [{:?}]", uplink.port());
    let config = lab.config()?.with(&bridge)?.with_containerd(&containerd)?.with(QUICK)?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let silent = agent.confirmed("silent")?;
    // A port of nobody's that has spoken, and hosts behind the uplink that we know nothing of.
    leaked.announce([10, 8, 64, 77].into())?;
    let socket = uplink.raw_socket()?;
    for number in 0..8 {
        let stranger = Arp::announcement(
            Mac::numbered(0x55_0000 + u32::from(number)),
            [10, 8, 64, 100 + number].into(),
        );
        socket.send(&stranger.frame())?;
    }
    let live = || Ok((agent.list(&["live"], "live")?.len() >= 9).then_some(()));
    eventually("the strangers", live)?;
    agent.await_state(&silent, "cooling")
}

#[test]
fn rule_6_a_release_that_cannot_be_stored_is_tried_again_by_every_pass() -> Result<()> {
    let lab = Lab::new()?;
    let disk = lab.small_state(512)?;
    let directory = lab.directory()?;
    directory.say(|said| said.found = [("a".to_owned(), State::Alive)].into());
    let config = lab.config()?.with(&directory.section())?.with(QUICK)?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let lease = agent.confirmed("a")?;
    eventually("three misses", || Ok((misses(&agent, &lease)? == 3).then_some(())))?;
    // Until there is no room for one byte more.
    let filler = disk.join("filler");
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    let full = (0..400).any(|number| agent.allocate(&format!("s{number}")).is_err());
    assert!(full, "it never filled up");
    directory.say(|said| said.found.clear());
    await_passes(&agent, "failed", 4.0)?;
    assert_eq!((agent.state(&lease)?.as_str(), misses(&agent, &lease)?), ("active", 3));
    assert!(agent.await_readyz(503)?.contains("store"));
    std::fs::remove_file(&filler)?;
    agent.await_state(&lease, "cooling")?;
    agent.check()
}
