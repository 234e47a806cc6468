//! SIGHUP: what changes while the agent runs, what does not, and what a wrong file does.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use guard_tests::{Lab, Lease, POOL};

fn excluded(lease: &Lease) -> String {
    format!("[\"{}\"]", lease.address)
}

#[test]
fn a_pool_gets_other_settings_and_its_leases_stay() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (kept, released) = (agent.allocate("kept")?, agent.allocate("released")?);
    let config = lab.config()?.with_pool("cooldown", "\"1s\"")?;
    let config = config.with_pool("exclude", &excluded(&kept))?;
    agent.reload(&config.text()?)?;
    agent.journal().await_line(&["configuration: changed", "cooldown", "1800s", "1s"])?;
    agent.journal().await_line(&["configuration: changed", "exclude"])?;
    // The lease at an address that is excluded now is kept until it ends, and then gone for good.
    ensure!(agent.allocate("kept")? == kept, "it lost its lease");
    ensure!(agent.release(&kept)? == "cooling" && agent.release(&released)? == "cooling");
    let ask = |sandbox: &str, address: &Lease| {
        let address = address.address.to_string();
        agent.ctl(&["allocate", "--pool", POOL, "--sandbox", sandbox, "--address", &address])
    };
    guard_tests::eventually("a free address after a second", || {
        Ok((ask("new", &released)?.code == 0).then_some(()))
    })?;
    ensure!(ask("newer", &kept)?.refusal()?.reason == "ADDRESS_EXCLUDED");
    let pools = agent.list(&["pools"], "pools")?;
    ensure!(pools[0]["capacity"] == 252, "{pools:?}");
    agent.check()
}

#[test]
fn roles_are_given_and_taken_while_it_runs() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let mode = || anyhow::Ok(std::fs::metadata(agent.socket())?.permissions().mode() & 0o777);
    ensure!(mode()? == 0o600);
    agent.reload(
        &lab.config()?.with("[access]\nadmin_uids = [7]\ncontroller_uids = [0]")?.text()?,
    )?;
    ensure!(mode()? == 0o666);
    agent.allocate("a")?;
    let refusal = agent.ctl(&["gc", "--yes"])?.refusal()?;
    ensure!((&*refusal.status, &*refusal.reason) == ("PERMISSION_DENIED", "ROLE_REQUIRED"));
    ensure!(refusal.message.contains("Admin.Gc") && refusal.message.contains("access.admin_uids"));
    agent.reload(&lab.config()?.text()?)?;
    ensure!(mode()? == 0o600 && agent.ctl(&["gc", "--yes"])?.code == 0);
    Ok(())
}

#[test]
fn subscribers_come_and_go() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (first, second) = (agent.allocate("a")?, agent.allocate("b")?);
    ensure!(agent.release(&first)? == "cooling");
    agent.reload(&lab.config()?.with("[[subscriber]]\nname = \"nfs\"")?.text()?)?;
    ensure!(agent.release(&second)? == "releasing");
    let lag = agent.metric("guard_subscriber_lag_events", &[("subscriber", "nfs")])?;
    ensure!(lag == Some(1.0), "{lag:?}");
    agent.reload(&lab.config()?.text()?)?;
    ensure!(agent.metric("guard_subscriber_lag_events", &[("subscriber", "nfs")])?.is_none());
    Ok(())
}

#[test]
fn what_needs_a_restart_is_named_and_a_wrong_file_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let lease = agent.allocate("a")?;
    let config = lab.config()?.with("[quota]\naddresses_per_port = 3\n[log]\nformat = \"json\"")?;
    agent.reload(&config.text()?)?;
    agent.journal().await_line(&["needs a restart", "[quota]"])?;
    agent.journal().await_line(&["needs a restart", "[log] format"])?;
    let text = lab.config()?.with_pool("cooldown", "\"1s\"")?.text()?;
    agent.reload(&text.replace("cooldown", "cooldwon"))?;
    let line = text.lines().position(|line| line.starts_with("cooldown")).context("no line")? + 1;
    agent.journal().await_line(&["nothing is changed", &format!("line {line}")])?;
    ensure!(agent.journal().count(&["configuration: changed"]) == 0);
    ensure!(agent.allocate("a")? == lease);
    Ok(())
}
