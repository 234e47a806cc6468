//! Rules 6 and 10 over a reboot: a container does not survive one, and a lease may.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guard_api::proto::directory::State;
use guard_tests::{Agent, Config, Directory, Lab, Launch, Lease, POOL, eventually};
use serde_json::Value;

/// A node whose sandboxes have no ports: nothing but what they ask for tells that they run.
struct Node {
    lab: Lab,
    config: Config,
    agent: Agent,
    boots: u32,
}

impl Node {
    fn new(
        directory: impl FnOnce(&Lab) -> Result<Option<Directory>>,
    ) -> Result<(Self, Option<Directory>)> {
        let lab = Lab::new()?;
        let directory = directory(&lab)?;
        let mut config = lab.config()?.with("[reconcile]\ninterval = \"300ms\"")?;
        if let Some(directory) = &directory {
            config = config.with(&directory.section())?;
        }
        let agent = lab.agent_with(Launch::config(&config)?.in_boot(&lab, 0)?)?;
        Ok((Self { lab, config, agent, boots: 0 }, directory))
    }

    fn reboot(&mut self) -> Result<()> {
        self.agent.stop()?;
        self.boots += 1;
        // Nothing that is pinned outlives the kernel.
        self.lab.detach()?;
        let launch = Launch::config(&self.config)?.in_boot(&self.lab, self.boots)?;
        self.agent.start_again_with(launch)
    }

    fn confirmed(&self, names: &[String]) -> Result<Vec<Lease>> {
        names.iter().map(|name| self.agent.confirmed(name)).collect()
    }

    fn await_passes(&self, result: &str, more: f64) -> Result<()> {
        let runs = || -> Result<f64> {
            let runs = self.agent.metric("guard_reconcile_runs_total", &[("result", result)])?;
            Ok(runs.unwrap_or_default())
        };
        let before = runs()?;
        eventually(&format!("{more} passes that are {result}"), || {
            Ok((runs()? >= before + more).then_some(()))
        })
    }

    fn states(&self, leases: &[Lease]) -> Result<Vec<String>> {
        leases.iter().map(|lease| self.agent.state(lease)).collect()
    }
}

/// More than the brake lets go at once.
fn names(prefix: &str) -> Vec<String> {
    (0..10).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn rule_6_after_a_reboot_what_nothing_speaks_for_goes_also_where_nobody_is_asked() -> Result<()> {
    let (mut node, _) = Node::new(|_| Ok(None))?;
    let (gone, back) = (node.confirmed(&names("gone"))?, node.agent.confirmed("back")?);
    node.await_passes("done", 5.0)?;
    assert_eq!(node.states(&gone)?, ["active"; 10], "who could tell, within a boot");

    node.reboot()?;
    // It is started again with the node, and gets the lease that it has.
    assert_eq!(node.agent.confirmed("back")?.generation, back.generation);
    for lease in &gone {
        node.agent.await_state(lease, "cooling")?;
    }
    let dry = node.agent.json(&["reconcile", "--dry-run"])?;
    let unverifiable: Vec<_> = dry["unverifiable"].as_array().context("none")?.iter().collect();
    let generation = |lease: &&Value| lease["generation"].as_u64();
    assert_eq!(unverifiable.iter().filter_map(generation).collect::<Vec<_>>(), [back.generation]);
    let why = node.agent.json(&["why", &back.address.to_string()])?.to_string();
    assert!(why.contains("unverifiable"), "{why}");
    // Nor does another start in the same boot make it one of an earlier boot.
    node.agent.stop()?;
    node.agent.start_again()?;
    node.await_passes("done", 5.0)?;
    assert_eq!(node.agent.state(&back)?, "active");
    Ok(())
}

#[test]
fn rule_6_whose_owner_has_asked_in_this_boot_is_of_this_boot() -> Result<()> {
    let (mut node, directory) = Node::new(|lab| lab.directory().map(Some))?;
    let directory = directory.context("it has one")?;
    let (gone, back) = (names("gone"), names("back"));
    let lists = |names: &[String]| {
        let listed = names.iter().map(|name| (name.clone(), State::Alive)).collect();
        directory.say(|said| said.listed = listed);
    };
    lists(&[&gone[..], &back[..]].concat());
    let (gone, back_leases) = (node.confirmed(&gone)?, node.confirmed(&back)?);

    // The controller has ended some of its sandboxes with the node.
    lists(&back);
    node.reboot()?;
    let again = node.confirmed(&back)?;
    let generations = |leases: &[Lease]| leases.iter().map(|l| l.generation).collect::<Vec<_>>();
    assert_eq!(generations(&again), generations(&back_leases));
    // Another start in between takes nothing from what is known of boots.
    node.agent.stop()?;
    node.agent.start_again()?;
    for lease in &gone {
        node.agent.await_state(lease, "cooling")?;
    }
    // It loses its list: that would end all who run.
    lists(&[]);
    node.await_passes("blocked", 2.0)?;
    assert_eq!(node.states(&again)?, ["active"; 10]);
    Ok(())
}

#[test]
fn rule_10_a_step_of_the_wall_clock_neither_stops_nor_hastens_a_miss() -> Result<()> {
    const INTERVAL: Duration = Duration::from_secs(3);
    const DAYS: i64 = 10 * 86_400;
    for step in [-DAYS, DAYS] {
        let lab = Lab::new()?;
        let directory = lab.directory()?;
        let config = lab.config()?.with(&directory.section())?;
        let config = config.with("[reconcile]\ninterval = \"3s\"")?;
        let launch = Launch::config(&config)?;
        let mut agent = lab.agent_with(launch.clone())?;
        let lease = agent.confirmed("a")?;
        let misses = |agent: &Agent| -> Result<u64> {
            agent.entry(lease.address)?.context("free")?["misses"].as_u64().context("no misses")
        };
        // By hand, so that it is known when the first one was.
        let began = Instant::now();
        agent.json(&["reconcile"])?;
        assert_eq!(misses(&agent)?, 1);
        agent.stop()?;
        agent.start_again_with(launch.with_clock_ahead(&lab, step)?)?;
        let now = agent.entry(lease.address)?.context("free")?;
        assert!(now["misses"] == 1 || began.elapsed() >= INTERVAL, "{step}: {now}");
        // The clock really is another one.
        let b = agent.json(&["allocate", "--pool", POOL, "--sandbox", "b"])?;
        let date = |lease: &Value| {
            lease["created_at"].as_str().and_then(|at| at.get(..10)).map(str::to_owned)
        };
        assert!(
            if step < 0 { date(&b) < date(&now) } else { date(&b) > date(&now) },
            "{step}: {b}"
        );
        eventually("the second miss", || Ok((misses(&agent)? == 2).then_some(())))?;
        assert!(began.elapsed() >= INTERVAL, "{step}: {:?}", began.elapsed());
        agent.await_state(&lease, "cooling")?;
        assert!(began.elapsed() >= INTERVAL * 2, "{step}: {:?}", began.elapsed());
    }
    Ok(())
}
