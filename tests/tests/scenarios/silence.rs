//! An operator knows of a conflict, and does not want to hear of it for a while.

use anyhow::{Context, Result};
use guard_tests::{BRIDGE, Lab, Launch, eventually};

#[test]
fn a_silenced_conflict_counts_and_alerts_nobody_also_after_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with("[conflict]\nquiet = \"1s\"\nflap_window = \"1ms\"")?;
    let mut agent = lab.agent_with(Launch::config(&config)?)?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let events = agent.follow(&["events", "--from", "0"])?;
    thief.announce(lease.address)?;
    let (_, opened) = events.next(|event| event["type"] == "conflict.opened")?;
    assert!(opened["conflict"]["silenced_until"].is_null(), "{opened}");
    let id = opened["conflict"]["id"].as_str().context("an id")?;

    let unknown = agent.ctl(&["silence", "1", "--for", "1h"])?.refusal()?;
    assert_eq!((&*unknown.status, &*unknown.reason), ("NOT_FOUND", "CONFLICT_UNKNOWN"));
    let silenced = agent.json(&["silence", id, "--for", "1h"])?;
    assert_eq!(silenced["id"], id);
    let until = silenced["silenced_until"].clone();
    assert!(until.is_string(), "{silenced}");
    // Those who were told of it are told of this, and of its end.
    let (_, changed) = events.next(|event| event["type"] == "conflict.changed")?;
    assert_eq!(changed["conflict"]["silenced_until"], until);
    events.next(|event| event["type"] == "conflict.closed")?;

    // The same again is another incident, which counts, and nobody hears of it.
    let again = |agent: &guard_tests::Agent| -> Result<serde_json::Value> {
        thief.announce(lease.address)?;
        eventually("another incident", || {
            let open = agent.list(&["conflicts"], "conflicts")?;
            Ok(open.into_iter().find(|conflict| conflict["id"] != id))
        })
    };
    let second = again(&agent)?;
    assert_eq!((&second["silenced_until"], &second["open"]), (&until, &true.into()));
    let labels = [("bridge", BRIDGE), ("kind", "duplicate")];
    assert_eq!(agent.metric("guard_conflicts_total", &labels)?, Some(2.0));
    agent.allocate("barrier")?;
    let (_, next) = events.next(|_| true)?;
    assert_eq!(next["lease"]["sandbox"], "barrier", "{next}");
    let alert = ["WARN", &lease.address.to_string()];
    assert_eq!(agent.journal().count(&alert), 1, "{}", agent.journal().text());

    // It is on disk once the agent has ended in good order.
    drop(events);
    agent.stop()?;
    agent.start_again()?;
    let third = eventually("an incident of this run, or the last one", || {
        thief.announce(lease.address)?;
        Ok(agent.list(&["conflicts"], "conflicts")?.into_iter().next())
    })?;
    assert_eq!(third["silenced_until"], until);
    assert_eq!(agent.journal().count(&alert), 0, "{}", agent.journal().text());

    // An end to it: what is open is told now.
    let events = agent.follow(&["events"])?;
    let id = third["id"].as_str().context("an id")?;
    thief.announce(lease.address)?;
    let loud = agent.json(&["silence", id, "--for", "0s"])?;
    assert!(loud["silenced_until"].is_null(), "{loud}");
    agent.journal().await_line(&alert)?;
    drop(events);
    Ok(())
}
