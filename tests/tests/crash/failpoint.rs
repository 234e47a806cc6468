//! The end at chosen moments: around the commit, where an acknowledgement could go wrong.

use anyhow::{Context, Result};
use guard_tests::{Lab, Launch};

use crate::life::{Life, Numbers};

const DEATHS: u32 = 20;

/// To settle what was in doubt takes fewer commits, and they are to come through.
const FIRST: u32 = 24;

fn dies_at(moment: &str) -> Result<()> {
    let mut life = Life::new()?;
    let mut numbers = Numbers(2);
    let mut launch = |lab: &Lab| -> Result<Launch> {
        let launch = Launch::config(&lab.config()?)?;
        Ok(launch.dying_at(moment, FIRST + numbers.below(FIRST)))
    };
    life.agent.stop()?;
    life.agent.start_again_with(launch(&life.lab)?)?;
    for death in 0..DEATHS {
        life.round(
            |_, agent| agent.await_death(),
            |lab, agent| agent.start_again_with(launch(lab)?),
        )
        .with_context(|| format!("death {death} at {moment}"))?;
    }
    assert!(life.given() > 200, "{} leases in all", life.given());
    life.agent.stop()
}

#[test]
fn a_death_before_the_commit_loses_nothing_that_was_acknowledged() -> Result<()> {
    dies_at("before_commit")
}

#[test]
fn a_death_after_the_commit_leaves_a_lease_that_its_asker_gets() -> Result<()> {
    dies_at("after_commit")
}

#[test]
fn a_death_before_the_reply_leaves_a_lease_that_its_asker_gets() -> Result<()> {
    dies_at("before_reply")
}
