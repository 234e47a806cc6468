//! What operators do, in both formats.

use anyhow::{Context, Result};
use guard_tests::{Agent, HostLocal, Lab, POOL};
use serde_json::Value;

/// Calls it for people: it is done, and what it prints is no JSON and fits 80 columns.
fn table(agent: &Agent, args: &[&str]) -> Result<String> {
    let output = agent.ctl_in_columns(80, args)?;
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}: {}", output.stdout);
    assert!(serde_json::from_str::<Value>(&output.stdout).is_err(), "{}", output.stdout);
    for line in output.stdout.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }
    Ok(output.stdout)
}

#[test]
fn check_is_content_with_a_busy_agent() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    thief.announce(lease.address)?;
    thief.announce([10, 8, 64, 99].into())?;
    agent.release(&agent.allocate("gone")?)?;
    agent.check()?;
    assert_eq!(agent.json(&["check"])?, serde_json::json!({ "disagreements": [] }));
    assert!(table(&agent, &["check"])?.contains("agree"));
    Ok(())
}

#[test]
fn dangerous_commands_want_yes_where_there_is_no_terminal() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let lease = agent.allocate("a")?;
    let address = lease.address.to_string();
    let force = ["force-release", "--pool", POOL, "--address", &address];
    for args in [&force[..], &["gc"], &["recover"]] {
        let output = agent.ctl(args)?;
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?}");
        assert!(output.stderr.contains("--yes"), "{}", output.stderr);
    }
    assert_eq!(agent.entry(lease.address)?.context("gone")?["state"], "held");
    Ok(())
}

#[test]
fn force_release_ends_a_lease_and_frees_nothing_that_is_live() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    let (live, quiet) = (agent.admit(&sandbox)?, agent.allocate("quiet")?);
    sandbox.announce(live.address)?;
    for (lease, outcome) in [(&live, "releasing"), (&quiet, "cooling")] {
        let before = agent.entry(lease.address)?.context("not listed")?["state"].clone();
        let address = lease.address.to_string();
        let force = ["force-release", "--pool", POOL, "--address", &address];
        let dry = [&force[..], &["--dry-run"]].concat();
        let would = agent.json(&dry)?;
        assert_eq!((&would["dry_run"], &would["outcome"]), (&true.into(), &outcome.into()));
        assert!(table(&agent, &dry)?.contains("nothing was changed"));
        assert_eq!(agent.entry(lease.address)?.context("gone")?["state"], before);
        let did = agent.json(&[&force[..], &["--yes"]].concat())?;
        assert_eq!((&did["dry_run"], &did["outcome"]), (&false.into(), &outcome.into()));
        assert_eq!(agent.entry(lease.address)?.context("gone")?["state"], outcome);
    }
    let nobody = ["force-release", "--pool", POOL, "--address", "10.8.64.200", "--yes"];
    assert_eq!(agent.json(&nobody)?["outcome"], "not_found");
    let unknown = ["force-release", "--pool", "none", "--address", "10.8.64.2", "--yes"];
    assert_eq!(agent.ctl(&unknown)?.refusal()?.reason, "POOL_UNKNOWN");
    agent.check()
}

#[test]
fn gc_releases_what_lost_its_port_and_nothing_else() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (stays, goes) = (lab.sandbox("stays")?, lab.sandbox("goes")?);
    let (kept, lost) = (agent.admit(&stays)?, agent.admit(&goes)?);
    let unbound = agent.allocate("unbound")?;
    agent.json(&["confirm", "--generation", &unbound.generation.to_string()])?;
    goes.delete()?;
    let lost_address = lost.address.to_string();
    let released = |gc: &Value| gc["released"].as_array().map_or(0, Vec::len);
    guard_tests::eventually("the port's end", || {
        let would = agent.json(&["gc", "--dry-run"])?;
        Ok((released(&would) == 1).then_some(()))
    })?;
    assert_eq!(agent.entry(lost.address)?.context("gone")?["state"], "active");
    assert!(table(&agent, &["gc", "--dry-run"])?.contains(&lost_address));
    let gc = agent.json(&["gc", "--yes"])?;
    assert_eq!(released(&gc), 1, "{gc}");
    assert_eq!(gc["released"][0]["address"], lost_address.as_str());
    assert_eq!(gc["unverifiable"][0]["address"], unbound.address.to_string());
    assert_eq!(agent.entry(lost.address)?.context("gone")?["state"], "cooling");
    assert_eq!(agent.entry(kept.address)?.context("gone")?["state"], "active");
    assert!(table(&agent, &["gc", "--yes"])?.contains("nothing to release"));
    agent.check()
}

