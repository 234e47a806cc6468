//! Rules 4 and 5 with a real containerd and a controller's directory: the watchdog removes what is
//! over, and gives an address back only then.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use guard_api::proto::directory::State;
use guard_tests::{Agent, Containerd, CtlOutput, Directory, Lab, Launch, Lease, POOL, eventually};
use serde_json::Value;

const SANDBOX: &str = "runtime.computer/sandbox";
const LIFECYCLE: &str = "runtime.computer/lifecycle";
const ADDRESS: &str = "runtime.computer/ip";

/// Only what is asked for by hand.
const BY_HAND: &str =
    "[watchdog]\nenabled = true\ninterval = \"1h\"\ngrace = \"0s\"\nstop_timeout = \"200ms\"";
/// Passes in quick succession, of the reconciler too.
const QUICK: &str = "[watchdog]\nenabled = true\ninterval = \"200ms\"\ngrace = \"0s\"\n\
    stop_timeout = \"200ms\"\n[reconcile]\ninterval = \"200ms\"";

struct Parts {
    lab: Lab,
    containerd: Containerd,
    directory: Directory,
}

impl Parts {
    fn new() -> Result<Self> {
        Self::with(None)
    }

    fn with(containerd: Option<PathBuf>) -> Result<Self> {
        // One address, so that it can go to nobody else while it is somebody's.
        Self::of(Lab::with_prefix(30)?, containerd)
    }

    fn of(lab: Lab, containerd: Option<PathBuf>) -> Result<Self> {
        let (containerd, directory) = (lab.containerd_of(containerd)?, lab.directory()?);
        Ok(Self { lab, containerd, directory })
    }

    fn agent(&self, watchdog: &str) -> Result<Agent> {
        let Self { lab, containerd, directory } = self;
        let config = lab.config()?.with_containerd(containerd)?.with(&directory.section())?;
        lab.agent_with(Launch::config(&config.with(watchdog)?)?)
    }

    fn run(&self, lease: &Lease, sandbox: &str, command: &[&str]) -> Result<()> {
        let address = lease.address.to_string();
        let labels = [(SANDBOX, sandbox), (ADDRESS, &*address)];
        self.containerd.run_words(sandbox, &labels, command)
    }

    /// The container of one run.
    fn run_of(&self, lease: &Lease, sandbox: &str, lifecycle: &str) -> Result<()> {
        let address = lease.address.to_string();
        let labels = [(SANDBOX, sandbox), (LIFECYCLE, lifecycle), (ADDRESS, &*address)];
        self.containerd.run_words(sandbox, &labels, &SLEEP)
    }

    fn say(&self, listed: &[(&str, State)], found: &[(&str, State)]) {
        let all = |said: &[(&str, State)]| {
            said.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect()
        };
        self.directory.say(|said| (said.listed, said.found) = (all(listed), all(found)));
    }
}

const SLEEP: [&str; 2] = ["sleep", "1000000"];

/// A pass by hand; how it ended, and what it says.
fn pass(agent: &Agent, args: &[&str]) -> Result<(CtlOutput, Value)> {
    let output = agent.ctl(&[&["watchdog", "-o", "json"], args].concat())?;
    let said = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok((output, said))
}

fn fate<'a>(pass: &'a Value, container: &str) -> Option<&'a str> {
    let all = pass["containers"].as_array()?;
    all.iter().find(|it| it["container"] == container)?["fate"].as_str()
}

fn removed(agent: &Agent, result: &str) -> Result<f64> {
    Ok(agent.metric("guard_watchdog_removed_total", &[("result", result)])?.unwrap_or_default())
}

#[test]
fn rule_4_an_orphan_is_removed_and_then_its_address_returns() -> Result<()> {
    an_orphan_is_removed(&Parts::new()?)
}

#[test]
fn rule_4_an_orphan_is_removed_with_other_versions_of_containerd_too() -> Result<()> {
    for programs in Containerd::others()? {
        let shown = programs.display().to_string();
        an_orphan_is_removed(&Parts::with(Some(programs))?).context(shown)?;
    }
    Ok(())
}

