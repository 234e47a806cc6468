//! SIGKILL at random moments.

use std::time::Duration;

use anyhow::{Context, Result};
use guard_tests::Agent;

use crate::life::{Life, Numbers};

const KILLS: u32 = 200;

/// At most so long after the clients began.
const WITHIN_US: u32 = 40_000;

#[test]
fn what_was_acknowledged_survives_two_hundred_kills() -> Result<()> {
    let mut life = Life::new()?;
    let mut numbers = Numbers(1);
    for kill in 0..KILLS {
        let after = Duration::from_micros(numbers.below(WITHIN_US).into());
        life.round(
            |runtime, agent| {
                // No event: any moment is to be as likely as any other.
                let _entered = runtime.enter();
                runtime.block_on(tokio::time::sleep(after));
                agent.kill()
            },
            |_, agent| Agent::start_again(agent),
        )
        .with_context(|| format!("kill {kill}, after {after:?}"))?;
    }
    assert!(life.given() > 1000, "{} leases in all", life.given());
    life.agent.stop()
}