#[test]
fn an_operator_quarantines_and_an_operator_ends_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let place = ["--pool", POOL, "--address", "10.8.64.2"];
    let list = || agent.list(&["quarantine", "list"], "leases");
    let add = [&["quarantine", "add"], &place[..]].concat();
    let remove = [&["quarantine", "remove"], &place[..]].concat();
    let would = agent.json(&[&add[..], &["--dry-run"]].concat())?;
    assert_eq!(would["leases"][0]["state"], "quarantined");
    assert!(list()?.is_empty());
    assert!(table(&agent, &add)?.contains("10.8.64.2"));
    assert_eq!(list()?[0]["reason"], "operator");
    assert!(table(&agent, &["quarantine", "list"])?.contains("10.8.64.2"));
    assert_ne!(agent.allocate("a")?.address.to_string(), "10.8.64.2");
    let ask = ["allocate", "--pool", POOL, "--sandbox", "b", "--address", "10.8.64.2"];
    assert_eq!(agent.ctl(&ask)?.refusal()?.reason, "ADDRESS_QUARANTINED");
    assert_eq!(agent.json(&remove)?["outcome"], "done");
    assert_eq!(agent.json(&remove)?["outcome"], "not_found");
    assert_eq!(agent.lease(&ask)?.address.to_string(), "10.8.64.2");
    assert_eq!(agent.ctl(&add)?.refusal()?.reason, "ADDRESS_HELD");
    agent.check()
}

#[test]
fn host_local_reservations_become_leases() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("old")?;
    let host_local = HostLocal::with_one_address(&lab, [10, 8, 64, 7].into())?;
    let address = host_local.add(&sandbox)?;
    sandbox.add_address(address)?;
    sandbox.announce(address)?;
    let dir = host_local.store();
    let dir = dir.to_string_lossy();
    let adopt = ["adopt", "--from-host-local", &dir];
    let would = agent.json(&[&adopt[..], &["--dry-run"]].concat())?;
    assert_eq!(would["leases"][0]["sandbox"], "old");
    assert_ne!(agent.entry(address)?.map(|entry| entry["state"].clone()), Some("active".into()));
    let did = agent.json(&adopt)?;
    assert_eq!(did["refused"], serde_json::json!([]));
    let entry = agent.entry(address)?.context("not listed")?;
    assert_eq!((&entry["state"], &entry["sandbox"]), (&"active".into(), &"old".into()));
    assert_eq!((&entry["key"], &entry["reason"]), (&"lab/eth0".into(), &"adopted".into()));
    assert!(table(&agent, &adopt)?.contains("10.8.64.7"));
    // One that no pool has is named, and the exit code says that not all is taken over.
    std::fs::write(host_local.store().join("192.0.2.9"), "stranger\r\neth0")?;
    let output = agent.ctl(&[&adopt[..], &["-o", "json"]].concat())?;
    assert_eq!(output.code, 1, "{}", output.stderr);
    let partial: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(partial["refused"][0]["reason"], "ADDRESS_OUTSIDE_POOL");
    agent.check()
}

#[test]
fn without_subscribers_there_are_no_holds() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    assert_eq!(agent.json(&["holds"])?, serde_json::json!({ "holds": [] }));
    assert!(table(&agent, &["holds"])?.contains("no holds"));
    Ok(())
}

#[test]
fn a_backup_is_a_new_file() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let file = |name: &str| lab.dir().join(name).to_string_lossy().into_owned();
    let backup = agent.json(&["backup", &file("one")])?;
    assert_eq!((&backup["path"], &backup["rows"]), (&file("one").into(), &1.into()));
    assert!(table(&agent, &["backup", &file("two")])?.contains("two"));
    assert_eq!(agent.ctl(&["backup", &file("one")])?.refusal()?.reason, "FILE_EXISTS");
    assert_eq!(agent.ctl(&["backup", &file("no/where")])?.refusal()?.reason, "FILE_UNUSABLE");
    // A store that is well is not replaced by accident.
    let refusal = agent.ctl(&["recover", "--dry-run"])?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("FAILED_PRECONDITION", "STORE_HEALTHY"));
    agent.check()
}