fn an_orphan_is_removed(parts: &Parts) -> Result<()> {
    let Parts { lab, containerd, .. } = parts;
    let agent = parts.agent(BY_HAND)?;
    let sandbox = lab.sandbox("orphan")?;
    let lease = agent.admit(&sandbox)?;
    let address = lease.address.to_string();
    let labels = [(SANDBOX, "orphan"), (ADDRESS, &*address)];
    containerd.run_image("orphan", Some(&sandbox), &labels)?;
    // A container of nobody's that we know of is none of ours.
    containerd.run_labelled("stranger", None, &[])?;
    assert_eq!(containerd.snapshots()?, ["orphan"]);

    let (output, dry) = pass(&agent, &["--dry-run"])?;
    assert_eq!((output.code, fate(&dry, "orphan")), (0, Some("removed")), "{dry}");
    assert_eq!(dry["released"][0]["generation"], lease.generation, "{dry}");
    assert_eq!(fate(&dry, "stranger"), None, "{dry}");
    assert_eq!((containerd.tasks()?.len(), agent.state(&lease)?.as_str()), (2, "active"));

    // Without a terminal it wants to be told that it is meant.
    assert_eq!(agent.ctl(&["watchdog"])?.code, 2);
    let (output, done) = pass(&agent, &["--yes"])?;
    assert_eq!((output.code, fate(&done, "orphan")), (0, Some("removed")), "{done}");
    assert_eq!((containerd.list()?, containerd.tasks()?), {
        let left = vec!["stranger".to_owned()];
        (left.clone(), left)
    });
    assert!(containerd.snapshots()?.is_empty(), "{:?}", containerd.snapshots()?);
    // Released, and in use as long as its port is there.
    assert_eq!(done["released"][0]["state"], "releasing", "{done}");
    assert_eq!(agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "new"])?.code, 1);
    sandbox.delete()?;
    agent.await_state(&lease, "cooling")?;
    assert_eq!(agent.allocate("new")?.address, lease.address);
    assert_eq!((removed(&agent, "removed")?, removed(&agent, "failed")?), (1.0, 0.0));
    assert_eq!(agent.journal().count(&["watchdog: removed", "orphan"]), 1);
    agent.check()
}

#[test]
fn the_incident_an_index_that_omits_a_removal_that_fails_and_a_restart() -> Result<()> {
    let parts = Parts::new()?;
    let Parts { containerd, directory, .. } = &parts;
    let mut agent = parts.agent(QUICK)?;
    let lease = agent.confirmed("a")?;
    parts.say(&[], &[("a", State::Alive)]);
    parts.run(&lease, "a", &SLEEP)?;
    let kept = |agent: &Agent| -> Result<()> {
        let entry = agent.entry(lease.address)?.context("free")?;
        assert_eq!((&entry["state"], &entry["misses"]), (&"active".into(), &0.into()), "{entry}");
        assert_eq!(entry["generation"], lease.generation);
        assert_eq!(containerd.list()?, ["a"]);
        let refused = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "b"])?.refusal()?;
        assert!(["POOL_EXHAUSTED", "NO_CONFLICT_FREE_ADDRESS"].contains(&&*refused.reason));
        Ok(())
    };
    let asked = |more: usize| {
        let before = directory.asked("a");
        eventually("look-ups", || Ok((directory.asked("a") >= before + more).then_some(())))
    };
    // Ten cycles of an index that lies by omission.
    asked(10)?;
    kept(&agent)?;
    // Of a directory that does not answer, and of one that knows of the end only by name.
    directory.say(|said| said.get_fails = true);
    asked(5)?;
    kept(&agent)?;
    directory.say(|said| said.get_fails = false);
    parts.say(&[], &[("a", State::Dead)]);
    asked(5)?;
    kept(&agent)?;

    // It is an orphan now, and cannot be removed.
    let frozen = containerd.freeze_shim("a")?;
    parts.say(&[], &[]);
    eventually("a removal that fails", || Ok((removed(&agent, "failed")? >= 1.0).then_some(())))?;
    assert_eq!(agent.await_readyz(503)?, "watchdog\n", "what it is about is not for everyone");
    let why = agent.list(&["status", "--live"], "degraded")?;
    assert!(why[0]["why"].to_string().contains("container a"), "{why:?}");
    kept(&agent)?;
    agent.kill()?;
    agent.start_again_degraded()?;
    eventually("another that fails", || Ok((removed(&agent, "failed")? >= 1.0).then_some(())))?;
    kept(&agent)?;
    drop(frozen);
    agent.await_state(&lease, "cooling")?;
    assert!(containerd.list()?.is_empty() && containerd.tasks()?.is_empty());
    agent.await_readyz(200)?;
    assert_eq!(agent.journal().count(&["watchdog: removed"]), 1);
    assert_eq!(agent.allocate("b")?.address, lease.address);
    agent.check()
}

