//! Where waiting helps, a refusal says for how long; where it does not, it does not say so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_api::client::CallError;
use guard_tests::{Agent, Client, Lab, Launch, POOL, retry_delay};

/// The reason of a refused allocation, and how long to wait.
fn refused(agent: &Agent, sandbox: &str) -> Result<(String, Option<Duration>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        client.allocate(POOL, sandbox).await.err().context("it was given one")
    })?;
    let delay = retry_delay(&status);
    Ok((CallError::from(status).reason(), delay))
}

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

#[test]
fn an_exhausted_pool_says_when_the_next_address_has_rested() -> Result<()> {
    // The gateway, and one more.
    let lab = Lab::with_prefix(30)?;
    let config = lab.config()?.with_pool("cooldown_bypass", "false")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let lease = agent.allocate("a")?;
    let (reason, wait) = refused(&agent, "b")?;
    ensure!((&*reason, wait) == ("POOL_EXHAUSTED", None), "nobody knows when: {wait:?}");
    agent.release(&lease)?;
    let (reason, wait) = refused(&agent, "b")?;
    let rest = Duration::from_secs(30 * 60);
    let wait = wait.context("no RetryInfo")?;
    ensure!(reason == "POOL_EXHAUSTED" && wait <= rest, "{reason} {wait:?}");
    ensure!(wait > rest - guard_tests::TIMEOUT, "{wait:?}");
    Ok(())
}

#[test]
fn an_agent_that_is_starting_says_soon() -> Result<()> {
    let lab = Lab::new()?;
    // Nobody will ever answer there.
    let socket = lab.dir().join("nobody.sock");
    let waits = format!("[directory]\nsocket = {socket:?}\n[allocate]\nboot_timeout = \"1h\"\n");
    let agent = lab.agent_with(Launch::config(&lab.config()?.with(&waits)?)?.degraded())?;
    ensure!(refused(&agent, "a")? == ("STARTING".to_owned(), SECOND));
    Ok(())
}

#[test]
fn a_store_that_may_be_written_again_says_soon_and_a_lost_one_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.small_state(512)?;
    let mut agent = lab.agent()?;
    let filler = state.join("filler");
    // Until there is no room for one byte more.
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    let full = (0..400).find_map(|n| refused(&agent, &format!("s{n}")).ok());
    ensure!(full.context("it never filled up")? == ("STORE_UNWRITABLE".to_owned(), SECOND));
    std::fs::remove_file(&filler)?;
    agent.await_readyz(200)?;
    agent.kill()?;
    lab.remount_state(false)?;
    agent.start_again_degraded()?;
    ensure!(refused(&agent, "a")? == ("STORE_UNWRITABLE".to_owned(), SECOND), "read-only");
    lab.remount_state(true)?;
    agent.await_readyz(200)?;
    agent.stop()?;
    std::fs::remove_file(agent.store())?;
    agent.start_again_degraded()?;
    ensure!(refused(&agent, "a")? == ("STORE_DAMAGED".to_owned(), None), "gone");
    Ok(())
}
