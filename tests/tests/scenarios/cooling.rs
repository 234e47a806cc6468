//! Rule 3: free means longest free.

use anyhow::{Context, Result};
use guard_tests::{Lab, Launch, POOL};

#[test]
fn rule_3_what_was_just_released_is_not_handed_out_next() -> Result<()> {
    let lab = Lab::with_prefix(29)?;
    let agent = lab.agent()?;
    let released = agent.allocate("first")?;
    assert_eq!(agent.release(&released)?, "cooling");
    for number in 0..4 {
        assert_ne!(agent.allocate(&format!("s{number}"))?.address, released.address);
    }
    // Only under pressure is a cooling address used, and it says so.
    let asked = ["allocate", "--pool", POOL, "--sandbox", "last"];
    let last = agent.json(&asked)?;
    assert_eq!(last["address"], released.address.to_string());
    assert_eq!(last["cooldown_bypassed"], true);
    let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "more"])?.refusal()?;
    assert_eq!(
        (refusal.status.as_str(), refusal.reason.as_str()),
        ("RESOURCE_EXHAUSTED", "POOL_EXHAUSTED")
    );
    Ok(())
}

#[test]
fn rule_3_without_the_bypass_the_error_says_when_to_retry() -> Result<()> {
    let lab = Lab::with_prefix(29)?;
    let config = lab.config()?.with_pool("cooldown_bypass", "false")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let leases: Vec<_> =
        (0..5).map(|number| agent.allocate(&format!("s{number}"))).collect::<Result<_>>()?;
    let first = leases.first().context("no lease")?;
    agent.release(first)?;
    let until = agent.entry(first.address)?.context("not listed")?;
    let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "more"])?.refusal()?;
    assert_eq!(refusal.reason, "POOL_EXHAUSTED");
    // To the second: the message need not have the same fraction.
    let until = until["until"].as_str().and_then(|time| time.get(..19)).context("no time")?;
    assert!(refusal.message.contains(until), "{} does not name {until}", refusal.message);
    // The last owner may have it back, by its address.
    let address = first.address.to_string();
    let again =
        agent.lease(&["allocate", "--pool", POOL, "--sandbox", "s0", "--address", &address])?;
    assert_eq!(again.address, first.address);
    assert!(again.generation > first.generation);
    Ok(())
}

#[test]
fn a_short_cooldown_ends_and_the_address_is_free() -> Result<()> {
    let lab = Lab::with_prefix(29)?;
    let config = lab.config()?.with_pool("cooldown", "\"1s\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let lease = agent.allocate("s")?;
    let events = agent.follow(&["events", "--from", "0"])?;
    assert_eq!(agent.release(&lease)?, "cooling");
    events.next(|event| event["type"] == "lease.free")?;
    assert_eq!(agent.entry(lease.address)?, None);
    Ok(())
}