#[test]
fn rule_5_a_death_past_its_grace_is_not_looked_up() -> Result<()> {
    let parts = Parts::new()?;
    let agent = parts.agent(&BY_HAND.replace("grace = \"0s\"", "grace = \"2s\""))?;
    let lease = agent.confirmed_run("a", "1")?;
    parts.say(&[("a/1", State::Alive)], &[]);
    parts.run_of(&lease, "a", "1")?;
    let (_, first) = pass(&agent, &["--yes"])?;
    assert_eq!(fate(&first, "a"), Some("kept"), "{first}");
    // As long ago as it likes: guard sees it only now, and nobody knows that clock.
    let day = Duration::from_secs(86_400);
    parts.directory.say(|said| said.since = [("a/1".to_owned(), SystemTime::now() - day)].into());
    let began = Instant::now();
    parts.say(&[("a/1", State::Dead)], &[]);
    let (_, within) = pass(&agent, &["--yes"])?;
    assert_eq!(fate(&within, "a"), Some("kept"), "{within}");
    assert!(within.to_string().contains("within the grace"), "{within}");
    let gone = eventually("the end of the grace", || {
        let (_, pass) = pass(&agent, &["--yes"])?;
        Ok((fate(&pass, "a") == Some("removed")).then_some(pass))
    })?;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(gone["released"][0]["generation"], lease.generation, "{gone}");
    agent.await_state(&lease, "cooling")?;
    assert_eq!((parts.directory.asked("a/1"), parts.directory.asked("a")), (0, 0));
    Ok(())
}

#[test]
fn rule_5_a_container_is_not_ended_for_a_death_that_names_no_run() -> Result<()> {
    let parts = Parts::new()?;
    let Parts { containerd, directory, .. } = &parts;
    let agent = parts.agent(BY_HAND)?;
    let lease = agent.confirmed_run("web", "2")?;
    parts.run_of(&lease, "web", "2")?;
    // Of an earlier run, by an index that lags: it says nothing of when, or what another's clock
    // shows, and the container was there before guard heard of it.
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    for since in [None, Some(now - day), Some(now + day)] {
        directory
            .say(|said| said.since = since.map(|at| ("web".to_owned(), at)).into_iter().collect());
        parts.say(&[("web", State::Dead)], &[("web/2", State::Alive)]);
        let asked = directory.asked("web/2");
        let (_, kept) = pass(&agent, &["--yes"])?;
        assert_eq!(
            (fate(&kept, "web"), directory.asked("web/2")),
            (Some("kept"), asked + 1),
            "{kept}"
        );
    }
    assert_eq!(
        (containerd.tasks()?, agent.state(&lease)?),
        (vec!["web".to_owned()], "active".into())
    );
    parts.say(&[("web", State::Dead)], &[]);
    let (_, gone) = pass(&agent, &["--yes"])?;
    assert_eq!(fate(&gone, "web"), Some("removed"), "{gone}");
    Ok(())
}

#[test]
fn rule_5_a_container_is_looked_up_by_its_id_too() -> Result<()> {
    let parts = Parts::new()?;
    let Parts { containerd, directory, .. } = &parts;
    let agent = parts.agent(BY_HAND)?;
    containerd.run_labelled("c1", None, &[(SANDBOX, "web")])?;
    // The controller knows the container by its id, and not by what its label says.
    parts.say(&[], &[("c1", State::Alive)]);
    let (_, kept) = pass(&agent, &["--yes"])?;
    assert_eq!((fate(&kept, "c1"), containerd.tasks()?), (Some("kept"), vec!["c1".to_owned()]));
    parts.say(&[], &[]);
    let (_, gone) = pass(&agent, &["--yes"])?;
    assert_eq!(fate(&gone, "c1"), Some("removed"), "{gone}");
    assert_eq!((directory.asked("web"), directory.asked("c1")), (2, 2));
    Ok(())
}

