//! HTTP: metrics, health and readiness.

use anyhow::Result;
use guard_tests::{BRIDGE, Lab, POOL};

#[test]
fn health_and_readiness_are_200_when_all_is_well() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    assert_eq!(agent.http("/healthz")?.status, 200);
    assert_eq!(agent.http("/readyz")?.status, 200);
    assert_eq!(agent.http("/nothing")?.status, 404);
    Ok(())
}

#[test]
fn metrics_count_what_was_done() -> Result<()> {
    let lab = Lab::with_prefix(29)?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    let held = agent.allocate("b")?;
    agent.release(&held)?;
    sandbox.announce(lease.address)?;
    let pool = ("pool", POOL);
    for (state, count) in [("active", 1.0), ("held", 0.0), ("cooling", 1.0)] {
        assert_eq!(
            agent.metric("guard_leases", &[pool, ("state", state)])?,
            Some(count),
            "{state}"
        );
    }
    assert_eq!(agent.metric("guard_pool_capacity_addresses", &[pool])?, Some(5.0));
    assert_eq!(agent.metric("guard_allocations_total", &[pool])?, Some(2.0));
    assert_eq!(agent.metric("guard_releases_total", &[pool])?, Some(1.0));
    assert_eq!(agent.metric("guard_ports", &[("bridge", BRIDGE), ("covered", "true")])?, Some(1.0));
    assert_eq!(agent.metric("guard_build_info", &[])?, Some(1.0));
    guard_tests::eventually("the frame in the metrics", || {
        let frames = agent.metric("guard_frames_total", &[("bridge", BRIDGE)])?;
        Ok(frames.filter(|&frames| frames >= 1.0))
    })?;
    Ok(())
}
