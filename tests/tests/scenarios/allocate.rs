//! Asking for addresses, and giving them back.

use anyhow::Result;
use guard_tests::{Agent, Lab, Launch, POOL, Refusal};

const ALLOCATE: [&str; 3] = ["allocate", "--pool", POOL];

fn refused(agent: &Agent, args: &[&str]) -> Result<(String, String)> {
    let Refusal { status, reason, message } = agent.ctl(args)?.refusal()?;
    assert!(!message.is_empty());
    Ok((status, reason))
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn rule_1_the_same_asker_gets_the_same_lease() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let ask = |more: &[&str]| {
        let sandbox = ["--sandbox", "s", "--lifecycle", "1"];
        agent.lease(&[ALLOCATE.as_slice(), &sandbox, more].concat())
    };
    let lease = ask(&[])?;
    assert_eq!(ask(&[])?, lease);
    let other_key = ask(&["--key", "eth1"])?;
    assert_ne!(other_key.address, lease.address);
    let other_lifecycle =
        agent.lease(&[ALLOCATE.as_slice(), &["--sandbox", "s", "--lifecycle", "2"]].concat())?;
    assert_ne!(other_lifecycle.address, lease.address);
    assert!(other_lifecycle.generation > lease.generation);
    let elsewhere = ["--sandbox", "s", "--lifecycle", "1", "--address", "10.8.64.200"];
    assert_eq!(
        refused(&agent, &[ALLOCATE.as_slice(), &elsewhere].concat())?,
        is("FAILED_PRECONDITION", "OWNER_HAS_LEASE")
    );
    Ok(())
}

/// Whatever became of the first reply: who did not get it asks again, also of the next agent.
#[test]
fn rule_1_the_same_asker_gets_the_same_lease_over_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let sandbox = lab.sandbox("s")?;
    let mac = sandbox.mac().to_string();
    let asked = ["--sandbox", "s", "--lifecycle", "1", "--mac", &mac, "--interface", "veth-s"];
    let ask = |agent: &Agent| agent.lease(&[ALLOCATE.as_slice(), &asked].concat());
    let lease = ask(&agent)?;
    agent.kill()?;
    agent.start_again()?;
    assert_eq!(ask(&agent)?, lease);
    let other = ["--sandbox", "s", "--lifecycle", "1", "--mac", "02:00:00:00:99:99"];
    let Refusal { reason, message, .. } =
        agent.ctl(&[ALLOCATE.as_slice(), &other].concat())?.refusal()?;
    assert_eq!(reason, "OWNER_HAS_LEASE");
    assert!(message.contains(&lease.address.to_string()), "it does not name the lease: {message}");
    agent.check()
}

#[test]
fn an_address_that_cannot_be_had_is_refused_with_the_reason() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with_pool("exclude", r#"["10.8.64.99"]"#)?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let held = agent.allocate("holder")?.address.to_string();
    for (address, status, reason) in [
        ("10.8.65.2", "INVALID_ARGUMENT", "ADDRESS_OUTSIDE_POOL"),
        ("10.8.64.1", "INVALID_ARGUMENT", "ADDRESS_RESERVED"),
        ("10.8.64.255", "INVALID_ARGUMENT", "ADDRESS_RESERVED"),
        ("10.8.64.99", "INVALID_ARGUMENT", "ADDRESS_EXCLUDED"),
        (&held, "FAILED_PRECONDITION", "ADDRESS_HELD"),
    ] {
        let asker = ["--sandbox", "asker", "--address", address];
        let answer = refused(&agent, &[ALLOCATE.as_slice(), &asker].concat())?;
        assert_eq!(answer, is(status, reason), "{address}");
    }
    assert_eq!(
        refused(&agent, &["allocate", "--pool", "none", "--sandbox", "asker"])?,
        is("NOT_FOUND", "POOL_UNKNOWN")
    );
    let wanted = agent.lease(
        &[ALLOCATE.as_slice(), &["--sandbox", "asker", "--address", "10.8.64.77"]].concat(),
    )?;
    assert_eq!(wanted.address.to_string(), "10.8.64.77");
    Ok(())
}

