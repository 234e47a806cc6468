//! The doors that the incident came through, each closed.

use anyhow::{Context, Result};
use guard_tests::{BRIDGE, Lab, eventually, names};

#[test]
fn rule_4_a_release_is_held_back_while_the_sandbox_lives() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (first, second) = (lab.sandbox("first")?, lab.sandbox("second")?);
    let lease = agent.admit(&first)?;
    first.announce(lease.address)?;
    assert_eq!(agent.release(&lease)?, "releasing");
    let entry = agent.entry(lease.address)?.context("not listed")?;
    assert_eq!(entry["state"], "releasing");
    assert!(names(&entry, first.mac(), first.port()), "{entry}");

    assert_ne!(agent.admit(&second)?.address, lease.address);
    // The generation has ended, so its owner is a new asker too.
    assert_ne!(agent.allocate("first")?.address, lease.address);

    let events = agent.follow(&["events", "--from", "0"])?;
    first.delete()?;
    let address = lease.address.to_string();
    events.next(|event| {
        event["type"] == "lease.cooling" && event["lease"]["address"] == address.as_str()
    })?;
    Ok(())
}

/// A sandbox that sends nothing has its port, and that is enough.
#[test]
fn rule_4_a_release_is_held_back_by_a_port_that_is_silent() -> Result<()> {
    // One address, which would go to the next one that asks.
    let lab = Lab::with_prefix(30)?;
    let mut agent = lab.agent()?;
    let sandbox = lab.sandbox("silent")?;
    let lease = agent.admit(&sandbox)?;
    assert_eq!(agent.release(&lease)?, "releasing");
    let ask = ["allocate", "--pool", guard_tests::POOL, "--sandbox", "next"];
    for again in [false, true] {
        if again {
            agent.kill()?;
            agent.start_again()?;
        }
        agent.json(&["reconcile"])?;
        assert_eq!(agent.state(&lease)?, "releasing");
        assert_eq!(agent.ctl(&ask)?.refusal()?.status, "RESOURCE_EXHAUSTED");
    }
    sandbox.delete()?;
    agent.await_state(&lease, "cooling")?;
    assert_eq!(agent.lease(&ask)?.address, lease.address);
    Ok(())
}

#[test]
fn rule_2_a_squatter_is_quarantined_and_its_address_never_handed_out() -> Result<()> {
    let lab = Lab::with_prefix(29)?;
    let agent = lab.agent()?;
    let squatter = lab.sandbox("squatter")?;
    let squatted = "10.8.64.3".parse()?;
    agent.await_port(&squatter)?;
    squatter.add_address(squatted)?;
    squatter.announce(squatted)?;
    let entry = eventually("the squatter in quarantine", || agent.entry(squatted))?;
    assert_eq!(entry["state"], "quarantined");
    assert!(names(&entry, squatter.mac(), squatter.port()), "{entry}");
    assert_eq!(agent.metric("guard_leases", &[("state", "quarantined")])?, Some(1.0));
    for number in 0..4 {
        assert_ne!(agent.allocate(&format!("s{number}"))?.address, squatted);
    }
    let args = ["allocate", "--pool", guard_tests::POOL, "--sandbox", "one-too-many"];
    let refusal = agent.ctl(&args)?.refusal()?;
    assert_eq!(refusal.status, "RESOURCE_EXHAUSTED");
    assert_eq!(refusal.reason, "NO_CONFLICT_FREE_ADDRESS");
    Ok(())
}

#[test]
fn a_neighbours_address_is_flagged_at_the_first_frame() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    // The owner has not sent a frame: the binding stands all the same.
    let lease = agent.admit(&owner)?;
    let own = agent.admit(&thief)?;
    let conflicts = agent.follow(&["conflicts"])?;
    let events = agent.follow(&["events", "--from", "0"])?;
    let address = lease.address.to_string();

    thief.announce(lease.address)?;
    let (_, seen) = conflicts.next(|conflict| conflict["address"] == address.as_str())?;
    let (_, event) = events.next(|event| event["type"] == "conflict.opened")?;
    assert_eq!(event["conflict"]["id"], seen["id"]);

    let listed = agent.list(&["conflicts"], "conflicts")?;
    assert_eq!(listed.len(), 1, "{listed:?}");
    let conflict = listed.first().context("no conflict")?;
    assert_eq!(conflict["id"], seen["id"]);
    assert_eq!(conflict["kind"], "duplicate");
    assert_eq!(conflict["bridge"], BRIDGE);
    assert_eq!(conflict["open"], true);
    let claimants = conflict["claimants"].as_array().context("no claimants")?;
    for (role, sandbox) in [("owner", &owner), ("impostor", &thief)] {
        let claimant = claimants.iter().find(|claimant| claimant["role"] == role);
        let claimant = claimant.with_context(|| format!("no {role} in {conflict}"))?;
        assert_eq!(claimant["mac"], sandbox.mac().to_string());
        assert_eq!(claimant["interface"], sandbox.port());
        assert_eq!(claimant["sandbox"], sandbox.name());
    }

    let macs = [owner.mac().to_string(), thief.mac().to_string()];
    let parts = ["WARN", &address, &macs[0], &macs[1], owner.port(), thief.port()];
    agent.journal().await_line(&parts)?;
    let labels = [("bridge", BRIDGE), ("kind", "duplicate")];
    assert_eq!(agent.metric("guard_conflicts_total", &labels)?, Some(1.0));
    assert_eq!(agent.metric("guard_conflicts_open", &labels)?, Some(1.0));

    // Neither lease is touched, and more of the same joins the incident.
    for held in [&lease, &own] {
        let entry = agent.entry(held.address)?.context("not listed")?;
        assert_eq!(entry["state"], "active");
        assert_eq!(entry["generation"], held.generation);
    }
    for _ in 0..10 {
        thief.announce(lease.address)?;
    }
    // One frame more, of which there is news, so that the ten before it have been seen.
    owner.announce(own.address)?;
    events.next(|event| {
        event["type"] == "conflict.opened"
            && event["conflict"]["address"] == own.address.to_string().as_str()
    })?;
    assert_eq!(agent.metric("guard_conflicts_total", &labels)?, Some(2.0));
    assert_eq!(agent.journal().count(&["WARN", &macs[1]]), 2, "{}", agent.journal().text());
    Ok(())
}

#[test]
fn an_incident_closes_when_it_has_been_quiet() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with("[conflict]\nquiet = \"1s\"")?;
    let agent = lab.agent_with(guard_tests::Launch::config(&config)?)?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let events = agent.follow(&["events", "--from", "0"])?;
    thief.announce(lease.address)?;
    let (_, opened) = events.next(|event| event["type"] == "conflict.opened")?;
    let (_, closed) = events.next(|event| event["type"] == "conflict.closed")?;
    assert_eq!(opened["conflict"]["id"], closed["conflict"]["id"]);
    assert!(agent.list(&["conflicts"], "conflicts")?.is_empty());
    let all = agent.list(&["conflicts", "--all"], "conflicts")?;
    assert_eq!(all.first().map(|conflict| &conflict["open"]), Some(&false.into()));
    agent.journal().await_line(&["INFO", &lease.address.to_string(), &thief.mac().to_string()])?;
    Ok(())
}