#[test]
fn rule_5_a_new_lifecycle_is_another_sandbox() -> Result<()> {
    let parts = Parts::new()?;
    let Parts { lab, containerd, .. } = &parts;
    let agent = parts.agent(BY_HAND)?;
    let sandbox = lab.sandbox("new")?;
    let allocate = ["allocate", "--pool", POOL, "--sandbox", "s", "--lifecycle", "2"];
    let new = agent.lease(&allocate)?;
    let address = new.address.to_string();
    let labels =
        |lifecycle: &'static str| [(SANDBOX, "s"), (LIFECYCLE, lifecycle), (ADDRESS, &*address)];
    containerd.run_labelled("old", None, &labels("1")[..2])?;
    containerd.run_labelled("new", Some(&sandbox), &labels("2"))?;
    // The index knows the end of the old one, and nothing of the new one yet.
    parts.say(&[("s/1", State::Dead)], &[("s/2", State::Alive)]);
    let (_, first) = pass(&agent, &["--yes"])?;
    assert_eq!((fate(&first, "old"), fate(&first, "new")), (Some("removed"), Some("kept")));
    assert_eq!(first["released"].as_array().map(Vec::len), Some(0), "{first}");
    assert_eq!((parts.directory.asked("s/1"), parts.directory.asked("s/2")), (0, 1));
    assert_eq!(containerd.tasks()?, ["new"]);
    let entry = agent.entry(new.address)?.context("free")?;
    assert_eq!(entry["generation"], new.generation, "{entry}");
    Ok(())
}

#[test]
fn a_container_may_end_by_itself_at_sigquit_and_is_killed_where_it_does_not() -> Result<()> {
    let parts = Parts::new()?;
    let Parts { containerd, .. } = &parts;
    // Nobody's test lasts as long as that.
    let agent = parts.agent(&BY_HAND.replace("200ms", "10m"))?;
    let lease = agent.confirmed("polite")?;
    let script = "trap 'echo > /quit; exit 0' QUIT; echo > /up; while :; do :; done";
    parts.run(&lease, "polite", &["sh", "-c", script])?;
    let at = |name: &str| containerd.rootfs().join(name).exists();
    eventually("its handler", || Ok(at("up").then_some(())))?;
    let (_, quit) = pass(&agent, &["--yes"])?;
    assert_eq!((fate(&quit, "polite"), at("quit")), (Some("removed"), true), "{quit}");
    agent.stop()?;

    let agent = parts.agent(BY_HAND)?;
    for (name, how) in [
        ("deaf", None),
        ("paused", Some(Containerd::pause as fn(&Containerd, &str) -> Result<()>)),
        ("stopped", Some(Containerd::stop)),
    ] {
        let labels = [(SANDBOX, name)];
        let script = "trap '' QUIT; while :; do :; done";
        containerd.run_words(name, &labels, &["sh", "-c", script])?;
        how.map_or(Ok(()), |how| how(containerd, name))?;
        let (_, gone) = pass(&agent, &["--yes"])?;
        assert_eq!(fate(&gone, name), Some("removed"), "{gone}");
        assert!(containerd.list()?.is_empty() && containerd.tasks()?.is_empty());
    }
    Ok(())
}

#[test]
fn rule_6_a_source_that_fails_ends_the_pass_of_the_watchdog_too() -> Result<()> {
    let parts = Parts::new()?;
    let Parts { containerd, directory, .. } = &parts;
    let agent = parts.agent(BY_HAND)?;
    let lease = agent.confirmed("a")?;
    parts.run(&lease, "a", &SLEEP)?;
    let ended = |agent: &Agent, says: &str| -> Result<()> {
        let (output, pass) = pass(agent, &["--yes"])?;
        assert_eq!((output.code, &pass["result"]), (0, &"ended".into()), "{pass}");
        assert!(pass["why"].as_str().is_some_and(|why| why.contains(says)), "{pass}");
        assert_eq!(containerd.tasks()?, ["a"]);
        Ok(())
    };
    // Asked by name, it says nothing at all: that concerns this one only.
    directory.say(|said| said.get_hangs = true);
    let (_, late) = pass(&agent, &["--yes"])?;
    assert_eq!((fate(&late, "a"), containerd.tasks()?), (Some("kept"), vec!["a".to_owned()]));
    assert!(late["containers"].to_string().contains("no answer within"), "{late}");
    directory.say(|said| said.list_fails = true);
    ended(&agent, "directory did not answer")?;
    directory.say(|said| said.list_fails = false);
    // What cannot be read of one concerns that one, and is no reason to remove it.
    parts.say(&[("a", State::Unspecified)], &[]);
    containerd.label("a", "runtime.computer/ip0", "none")?;
    let (_, unclear) = pass(&agent, &["--yes"])?;
    assert_eq!((fate(&unclear, "a"), &unclear["result"]), (Some("kept"), &"done".into()));
    assert_eq!(agent.state(&lease)?, "active");
    Ok(())
}

