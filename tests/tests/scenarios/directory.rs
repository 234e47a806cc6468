//! Rule 5 with a controller's directory: an index that lags, and the word about a single sandbox.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use guard_api::proto::directory::State;
use guard_tests::{Agent, Directory, Lab, Launch, POOL, eventually};
use serde_json::Value;

const QUICK: &str = "[reconcile]\ninterval = \"200ms\"\n[watchdog]\ngrace = \"0s\"";

#[path = "../../../guard-agent/examples/directory.rs"]
#[expect(dead_code, reason = "it is a program")]
mod example;

fn start(lab: &Lab, directory: &Directory) -> Result<Agent> {
    let config = lab.config()?.with(&directory.section())?;
    let config = config.with(QUICK)?;
    lab.agent_with(Launch::config(&config)?)
}

fn states(all: &[(&str, State)]) -> BTreeMap<String, State> {
    all.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect()
}

#[test]
fn of_another_users_directory_nothing_is_believed() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let config = |uid: u32| {
        let section =
            format!("{}\nuid = {uid}\n[allocate]\nboot_timeout = \"1s\"", directory.section());
        lab.config()?.with(&section)?.with(QUICK)
    };
    // It is root that listens.
    let mut agent = lab.agent_with(Launch::config(&config(61001)?)?.degraded())?;
    agent.journal().await_line(&[
        "degraded",
        "source directory",
        "uid 0 listens there",
        "61001",
    ])?;
    assert_eq!(agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "a"])?.code, 1);
    agent.stop()?;
    agent.start_again_with(Launch::config(&config(0)?)?)?;
    agent.allocate("a").map(drop)
}

/// The example that guard ships says of a sandbox what its file says.
fn the_example_is_believed(lab: &Lab, file: &Path) -> Result<()> {
    let section = format!("[directory]\nsocket = {:?}", lab.dir().join("directory.sock"));
    let config = lab.config()?.with(&section)?.with(QUICK)?;
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
    let dead = agent.confirmed_run("dead", "1")?;
    directory.say(|said| {
        said.listed = states(&[("listed", State::Alive), ("dead/1", State::Dead)]);
        said.found = states(&[("omitted", State::Alive)]);
    });
    await_passes(&agent, "done", 12.0)?;
    assert_eq!(agent.state(&omitted)?, "active");
    assert!(directory.asked("omitted") >= 8, "it is looked up before each time");
    assert_eq!((agent.state(&listed)?.as_str(), directory.asked("listed")), ("active", 0));
    // What the index knows the end of is not looked up.
    assert_eq!((agent.state(&dead)?.as_str(), directory.asked("dead/1")), ("cooling", 0));
    // Its controller has removed it.
    directory.say(|said| said.found.clear());
    eventually("its end", || Ok((agent.state(&omitted)? == "cooling").then_some(())))
}

#[test]
fn rule_5_a_death_without_a_lifecycle_is_not_that_of_a_later_run() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let agent = start(&lab, &directory)?;
    let (web, db) = (agent.confirmed_run("web", "2")?, agent.confirmed("db")?);
    // Of an earlier run each, and the index lags. It says since when, by a clock that is behind or
    // ahead of ours, or it does not say.
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    for since in [None, Some(now - hour), Some(now + hour)] {
        directory.say(|said| {
            said.listed = states(&[("web", State::Dead), ("db", State::Dead)]);
            said.found = states(&[("web/2", State::Alive), ("db", State::Alive)]);
            let since =
                since.into_iter().flat_map(|at| [("web".to_owned(), at), ("db".to_owned(), at)]);
            said.since = since.collect();
        });
        let asked = (directory.asked("web/2"), directory.asked("db"));
        await_passes(&agent, "done", 6.0)?;
        assert_eq!((agent.state(&web)?, agent.state(&db)?), ("active".into(), "active".into()));
        assert!(directory.asked("web/2") > asked.0 && directory.asked("db") > asked.1, "{since:?}");
    }
    // The index and the word about this very run.
    directory.say(|said| {
        said.since.clear();
        said.found = states(&[("web/2", State::Dead)]);
    });
    agent.await_state(&web, "cooling")?;
    agent.await_state(&db, "cooling")
}

