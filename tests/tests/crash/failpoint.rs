//! The end at chosen moments: around the commit, where an acknowledgement could go wrong.

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Exit, Lab, Launch};

use crate::life::{Life, Numbers};

const DEATHS: u32 = 20;

/// To settle what was in doubt takes fewer commits, and they are to come through.
const FIRST: u32 = 24;

/// Panics are rarer than kills here: what they leave on the disk is the same.
const PANICS: u32 = 4;

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

/// The thread that writes the leases panics in the middle of a change: the agent ends, and what it
/// leaves is what a crash at that moment leaves.
#[test]
fn rule_13_a_panic_of_the_ledger_ends_the_agent_and_loses_nothing_that_was_acknowledged()
-> Result<()> {
    let mut life = Life::new()?;
    let mut numbers = Numbers(3);
    for moment in ["before_commit", "after_commit", "before_reply"] {
        for panic in 0..PANICS {
            let count = FIRST + numbers.below(FIRST);
            let again = |lab: &Lab, agent: &mut Agent| -> Result<()> {
                agent.start_again_with(Launch::config(&lab.config()?)?.panicking_at(moment, count))
            };
            let end = |agent: &Agent| -> Result<()> {
                let Exit { code, log } = agent.await_end()?;
                ensure!(code == Some(1) && log.contains("part=\"ledger\""), "{code:?}: {log}");
                Ok(())
            };
            life.agent.stop().or_else(|_| end(&life.agent))?;
            again(&life.lab, &mut life.agent)?;
            life.round(|_, agent| end(agent), again)
                .with_context(|| format!("panic {panic} at {moment}"))?;
        }
    }
    ensure!(life.given() > 100, "{} leases in all", life.given());
    Ok(())
}
