//! Part 6: the same theft where guard watches, and where it enforces.

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, BRIDGE, Lab, NameServer, ask};

use crate::{CONNECTIONS, Measured, PREFIX_LEN, release::admit, screen::Screen};

pub(crate) fn in_observe_and_in_enforce(
    screen: &mut Screen,
    measured: &mut Measured,
) -> Result<()> {
    let lab = Lab::with_prefix(PREFIX_LEN)?;
    let agent = lab.agent()?;
    let alpha = admit(screen, measured, &lab, &agent, "alpha", &[])?;
    let address = alpha.lease.address;
    let thief = lab.sandbox("thief")?;
    let _server = NameServer::start(&thief)?;
    agent.await_port(&thief)?;
    let before = ask(lab.host(), address, 1)?;
    ensure!(before.misdelivered("alpha") + before.failed == 0, "alpha is not served: {before:?}");

    let theft = |screen: &mut Screen| -> Result<u64> {
        thief.announce(address)?;
        screen.step("thief", &format!("announces {address}, behind {}", thief.port()));
        let answers = ask(lab.host(), address, CONNECTIONS)?;
        let wrong = answers.misdelivered("alpha") + answers.failed;
        let told = format!("{wrong} of {} connections to alpha go astray", answers.total());
        screen.step("a client", &told);
        Ok(wrong)
    };
    thief.add_address(address)?;
    measured.misdelivered_observe = theft(screen)?;
    screen.bad("in observe guard tells of it, and the frames arrive");

    let on = ["enforce", "on", "--bridge", BRIDGE];
    let shown = agent.ctl_in_columns(screen.columns(), &on)?;
    ensure!(shown.code == 0, "guardctl {}: {shown:?}", on.join(" "));
    screen.quote(&format!("guardctl {}", on.join(" ")), shown.stdout.trim_end());
    alpha.sandbox.announce(address)?;
    screen.step("alpha", "says that it is still there");
    measured.misdelivered_enforce = theft(screen)?;
    measured.frames_dropped = dropped(&agent)?;
    let shown = agent.ctl_in_columns(screen.columns(), &["drops"])?;
    screen.quote("guardctl drops", shown.stdout.trim_end());
    screen.good("in enforce they end at the thief's port");
    agent.stop()
}

fn dropped(agent: &Agent) -> Result<u64> {
    let rows = agent.list(&["drops"], "drops")?;
    let count = |row: &serde_json::Value| row["dropped"].as_u64().context("no count");
    rows.iter().map(count).sum()
}