#[test]
fn what_is_live_is_not_given_to_those_who_ask_for_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let squatter = lab.sandbox("squatter")?;
    agent.await_port(&squatter)?;
    squatter.announce("10.8.64.50".parse()?)?;
    guard_tests::eventually("the squatter in quarantine", || agent.entry("10.8.64.50".parse()?))?;
    let asker = ["--sandbox", "asker", "--address", "10.8.64.50"];
    let (status, reason) = refused(&agent, &[ALLOCATE.as_slice(), &asker].concat())?;
    assert_eq!(status, "FAILED_PRECONDITION");
    assert!(["ADDRESS_LIVE", "ADDRESS_QUARANTINED"].contains(&reason.as_str()), "{reason}");
    Ok(())
}

#[test]
fn a_call_for_an_ended_generation_is_stale_and_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let lease = agent.allocate("s")?;
    assert_eq!(agent.release(&lease)?, "cooling");
    let before = agent.entry(lease.address)?;
    assert_eq!(agent.release(&lease)?, "stale");
    let generation = lease.generation.to_string();
    let confirmed = agent.json(&["confirm", "--generation", &generation])?;
    assert_eq!(confirmed["outcome"], "stale", "{confirmed}");
    assert_eq!(agent.entry(lease.address)?, before);
    let never = (lease.generation + 1000).to_string();
    let answer = agent.json(&["release", "--generation", &never])?;
    assert_eq!(answer["outcome"], "not_found", "{answer}");
    let answer = agent.json(&["release", "--sandbox", "nobody"])?;
    assert_eq!(answer["outcome"], "not_found", "{answer}");
    Ok(())
}

#[test]
fn rule_4_a_sandbox_with_two_lifecycles_must_say_which() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    for lifecycle in ["1", "2"] {
        agent.lease(
            &[ALLOCATE.as_slice(), &["--sandbox", "s", "--lifecycle", lifecycle]].concat(),
        )?;
    }
    assert_eq!(
        refused(&agent, &["release", "--sandbox", "s"])?,
        is("INVALID_ARGUMENT", "AMBIGUOUS_OWNER")
    );
    let answer = agent.json(&["release", "--sandbox", "s", "--lifecycle", "1"])?;
    assert_eq!(answer["outcome"], "cooling", "{answer}");
    let answer = agent.json(&["release", "--sandbox", "s"])?;
    assert_eq!(answer["leases"].as_array().map(Vec::len), Some(1), "{answer}");
    Ok(())
}

#[test]
fn rule_1_several_pools_in_one_call_are_all_or_nothing() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge("rt1")?;
    let config = lab.config()?.with(
        "[[bridge]]\nname = \"rt0\"\n[[bridge]]\nname = \"rt1\"\n\
         [[pool]]\nname = \"sandboxes\"\nbridge = \"rt0\"\nprefix = \"10.8.64.0/24\"\n\
         [[pool]]\nname = \"small\"\nbridge = \"rt1\"\nprefix = \"10.9.0.0/30\"\n",
    )?;
    let mut agent = lab.agent_with(Launch::config(&config)?)?;
    let both = ["allocate", "--pool", POOL, "--pool", "small", "--sandbox"];
    let first = agent.list(&[both.as_slice(), &["first"]].concat(), "leases")?;
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(first.iter().map(|lease| &lease["pool"]).collect::<Vec<_>>(), [POOL, "small"]);
    let refused = refused(&agent, &[both.as_slice(), &["second"]].concat())?;
    assert_eq!(refused, is("RESOURCE_EXHAUSTED", "POOL_EXHAUSTED"));
    assert!(agent.list(&["leases", "--sandbox", "second"], "leases")?.is_empty());
    // The same asker gets the same again, and what was refused is in no pool's way.
    assert_eq!(agent.list(&[both.as_slice(), &["first"]].concat(), "leases")?, first);
    agent.kill()?;
    agent.start_again()?;
    assert!(agent.list(&["leases", "--sandbox", "second"], "leases")?.is_empty());
    assert_eq!(agent.list(&[both.as_slice(), &["first"]].concat(), "leases")?, first);
    assert_eq!(agent.list(&["leases"], "leases")?.len(), 2);
    agent.check()
}
