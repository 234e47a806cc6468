//! Beneath Debian's `bridge`, for real containers of a real containerd.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Attachment, BRIDGE, Lab, Launch, eventually, run};
use serde_json::{Value, json};

use crate::{VERSIONS, bridge, chained, ipam, network, of};

/// How many come and go at once.
const CONTAINERS: usize = 50;

fn address(result: &Value) -> Result<String> {
    let address = result.pointer("/ips/0/address").and_then(Value::as_str);
    Ok(address.with_context(|| format!("no address in {result}"))?.to_owned())
}

/// The interfaces of the host.
fn interfaces(lab: &Lab) -> Result<BTreeSet<String>> {
    let shown = run("ip", &["-n", lab.host().name(), "-json", "link", "show"])?;
    let links: Vec<Value> = serde_json::from_str(&shown)?;
    Ok(links.iter().filter_map(|link| link["ifname"].as_str()).map(str::to_owned).collect())
}

/// Nobody has an address, and nothing is on the bridge or pinned for a port of it.
fn nothing_is_left(lab: &Lab, agent: &Agent, before: &BTreeSet<String>) -> Result<()> {
    // Those of a namespace go a little later than its last process.
    let mut links = BTreeSet::new();
    eventually("the end of every interface", || {
        links = interfaces(lab)?;
        Ok((links == *before).then_some(()))
    })
    .with_context(|| format!("{links:?}"))?;
    let mut leases = Vec::new();
    eventually("the end of every lease", || {
        leases = agent.list(&["leases"], "leases")?;
        leases.retain(|lease| lease["state"] != "cooling");
        Ok(leases.is_empty().then_some(()))
    })
    .with_context(|| format!("{leases:#?}\n{}", agent.journal().text()))?;
    for list in ["ports", "holds"] {
        eventually(&format!("the end of {list}"), || {
            Ok(agent.list(&[list], list)?.is_empty().then_some(()))
        })?;
    }
    eventually("the end of all evidence", || {
        let live = agent.list(&["live"], "live")?;
        // The host's own address stays.
        Ok(live.iter().all(|address| address["interface"] == BRIDGE).then_some(()))
    })?;
    let link = |pin: &Path| pin.to_string_lossy().contains("link-");
    eventually("the end of every pin", || {
        Ok((!lab.pinned()?.iter().any(|pin| link(pin))).then_some(()))
    })?;
    ensure!(agent.list(&["conflicts", "--all"], "conflicts")?.is_empty(), "there was a conflict");
    agent.check()
}

#[test]
fn fifty_containers_come_and_go_in_parallel_twice_and_nothing_leaks() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?.with_containerd(&containerd)?)?)?;
    let before = interfaces(&lab)?;
    let names: Vec<_> = (0..CONTAINERS).map(|number| format!("c{number}")).collect();
    for version in VERSIONS {
        let bridge = bridge(&lab, &agent, version)?;
        let addresses = in_parallel(&names, |name| {
            let netns = lab.container(name)?;
            let path = netns.path();
            let attachment = Attachment::new(name, &path);
            let added = bridge.done("ADD", attachment)?;
            let address = address(&added)?;
            let behind = chained(&agent, version, &added)?;
            behind.done("ADD", attachment)?;
            containerd.run_in(name, Some(&netns), &[])?;
            bridge.with("prevResult", added).done("CHECK", attachment)?;
            behind.done("CHECK", attachment)?;
            Ok(address)
        })?;
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), CONTAINERS, "{addresses:?}");
        for name in &names {
            let leases = of(&agent, name)?;
            let held: Vec<_> = leases.iter().filter(|(state, _)| state == "active").collect();
            assert_eq!(held.len(), 1, "{leases:?}");
            let lease = &held[0].1;
            assert_eq!((&lease["key"], &lease["lifecycle"]), (&json!("net/eth0"), &Value::Null));
            assert_eq!(lease["binding"], "declared", "{lease}");
        }
        eventually("every port covered, and every container in the inventory", || {
            let ports = agent.list(&["ports"], "ports")?;
            let covered = ports.iter().filter(|port| port["covered"] == true).count();
            let live = agent.list(&["live"], "live")?;
            let runs = |address: &&Value| {
                let evidence = address["evidence"].as_array();
                evidence.is_some_and(|all| all.iter().any(|one| one["source"] == "inventory"))
            };
            let running = live.iter().filter(runs).count();
            Ok((covered == CONTAINERS && running == CONTAINERS).then_some(()))
        })?;

        in_parallel(&names, |name| {
            containerd.remove(name)?;
            let netns = Path::new("/run/netns").join(lab.container_name(name));
            let attachment = Attachment::new(name, &netns);
            // As a runtime does: the last plugin first, and perhaps once more.
            let behind = chained(&agent, version, &Value::Null)?;
            for plugin in [&behind, &bridge, &behind, &bridge] {
                plugin.done("DEL", attachment)?;
            }
            lab.remove_container(name)
        })?;
        ensure!(containerd.list()?.is_empty(), "containers are left");
        ensure!(containerd.tasks()?.is_empty(), "tasks are left");
        nothing_is_left(&lab, &agent, &before)?;
    }
    Ok(())
}

#[test]
fn ctr_brings_containers_up_and_gc_frees_those_for_which_it_never_calls_del() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = lab.agent()?;
    let before = interfaces(&lab)?;
    let ctr = lab.ctr_cni(&containerd, &network(&agent, "1.0.0", "bridge"))?;

    // To their ends: ctr calls DEL itself.
    let names: Vec<_> = (0..4).map(|number| format!("short{number}")).collect();
    in_parallel(&names, |name| ctr.run(name))?;
    assert_eq!(agent.list(&["leases"], "leases")?.len(), names.len());
    nothing_is_left(&lab, &agent, &before)?;

    // Detached: it never does.
    let names: Vec<_> = (0..4).map(|number| format!("long{number}")).collect();
    in_parallel(&names, |name| ctr.start(name))?;
    let (gone, kept) = names.split_at(2);
    for name in gone {
        containerd.remove(name)?;
        eventually("silence", || {
            let (state, lease) = of(&agent, &ctr.container_id(name))?.pop().context("a lease")?;
            assert_eq!(state, "active", "a DEL that nobody called");
            Ok(lease["evidence"].as_array().is_none_or(Vec::is_empty).then_some(()))
        })?;
    }
    let attachment = |name: &String| {
        let id = ctr.container_id(name);
        json!({ "containerID": id, "ifname": "eth0" })
    };
    let valid: Vec<_> = kept.iter().map(attachment).collect();
    let nobody = Attachment::new("", Path::new(""));
    let gc = ipam(&agent, "1.1.0")?.with("cni.dev/valid-attachments", valid.into());
    gc.done("GC", nobody)?;
    for (names, state) in [(gone, "cooling"), (kept, "active")] {
        for name in names {
            let leases = of(&agent, &ctr.container_id(name))?;
            assert!(leases.len() == 1 && leases[0].0 == state, "{name}: {leases:?}");
        }
    }
    assert_eq!(interfaces(&lab)?.len(), before.len() + kept.len(), "on {BRIDGE}");

    for name in kept {
        containerd.remove(name)?;
    }
    eventually("GC", || {
        let gc = ipam(&agent, "1.1.0")?.with("cni.dev/valid-attachments", json!([]));
        Ok(gc.call("GC", nobody)?.ok())
    })?;
    nothing_is_left(&lab, &agent, &before)
}

fn in_parallel<T: Send>(
    names: &[String],
    work: impl Fn(&String) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| work(name))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
            .collect()
    })
}
