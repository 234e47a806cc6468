//! An agent that is there and does nothing.

use anyhow::Result;
use guard_tests::{Lab, Launch, eventually};

#[test]
fn an_observer_that_stands_still_is_degraded_until_it_comes_round() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?)?.dying_at("observer_round", 3))?;
    // Whoever may ask is told what, and no more.
    assert_eq!(agent.await_readyz(503)?, "observer\n");
    agent.journal().await_line(&["degraded", "observer", "it has not come round"])?;
    assert_eq!(agent.metric("guard_ready", &[])?, Some(0.0));
    assert_eq!(agent.metric("guard_source_healthy", &[("source", "wire")])?, Some(0.0));
    let refused = agent.ctl(&["allocate", "--pool", guard_tests::POOL, "--sandbox", "a"])?;
    assert_eq!(refused.refusal()?.reason, "OBSERVER_DEGRADED");
    assert_eq!(agent.http("/healthz")?.status, 200, "the store's writer answers");
    agent.await_readyz(200)?;
    eventually("the recovery in the metrics", || {
        Ok(agent.metric("guard_ready", &[])?.filter(|&ready| ready > 0.0))
    })?;
    agent.allocate("a").map(drop)
}
