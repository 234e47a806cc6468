//! Questions that cannot be sent: nobody has failed to answer them.

use anyhow::Result;
use guard_tests::{Lab, eventually, run};

#[test]
fn a34_a_holder_whom_no_question_reaches_is_not_taken_for_one_that_does_not_answer() -> Result<()> {
    for (reaches, severity) in [(true, "info"), (false, "warning")] {
        let lab = Lab::new()?;
        let agent = lab.agent()?;
        // Neither has the address in its kernel, which would answer.
        let (first, second) = (lab.sandbox("first")?, lab.sandbox("second")?);
        agent.await_port(&first)?;
        agent.await_port(&second)?;
        if !reaches {
            let host = lab.host().name();
            let full = ["qdisc", "add", "dev", first.port(), "root", "pfifo", "limit", "0"];
            run("tc", &[&["-n", host], &full[..]].concat())?;
        }
        let lease = agent.allocate("moving")?;
        first.announce(lease.address)?;
        agent.await_state(&lease, "active")?;
        second.announce(lease.address)?;
        let duplicate = eventually("the second", || {
            let open = agent.list(&["conflicts"], "conflicts")?;
            Ok(open.into_iter().find(|one| one["kind"] == "duplicate"))
        })?;
        assert_eq!(duplicate["severity"], severity, "{duplicate}");
    }
    Ok(())
}
