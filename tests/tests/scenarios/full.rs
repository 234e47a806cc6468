//! A kernel map without room: what the program cannot note is not vouched for.

use std::net::Ipv4Addr;

use anyhow::Result;
use guard_tests::{Lab, Launch, eventually};

use crate::inventory::{QUICK, await_passes, misses};

#[test]
fn a_full_map_degrades_until_there_is_room_and_refuses_and_reaps_nobody() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?.with(QUICK)?)?)?;
    let (gone, stays) = (lab.sandbox("gone")?, lab.sandbox("stays")?);
    let lease = agent.admit(&gone)?;
    agent.await_port(&stays)?;

    let full = lab.fill_live_map()?;
    let unseen = Ipv4Addr::new(10, 8, 64, 77);
    stays.announce(unseen)?;
    agent.journal().await_line(&["degraded", "maps full", "room"])?;
    assert!(agent.await_readyz(503)?.contains("maps full"));
    let live = agent.list(&["live"], "live")?;
    assert!(live.iter().all(|live| live["address"] != unseen.to_string()), "{live:?}");
    // Frames alone have filled it.
    agent.allocate("new")?;
    // It would be reaped: there is nothing that shows it any more.
    gone.delete()?;
    await_passes(&agent, "ended", 4.0)?;
    assert_eq!((agent.state(&lease)?.as_str(), misses(&agent, &lease)?), ("active", 0));
    // Silence does not mean that there is room: nobody has claimed anything since.
    assert_eq!(agent.journal().count(&["recovered", "maps full"]), 0);

    full.empty()?;
    agent.await_readyz(200)?;
    assert_eq!(agent.journal().count(&["recovered", "maps full"]), 1);
    agent.await_state(&lease, "cooling")?;
    stays.announce(unseen)?;
    eventually("the claim that had no room", || {
        let live = agent.list(&["live"], "live")?;
        Ok(live.iter().any(|live| live["address"] == unseen.to_string()).then_some(()))
    })?;
    Ok(())
}
