//! Rule 9: what must be over before an address is used again.

use anyhow::Result;
use guard_tests::{Agent, Client, Lab, Launch, Lease, eventually};

fn start(lab: &Lab, deadline: &str) -> Result<Agent> {
    let subscriber = format!(
        "[[subscriber]]\nname = \"nfs-proxy\"\nhold_deadline = {deadline:?}\n\
         [[subscriber]]\nname = \"firewall\"\n"
    );
    lab.agent_with(Launch::config(&lab.config()?.with(&subscriber)?)?)
}

fn acknowledge(agent: &Agent, lease: &Lease, subscriber: &str) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        let outcome = client.acknowledge(lease.generation, subscriber).await?;
        Ok(format!("{outcome:?}"))
    })
}

#[test]
fn rule_9_an_address_waits_for_every_hold_and_over_restarts() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = start(&lab, "1h")?;
    let lease = agent.allocate("a")?;
    assert_eq!(agent.release(&lease)?, "releasing");
    let holds = agent.list(&["holds"], "holds")?;
    let names: Vec<_> = holds.iter().map(|hold| hold["subscriber"].as_str()).collect();
    assert_eq!(names, [Some("nfs-proxy"), Some("firewall")], "{holds:?}");
    assert_eq!(acknowledge(&agent, &lease, "nfs-proxy")?, "Done");
    assert_eq!(acknowledge(&agent, &lease, "nfs-proxy")?, "Done", "twice is as good as once");
    let unknown = format!("{:#}", acknowledge(&agent, &lease, "nobody").unwrap_err());
    assert!(unknown.contains("[[subscriber]]") && unknown.contains("nobody"), "{unknown}");
    agent.kill()?;
    agent.start_again()?;
    assert_eq!(agent.state(&lease)?, "releasing");
    assert_eq!(agent.list(&["holds"], "holds")?.len(), 1);
    assert_eq!(acknowledge(&agent, &lease, "firewall")?, "Done");
    assert_eq!(agent.state(&lease)?, "cooling");
    assert_eq!(agent.metric("guard_holds_expired_total", &[])?, Some(0.0));
    // Of an owner that has it still.
    let held = agent.allocate("b")?;
    assert_eq!(acknowledge(&agent, &held, "firewall")?, "Stale");
    Ok(())
}

#[test]
fn rule_9_a_hold_that_expires_is_an_alert() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, "300ms")?;
    let lease = agent.allocate("a")?;
    assert_eq!(acknowledge(&agent, &lease, "firewall")?, "Stale");
    assert_eq!(agent.release(&lease)?, "releasing");
    assert_eq!(acknowledge(&agent, &lease, "firewall")?, "Done");
    agent.journal().await_line(&[
        "did not acknowledge",
        "nfs-proxy",
        &lease.address.to_string(),
    ])?;
    eventually("its end", || Ok((agent.state(&lease)? == "cooling").then_some(())))?;
    let expired = agent.metric("guard_holds_expired_total", &[("subscriber", "nfs-proxy")])?;
    assert_eq!(expired, Some(1.0));
    assert_eq!(acknowledge(&agent, &lease, "nfs-proxy")?, "Done", "late, and nothing waits");
    Ok(())
}

#[test]
fn a_subscriber_that_is_away_is_seen_to_lag() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, "1h")?;
    let lag = || agent.metric("guard_subscriber_lag_events", &[("subscriber", "nfs-proxy")]);
    assert_eq!(lag()?, Some(0.0));
    let first = agent.allocate("a")?;
    agent.release(&first)?;
    assert_eq!(lag()?, Some(2.0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        // It asks for what it has missed.
        let seen = client.watch_until("nfs-proxy", first.generation, "lease.releasing").await?;
        anyhow::ensure!(seen >= 2, "{seen} events");
        Ok(())
    })?;
    eventually("no lag", || Ok((lag()? == Some(0.0)).then_some(())))
}
