//! Part 5: guard leases nothing, and watches.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use guard_tests::{BRIDGE, Lab, Launch};

use crate::{Measured, PREFIX_LEN, screen::Screen};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

pub(crate) fn without_a_pool(screen: &mut Screen, measured: &mut Measured) -> Result<()> {
    let lab = Lab::with_prefix(PREFIX_LEN)?;
    let config = lab.config()?.with(&format!("pool = []\n[[bridge]]\nname = {BRIDGE:?}"))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    screen.quote("agent.toml", &format!("[[bridge]]\nname = {BRIDGE:?}"));
    let both = [lab.sandbox("alpha")?, lab.sandbox("beta")?];
    let events = agent.follow(&["events", "--from", "0"])?;
    for sandbox in &both {
        agent.await_port(sandbox)?;
        sandbox.add_address(ADDRESS)?;
        sandbox.announce(ADDRESS)?;
        let what = format!("starts with {ADDRESS}, behind {}", sandbox.port());
        screen.step(sandbox.name(), &what);
    }
    let text = ADDRESS.to_string();
    let (_, event) = events.next(|event| {
        event["type"] == "conflict.opened" && event["conflict"]["address"] == text.as_str()
    })?;
    let named = event["conflict"]["claimants"].to_string();
    for sandbox in &both {
        let (mac, port) = (sandbox.mac().to_string(), sandbox.port());
        ensure!(named.contains(&mac) && named.contains(port), "not named in {named}: {port}");
    }
    let shown = agent.ctl_in_columns(screen.columns(), &["conflicts"])?;
    ensure!(shown.code == 0 && shown.stdout.contains(&text), "guardctl conflicts: {shown:?}");
    screen.quote("guardctl conflicts", shown.stdout.trim_end());
    let incidents = agent.list(&["conflicts", "--all"], "conflicts")?;
    measured.conflicts_flagged_without_a_pool =
        u64::try_from(incidents.len()).context("the number of incidents")?;
    screen.good("the first address that two have is told, with both MACs and both ports");
    drop(events);
    agent.stop()
}
