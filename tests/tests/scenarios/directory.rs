//! Rule 5 with a controller's directory: an index that lags, and the word about a single sandbox.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guard_agent::proto::directory::State;
use guard_tests::{Agent, Directory, Lab, Launch, POOL, eventually};

#[path = "../../../guard-agent/examples/directory.rs"]
#[expect(dead_code, reason = "it is a program")]
mod example;

fn start(lab: &Lab, directory: &Directory) -> Result<Agent> {
    let config = lab.config()?.with(&directory.section())?;
    let config = config.with("[reconcile]\ninterval = \"200ms\"")?;
    lab.agent_with(Launch::config(&config)?)
}

/// The example that guard ships says of a sandbox what its file says.
fn the_example_is_believed(lab: &Lab, file: &Path) -> Result<()> {
    let section = format!("[directory]\nsocket = {:?}", lab.dir().join("directory.sock"));
    let config = lab.config()?.with(&section)?.with("[reconcile]\ninterval = \"200ms\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let (lives, dies) = (agent.confirmed("lives")?, agent.confirmed("dies")?);
    let vanishes = agent.confirmed("vanishes")?;
    std::fs::write(file, "lives alive\ndies dead\n")?;
    for lease in [dies, vanishes] {
        eventually("its end", || Ok((agent.state(&lease)? == "cooling").then_some(())))?;
    }
    assert_eq!(agent.state(&lives)?, "active");
    // What it cannot read is no answer.
    std::fs::write(file, "lives\n")?;
    await_passes(&agent, "ended", 4.0)?;
    assert_eq!(agent.state(&lives)?, "active");
    std::fs::write(file, "")?;
    eventually("its end", || Ok((agent.state(&lives)? == "cooling").then_some(())))
}

fn sandboxes(lab: &Lab) -> Result<PathBuf> {
    let file = lab.dir().join("sandboxes");
    std::fs::write(&file, "lives alive\ndies alive\nvanishes alive\n")?;
    Ok(file)
}

#[test]
fn the_example_in_rust_is_a_directory() -> Result<()> {
    let lab = Lab::new()?;
    let (socket, file) = (lab.dir().join("directory.sock"), sandboxes(&lab)?);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.spawn(example::serve(socket.clone(), file.clone()));
    eventually("its socket", || Ok(socket.exists().then_some(())))?;
    the_example_is_believed(&lab, &file)
}

fn await_passes(agent: &Agent, result: &str, more: f64) -> Result<()> {
    let runs = || -> Result<f64> {
        let runs = agent.metric("guard_reconcile_runs_total", &[("result", result)])?;
        Ok(runs.unwrap_or_default())
    };
    let before = runs()?;
    eventually(&format!("{more} passes that are {result}"), || {
        Ok((runs()? >= before + more).then_some(()))
    })
}

#[test]
fn rule_5_an_index_that_omits_a_running_sandbox_costs_it_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let agent = start(&lab, &directory)?;
    let (omitted, listed) = (agent.confirmed("omitted")?, agent.confirmed("listed")?);
    let dead = agent.confirmed("dead")?;
    directory.say(|said| {
        said.listed = [("listed", State::Alive), ("dead", State::Dead)]
            .map(|(name, state)| (name.to_owned(), state))
            .into();
        said.found = [("omitted".to_owned(), State::Alive)].into();
    });
    await_passes(&agent, "done", 12.0)?;
    assert_eq!(agent.state(&omitted)?, "active");
    assert!(directory.asked("omitted") >= 8, "it is looked up before each time");
    assert_eq!((agent.state(&listed)?.as_str(), directory.asked("listed")), ("active", 0));
    // What the index knows the end of is not looked up.
    assert_eq!((agent.state(&dead)?.as_str(), directory.asked("dead")), ("cooling", 0));
    // Its controller has removed it.
    directory.say(|said| said.found.clear());
    eventually("its end", || Ok((agent.state(&omitted)? == "cooling").then_some(())))
}

#[test]
fn rule_6_a_directory_that_fails_ends_the_pass() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let agent = start(&lab, &directory)?;
    let lease = agent.confirmed("a")?;
    // By name: everything is counted, and nothing is taken back.
    directory.say(|said| said.get_fails = true);
    await_passes(&agent, "ended", 4.0)?;
    assert_eq!(agent.state(&lease)?, "active");
    assert_eq!(agent.entry(lease.address)?.context("free")?["misses"], 3);
    // At all.
    directory.say(|said| said.list_fails = true);
    await_passes(&agent, "ended", 4.0)?;
    assert_eq!(agent.state(&lease)?, "active");
    assert!(agent.await_readyz(503)?.contains("source directory"));
    // A sandbox in no known state concerns itself alone: it is kept, whatever is said by name.
    let unclear = agent.confirmed("b")?;
    directory.say(|said| {
        *said = Default::default();
        said.listed = [("b".to_owned(), State::Unspecified)].into();
    });
    eventually("its end", || Ok((agent.state(&lease)? == "cooling").then_some(())))?;
    agent.await_readyz(200)?;
    await_passes(&agent, "done", 4.0)?;
    assert_eq!(agent.state(&unclear)?, "active");
    let conflicts = agent.list(&["conflicts"], "conflicts")?;
    let told = conflicts.iter().find(|it| it["kind"] == "inventory").context("untold")?;
    assert_eq!((&told["source"], &told["entry"]), (&"controller".into(), &"b".into()));
    directory.say(|said| *said = Default::default());
    let lease = unclear;
    eventually("its end", || Ok((agent.state(&lease)? == "cooling").then_some(())))?;
    agent.await_readyz(200).map(drop)
}

#[test]
fn rule_6_a_mass_release_waits_for_consent() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let names: Vec<_> = (0..10).map(|number| format!("s{number}")).collect();
    directory.say(|said| said.listed = names.iter().map(|n| (n.clone(), State::Alive)).collect());
    let agent = start(&lab, &directory)?;
    let leases: Vec<_> = names.iter().map(|name| agent.confirmed(name)).collect::<Result<_>>()?;
    // It lies, or all of them are gone: who could tell.
    directory.say(|said| said.listed.clear());
    await_passes(&agent, "blocked", 3.0)?;
    assert_eq!(agent.metric("guard_reap_blocked", &[("pool", POOL)])?, Some(10.0));
    let shown = agent.json(&["reconcile", "--dry-run"])?;
    assert_eq!(shown["blocked"].as_array().map(Vec::len), Some(10), "{shown}");
    for lease in &leases {
        assert_eq!(agent.state(lease)?, "active");
    }
    let refusal = agent.ctl(&["reconcile", "--consent", "00000000"])?.refusal()?;
    assert_eq!(
        (refusal.status.as_str(), refusal.reason.as_str()),
        ("FAILED_PRECONDITION", "CONSENT_UNKNOWN")
    );
    let id = shown["consent"].as_str().context("no id")?;
    let agreed = agent.json(&["reconcile", "--consent", id])?;
    assert_eq!(agreed["reaped"].as_array().map(Vec::len), Some(10), "{agreed}");
    for lease in &leases {
        assert_eq!(agent.state(lease)?, "cooling");
    }
    await_passes(&agent, "done", 1.0)?;
    assert_eq!(agent.metric("guard_reap_blocked", &[("pool", POOL)])?, Some(0.0));
    Ok(())
}
