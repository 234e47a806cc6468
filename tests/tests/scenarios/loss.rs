//! What someone takes away from the observer comes back without a restart.

use anyhow::Result;
use guard_tests::{Lab, eventually};

#[test]
fn a_program_that_someone_takes_off_a_port_is_put_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let before = lab.programs_on(thief.port())?;
    assert_eq!(before.len(), 1);
    for round in 1..=2 {
        lab.take_program_off(thief.port())?;
        eventually("the port found without the program, and with it again", || {
            let lost = agent.journal().count(&["degraded", thief.port(), "taken off"]) == round;
            let back = agent.journal().count(&["recovered", thief.port()]) == round;
            Ok((lost && back).then_some(()))
        })?;
        assert_eq!(lab.programs_on(thief.port())?, before);
    }
    agent.await_readyz(200)?;
    // The other port was left alone, and this one is watched.
    assert_eq!(agent.journal().count(&["degraded", owner.port()]), 0);
    let events = agent.follow(&["events", "--from", "0"])?;
    thief.announce(lease.address)?;
    events.next(|event| event["type"] == "conflict.opened").map(drop)
}

#[test]
fn detach_leaves_nothing_on_the_ports() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    agent.await_port(&sandbox)?;
    agent.stop()?;
    assert_eq!(lab.programs_on(sandbox.port())?.len(), 1, "it goes on without the agent");
    lab.detach()?;
    // The kernel takes a link off some time after its last pin is gone.
    eventually("no program", || Ok(lab.programs_on(sandbox.port())?.is_empty().then_some(())))?;
    assert!(lab.pinned()?.is_empty(), "{:?}", lab.pinned()?);
    let qdiscs = lab.host().command("tc").args(["qdisc", "show"]).output()?;
    let qdiscs = String::from_utf8(qdiscs.stdout)?;
    assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    Ok(())
}