#[test]
fn a_directory_that_lost_its_list_removes_nothing_unasked() -> Result<()> {
    let parts = Parts::of(Lab::new()?, None)?;
    let Parts { containerd, .. } = &parts;
    let agent = parts.agent(QUICK)?;
    // One more than may go at once.
    let names: Vec<_> = (0..9).map(|number| format!("s{number}")).collect();
    let alive: Vec<_> = names.iter().map(|name| (name.as_str(), State::Alive)).collect();
    parts.say(&alive, &alive);
    let leases = names.iter().map(|name| {
        let lease = agent.confirmed(name)?;
        parts.run(&lease, name, &SLEEP)?;
        Ok(lease)
    });
    let leases = leases.collect::<Result<Vec<_>>>()?;

    parts.say(&[], &[]);
    assert!(agent.await_readyz(503)?.contains("watchdog"));
    agent.journal().await_line(&["degraded", "9 of 9 containers", "guardctl watchdog"])?;
    // Each pass looks all of them up, and leaves them alone.
    let asked = parts.directory.asked("s0");
    eventually("passes", || Ok((parts.directory.asked("s0") >= asked + 5).then_some(())))?;
    assert_eq!((containerd.tasks()?.len(), removed(&agent, "removed")?), (9, 0.0));
    for lease in &leases {
        assert_eq!(agent.state(lease)?, "active");
    }
    // As few as always may go are removed without a word from anybody.
    parts.say(&alive[..1], &alive[..1]);
    eventually("their end", || Ok((containerd.tasks()? == ["s0"]).then_some(())))?;
    agent.await_readyz(200)?;
    for lease in &leases[1..] {
        agent.await_state(lease, "cooling")?;
    }
    assert_eq!((agent.state(&leases[0])?.as_str(), removed(&agent, "removed")?), ("active", 8.0));
    agent.check()
}

#[test]
fn a_mass_removal_is_carried_out_for_whoever_asks() -> Result<()> {
    let parts = Parts::of(Lab::new()?, None)?;
    let Parts { containerd, .. } = &parts;
    let agent = parts.agent(BY_HAND)?;
    for number in 0..9 {
        let name = format!("s{number}");
        parts.run(&agent.confirmed(&name)?, &name, &SLEEP)?;
    }
    let (output, done) = pass(&agent, &["--yes"])?;
    assert_eq!((output.code, done["released"].as_array().map(Vec::len)), (0, Some(9)), "{done}");
    assert!(containerd.list()?.is_empty() && containerd.tasks()?.is_empty());
    Ok(())
}

#[test]
fn the_watchdog_is_off_unless_it_is_asked_for() -> Result<()> {
    let parts = Parts::new()?;
    let Parts { lab, containerd, .. } = &parts;
    let quick = QUICK.replace("enabled = true", "enabled = false");
    let agent = parts.agent(&quick)?;
    let lease = agent.confirmed("a")?;
    parts.run(&lease, "a", &SLEEP)?;
    let refusal = agent.ctl(&["watchdog", "--yes"])?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("FAILED_PRECONDITION", "WATCHDOG_OFF"));
    let (_, dry) = pass(&agent, &["--dry-run"])?;
    assert_eq!(fate(&dry, "a"), Some("removed"), "{dry}");
    // As long as several passes would take.
    let runs = || -> Result<f64> {
        let done = [("result", "done")];
        Ok(agent.metric("guard_reconcile_runs_total", &done)?.unwrap_or_default())
    };
    let before = runs()?;
    eventually("time to pass", || Ok((runs()? >= before + 5.0).then_some(())))?;
    assert_eq!((containerd.tasks()?, removed(&agent, "removed")?), (vec!["a".to_owned()], 0.0));
    drop(agent);

    let config = lab.config()?.with_containerd(containerd)?.with(BY_HAND)?;
    let exit = lab.agent_that_fails(Launch::config(&config)?)?;
    assert!(exit.log.contains("[watchdog]") && exit.log.contains("[directory]"), "{}", exit.log);
    Ok(())
}