#[test]
fn rule_5_only_the_index_and_the_word_by_name_together_make_a_death() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let agent = start(&lab, &directory)?;
    let lease = agent.confirmed_run("web", "2")?;
    // As for a container: any answer but "not found" keeps whom the index does not list.
    directory.say(|said| {
        said.listed = states(&[("web/1", State::Dead)]);
        said.found = states(&[("web/2", State::Dead)]);
    });
    await_passes(&agent, "done", 8.0)?;
    assert_eq!(agent.state(&lease)?, "active");
    assert!(directory.asked("web/2") >= 4);
    directory.say(|said| said.found.clear());
    agent.await_state(&lease, "cooling")
}

#[test]
fn rule_5_the_grace_is_for_leases_too_and_no_wall_clock_shortens_it() -> Result<()> {
    const GRACE: Duration = Duration::from_secs(4);
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let config = lab.config()?.with(&directory.section())?;
    let config = config.with(&QUICK.replace("grace = \"0s\"", "grace = \"4s\""))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let names = ["a", "b", "c"];
    let leases = names.map(|name| agent.confirmed_run(name, "1"));
    let leases = leases.into_iter().collect::<Result<Vec<_>>>()?;
    // Long ago by the directory's clock, some time to come, or nobody knows when.
    let day = Duration::from_secs(86_400);
    let began = Instant::now();
    directory.say(|said| {
        said.listed = names.map(|name| (format!("{name}/1"), State::Dead)).into();
        let now = SystemTime::now();
        said.since = [("a/1".to_owned(), now - day), ("b/1".to_owned(), now + day)].into();
    });
    let misses =
        || Ok((agent.entry(leases[0].address)?.context("free")?["misses"] == 3).then_some(()));
    eventually("misses", misses)?;
    let why = agent.json(&["why", &leases[0].address.to_string()])?.to_string();
    assert!(began.elapsed() >= GRACE || why.contains("within the grace"), "{why}");
    for lease in &leases {
        agent.await_state(lease, "cooling")?;
        assert!(began.elapsed() >= GRACE, "{:?}", began.elapsed());
    }
    assert!(began.elapsed() < GRACE * 4, "{:?}", began.elapsed());
    assert!(names.iter().all(|name| directory.asked(&format!("{name}/1")) == 0));
    Ok(())
}

#[test]
fn rule_6_the_last_look_sees_what_comes_while_the_directory_is_asked() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    directory.say(|said| {
        said.listed = states(&[("another", State::Alive)]);
        said.get_hangs = true;
    });
    let agent = start(&lab, &directory)?;
    let (sandbox, lease) = (lab.sandbox("a")?, agent.confirmed("a")?);
    agent.await_port(&sandbox)?;
    eventually("a look-up", || Ok((directory.asked("a") > 0).then_some(())))?;
    assert_eq!(agent.entry(lease.address)?.context("free")?["misses"], 3);
    // The directory does not know of it, and is about to say so.
    sandbox.add_address(lease.address)?;
    sandbox.announce(lease.address)?;
    eventually("its frame", || {
        let entry = agent.entry(lease.address)?.context("free")?;
        Ok(entry["evidence"].to_string().contains("wire").then_some(()))
    })?;
    directory.say(|said| said.get_hangs = false);
    await_passes(&agent, "done", 3.0)?;
    let entry = agent.entry(lease.address)?.context("free")?;
    assert_eq!((&entry["state"], &entry["misses"]), (&"active".into(), &0.into()), "{entry}");
    Ok(())
}

#[test]
fn rule_9_a_miss_is_no_event() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let agent = start(&lab, &directory)?;
    let lease = agent.confirmed("a")?;
    directory.say(|said| said.found = states(&[("a", State::Alive)]));
    let misses = |wanted: u64| {
        eventually(&format!("{wanted} misses"), || {
            Ok((agent.entry(lease.address)?.context("free")?["misses"] == wanted).then_some(()))
        })
    };
    misses(3)?;
    // Something speaks for it, and then nothing again.
    directory.say(|said| said.listed = states(&[("a", State::Alive)]));
    misses(0)?;
    directory.say(|said| said.listed.clear());
    misses(3)?;
    agent.release(&lease)?;
    let events = agent.follow(&["events", "--from", "0"])?;
    let of_lease = |event: &Value| event["lease"]["generation"] == lease.generation;
    for wanted in ["lease.held", "lease.active"] {
        assert_eq!(events.next(of_lease)?.1["type"], wanted);
    }
    // Its end, at once or once the directory has been asked.
    let next = events.next(of_lease)?.1;
    assert!(next["type"] == "lease.releasing" || next["type"] == "lease.cooling", "{next}");
    agent.await_state(&lease, "cooling")
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
